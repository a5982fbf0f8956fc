"""Where a key may go. Each key is one secret, for the hosts of its provider and for no other server.

A key is read from the environment variable that its provider's own tools read, or from the one that models.toml names
for a model. OPENAI_API_KEY also goes to the host in OPENAI_BASE_URL and to this machine. A key leaves this machine over
https only. What else the client reads from the environment (OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_CUSTOM_HEADERS)
goes to OpenAI and to the host in OPENAI_BASE_URL only.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from datagen.errors import InputError
from datagen.llm.spec import OPENAI_URL, is_loopback

KEY = re.compile(r"[!-~]+")
"""What a header can hold: visible ASCII characters."""
BEARER, API_KEY = "Authorization", "api-key"
"""Headers that carry a key: `Authorization: Bearer KEY`, or the key alone."""


class Provider(NamedTuple):
    """Who serves models, and which variable holds the key."""

    url: str
    """The address of its API; what a user fills in stands in capitals."""
    variables: tuple[str, ...]
    """The first that is set holds the key."""
    hosts: tuple[str, ...]
    """Hosts that may get the key. One that begins with a dot stands for all hosts with this ending: the provider
    alone must run the servers below it."""
    header: str = BEARER


PROVIDERS = (
    Provider(OPENAI_URL, ("OPENAI_API_KEY",), ("api.openai.com", ".api.openai.com")),
    Provider("https://api.anthropic.com/v1", ("ANTHROPIC_API_KEY",), ("api.anthropic.com",)),
    Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ("generativelanguage.googleapis.com",),
    ),
    Provider(
        "https://RESOURCE.openai.azure.com/openai/v1",
        ("AZURE_OPENAI_API_KEY",),
        (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
        API_KEY,
    ),
    Provider("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), ("openrouter.ai",)),
    Provider("https://router.huggingface.co/v1", ("HF_TOKEN",), ("router.huggingface.co",)),
    Provider("https://api.mistral.ai/v1", ("MISTRAL_API_KEY",), ("api.mistral.ai",)),
    Provider("https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",), ("api.deepseek.com",)),
    Provider("https://api.x.ai/v1", ("XAI_API_KEY",), ("api.x.ai",)),
    Provider(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("DASHSCOPE_API_KEY",),
        ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
    ),
    Provider("https://api.moonshot.ai/v1", ("MOONSHOT_API_KEY",), ("api.moonshot.ai", "api.moonshot.cn")),
    Provider("https://open.bigmodel.cn/api/paas/v4", ("ZHIPUAI_API_KEY",), ("open.bigmodel.cn",)),
    Provider("https://api.z.ai/api/paas/v4", ("ZAI_API_KEY",), ("api.z.ai",)),
    Provider("https://api.minimax.io/v1", ("MINIMAX_API_KEY",), ("api.minimax.io", "api.minimaxi.com")),
    Provider("https://ark.cn-beijing.volces.com/api/v3", ("ARK_API_KEY",), ("ark.cn-beijing.volces.com",)),
    Provider("https://api.siliconflow.com/v1", ("SILICONFLOW_API_KEY",), ("api.siliconflow.com", "api.siliconflow.cn")),
    Provider("https://api.together.xyz/v1", ("TOGETHER_API_KEY",), ("api.together.xyz", "api.together.ai")),
    Provider("https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY",), ("api.fireworks.ai",)),
    Provider("https://api.groq.com/openai/v1", ("GROQ_API_KEY",), ("api.groq.com",)),
    Provider("https://api.cerebras.ai/v1", ("CEREBRAS_API_KEY",), ("api.cerebras.ai",)),
    Provider("https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",), ("api.sambanova.ai",)),
    Provider("https://integrate.api.nvidia.com/v1", ("NVIDIA_API_KEY",), ("integrate.api.nvidia.com",)),
    Provider("https://api.deepinfra.com/v1/openai", ("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"), ("api.deepinfra.com",)),
    Provider("https://api.novita.ai/openai", ("NOVITA_API_KEY",), ("api.novita.ai",)),
    Provider(
        "https://api.tokenfactory.nebius.com/v1",
        ("NEBIUS_API_KEY",),
        ("api.tokenfactory.nebius.com", "api.studio.nebius.com", "api.studio.nebius.ai"),
    ),
    Provider("https://api.hyperbolic.xyz/v1", ("HYPERBOLIC_API_KEY",), ("api.hyperbolic.xyz",)),
    Provider("https://api.perplexity.ai", ("PERPLEXITY_API_KEY",), ("api.perplexity.ai",)),
    Provider(
        "https://api.cohere.ai/compatibility/v1",
        ("COHERE_API_KEY", "CO_API_KEY"),
        ("api.cohere.ai", "api.cohere.com"),
    ),
)


def api_key(url: str, own: str = "") -> str:
    """Return the API key for a URL, from the environment; "none" where there is none that may go there.

    Args:
        url: The base URL of an API.
        own: The variable that models.toml names for the model; empty for the usual one of the host.

    Raises:
        InputError: The host asks for a key, or models.toml names one, and it is not set or may not be sent; or it
            cannot be sent in a header.
    """
    variables = key_variables(url, own)
    variable = next((variable for variable in variables if os.environ.get(variable)), "")
    if variable and is_unheard(url):
        return header_value(variable)
    if own and not is_unheard(url):
        raise InputError(key_hint(url, own))
    if variables and (own or (provider_of(url) and is_unheard(url))):
        raise InputError(
            f"{variables[0]} is not set. Set it, name a server (--model NAME@http://127.0.0.1:8000/v1), "
            "or try the tool without a model: --model sim"
        )
    return "none"


def header_value(variable: str) -> str:
    """Return the value of an environment variable, to be sent in a header.

    Raises:
        InputError: It is not set, or a header cannot hold it.
    """
    value = os.environ.get(variable, "")
    if not value:
        raise InputError(f"{variable} is not set, and models.toml names it: set it")
    if not KEY.fullmatch(value):
        raise InputError(f"{variable} holds a space, a line break or another character that no key has: set it again")
    return value


def key_variables(url: str, own: str = "") -> list[str]:
    """Return the environment variables whose key is meant for a URL, the best first; they need not be set."""
    if own:
        return [own]
    provider = provider_of(url)
    variables = list(provider.variables) if provider else []
    if is_loopback(url) or host(url) == host(os.environ.get("OPENAI_BASE_URL", "")) != "":
        variables.append("OPENAI_API_KEY")
    return list(dict.fromkeys(variables))


def key_header(url: str) -> str:
    """Return the header in which a host takes its key."""
    provider = provider_of(url)
    return provider.header if provider else BEARER


def provider_of(url: str) -> Provider | None:
    """Return the provider that a host belongs to."""
    name = host(url)
    return next((provider for provider in PROVIDERS if any(is_host(name, pattern) for pattern in provider.hosts)), None)


def is_host(name: str, pattern: str) -> bool:
    """Check that a host is one of PROVIDERS."""
    return name == pattern or (pattern.startswith(".") and name.endswith(pattern))


def is_unheard(url: str) -> bool:
    """Check that nobody on the way can read what is sent to a URL."""
    return urlsplit(url).scheme.lower() == "https" or is_loopback(url)


def takes_settings(url: str) -> bool:
    """Check that the OPENAI_ variables of the environment are meant for a URL, and that it is safe from listeners."""
    is_meant = host(url) in {host(OPENAI_URL), host(os.environ.get("OPENAI_BASE_URL", ""))} - {""}
    return is_meant and is_unheard(url)


def host(url: str) -> str:
    """Return the host of a URL in lower case, or "" if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def extra_headers(url: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a model in models.toml with the values of the variables that they name.

    Args:
        url: Where they go.
        headers: Name to value; `$VARIABLE` stands for the value of an environment variable.

    Raises:
        InputError: A variable is not set, cannot be sent in a header, or would be sent over plain http.
    """
    variables = [value[1:] for value in headers.values() if value.startswith("$")]
    if variables and not is_unheard(url):
        raise InputError(key_hint(url, variables[0]))
    return {name: header_value(value[1:]) if value.startswith("$") else value for name, value in headers.items()}


def key_hint(url: str, own: str = "") -> str:
    """Return why a server that refuses a key got none; empty if it got one.

    Args:
        url: The base URL of an API.
        own: The variable that models.toml names for the model.
    """
    name, variables = host(url), key_variables(url, own)
    sent = next((variable for variable in variables if os.environ.get(variable)), "")
    if sent and is_unheard(url):
        return ""
    if variables and not sent:
        return f"No key was sent: {' or '.join(variables)} is not set"
    withheld = sent or ("OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY") else "")
    begin = f"{withheld} is not sent to {name}" if withheld else f"No key was sent to {name}"
    if not is_unheard(url):
        return f"{begin}: over plain http a key goes to this machine only; use https"
    return (
        f"{begin}: no variable is known for this host. Name the one that holds its key in models.toml, as "
        f'key = "VARIABLE" under [models.NAME]. If it is OPENAI_API_KEY: export OPENAI_BASE_URL={url}'
    )
