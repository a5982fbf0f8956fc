"""A model spec names a model: NAME[#tag][@URL[,URL...]], a model of models.toml, hf:PATH, replay:FILE, a Python
function, or sim[:options] for the procedural teacher.

gpt-4o-mini                              the OpenAI API, or the server in OPENAI_BASE_URL
qwen3:8b@http://127.0.0.1:11434/v1       any OpenAI-compatible server
qwen3:8b@http://a:8000/v1,http://b:8000/v1   one model on several servers
teacher                                  [models.teacher] in models.toml
my-model#2026-11@http://...              the tag separates versions that the server calls by one name
hf:out/policy, hf:Qwen/Qwen3-0.6B        a folder, or a model of the hub, run in this process
replay:replies.jsonl                     recorded replies
mymodel.py:answer                        a function in a file, or the name that a package registers for one
sim:refuse=0.05,leak=0.05                the procedural teacher with faults; sim:leak=0.05#2 draws other replies
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datagen.errors import InputError
from datagen.llm.models_file import MODELS_FILE, Access, FileModel, read_models_file
from datagen.plugins import find_plugin
from datagen.records.files import content_digest

OPENAI_URL = "https://api.openai.com/v1"
ADDRESS = re.compile(r"(.*?)@([a-z]+://.*)", re.IGNORECASE)
BARE_ADDRESS = re.compile(r"(.+)@(([^@/]+?)(?::(\d{1,5}))?(/[^@]*)?)")
"""NAME@HOST[:PORT][/PATH]: an address without http://, or a name with an @ of its own."""
SECRET = re.compile(r"//[^/]*@|\?.*")
"""The parts of a URL that can hold a secret: user and password, query."""

KEYS_HINT = "a key comes from the environment, such as OPENAI_API_KEY (docs/models.md)"


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed model spec."""

    identity: str
    """The model's part of the call key: name and tag, never URL or API key. For `sim` the spec and its version; for
    `hf:` and `replay:` the name and a digest of the folder or file."""
    name: str
    """The name that the server knows; the spec itself for `sim`, `hf:` and `replay:`."""
    urls: tuple[str, ...] = ()
    """The addresses that serve it; empty for a model that runs in this process."""
    note: str = ""
    """What was guessed about the spec, to be said before the run; empty if nothing was."""
    access: Access = Access()
    params: Mapping[str, Any] = field(default_factory=dict)
    """Request parameters of the model's own."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """The most requests in flight, and requests and tokens per minute, at each address, by the names in LIMITS of
    models_file; empty sets no bound."""
    price: Mapping[str, float] = field(default_factory=dict)
    """Dollars per million tokens, by kind: input, output, cached. Empty if it is not known."""
    alias: str = ""
    """The name that models.toml gives it; empty for a model that is not there."""
    embeds: bool = False
    """It is asked for vectors, and writes no text."""
    load: Callable[[], Any] | None = field(default=None, compare=False)
    """Returns the function that is the model, of a model that is one. InputError: it cannot be loaded."""

    @property
    def has_price(self) -> bool:
        """Whether its answers may cost something: what else runs here is free."""
        return bool(self.urls) or self.load is not None

    @property
    def place(self) -> str:
        """Where it is, behind its name, for messages."""
        return f"{self.name} at {self.urls[0]}" if self.urls else self.name


def parse_spec(text: str) -> Spec:
    """Parse a model spec. Nothing is sent.

    Args:
        text: NAME[#tag][@URL[,URL...]], a model of models.toml, hf:PATH, replay:FILE, FILE.py:NAME, a registered name,
            or sim[:options].

    Raises:
        InputError: The text is no spec, its URL holds a secret, or the folder or file that it names cannot be used.
    """
    if text == "sim" or text.startswith("sim:"):
        from datagen.llm.sim import VERSION

        return Spec(f"{text}/{VERSION}", text)
    if text.startswith("hf:"):
        from datagen.llm.local.hub import model_name, resolve_model
        from datagen.llm.local.weights import weights_digest

        folder = resolve_model(text)
        return Spec(f"hf:{model_name(folder)}/{weights_digest(folder)}", text)
    if text.startswith("replay:"):
        path = Path(text.removeprefix("replay:"))
        return Spec(f"replay:{path.name}/{content_digest(path)[:16]}", text)
    models = read_models_file().models
    if known := known_spec(text, models):
        return known
    refuse_paths(text)
    spec = server_spec(text)
    if models and "@" not in text:
        return replace(spec, note=f"{text} is not in {MODELS_FILE}: asking {spec.urls[0]} for it.")
    return spec


def known_spec(text: str, models: Mapping[str, FileModel]) -> Spec | None:
    """Return the spec of a name of models.toml or of a plug-in, with or without a tag behind it; None for others.

    Args:
        text: NAME[#tag].
        models: Those of models.toml.
    """
    plugin = None if text in models else find_plugin("model", text)
    name, _, tag = (text, "", "") if text in models or plugin else text.partition("#")
    if model := models.get(name):
        tagged = replace(model, tag="-".join(filter(None, (model.tag, tag))))
        return replace(file_spec(tagged, f"{MODELS_FILE}: [models.{name}]"), alias=name)
    if tag:
        plugin = find_plugin("model", name)
    if plugin:
        return Spec(f"{plugin.identity}#{tag}" if tag else plugin.identity, plugin.name, load=plugin.load)
    return None


def with_tag(text: str, tag: str) -> str:
    """Return the spec of the same model under one more tag, so that it is asked anew; `hf:` and `replay:` have none."""
    if text.startswith(("hf:", "replay:")):
        return text
    if text == "sim":
        return f"sim:#{tag}"
    match = None if text.startswith("sim:") else ADDRESS.fullmatch(with_scheme(text))
    name, address = (match[1], f"@{match[2]}") if match else (text, "")
    return f"{name}{'-' if '#' in name else '#'}{tag}{address}"


def server_spec(text: str) -> Spec:
    """Parse NAME[#tag][@URL[,URL...]].

    Raises:
        InputError: The text is something else, or a URL holds a secret.
    """
    match = ADDRESS.fullmatch(with_scheme(text))
    identity, addresses = match.groups() if match else (text, base_url())
    name = identity.partition("#")[0]
    refuse_secrets(f"model {identity!r}", addresses)
    urls = [addresses]
    if match:
        first, *others = addresses.split(",")
        urls = [first, *(with_scheme(f"{name}@{other.strip()}").removeprefix(f"{name}@") for other in others)]
    if not name or "://" in identity or not all(map(is_address, urls)):
        shown = SECRET.sub("//...", text)
        raise InputError(f"model {shown!r}: expected NAME[#tag][@URL], such as qwen3:8b@http://127.0.0.1:11434/v1")
    guessed = " and ".join(url for url in urls if match and url not in text)
    return Spec(identity, name, without_ends(urls), f"Taking {guessed} as the address of {name}." if guessed else "")


def file_spec(model: FileModel, place: str) -> Spec:
    """Return the spec of a model of models.toml.

    Args:
        model: As the file has it.
        place: Where it stands, for messages.

    Raises:
        InputError: An address is none, or holds a secret.
    """
    for url in model.url:
        refuse_secrets(place, url)
        if not is_address(url):
            raise InputError(f"{place} url: expected an address, such as http://127.0.0.1:8000/v1")
    urls = without_ends(model.url or [base_url()])
    identity = model.name.replace("#", "%23") + (f"#{model.tag}" if model.tag else "")
    return Spec(identity, model.name, urls, "", model.access, model.params, model.limits, model.price)


def base_url() -> str:
    """Return the address of a model that names none.

    Raises:
        InputError: OPENAI_BASE_URL is none.
    """
    url = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    refuse_secrets("OPENAI_BASE_URL", url)
    if not is_address(url):
        raise InputError("OPENAI_BASE_URL: expected an address, such as http://127.0.0.1:11434/v1")
    return url


def without_ends(urls: Sequence[str]) -> tuple[str, ...]:
    """Return each address once, without the slashes at its end."""
    return tuple(dict.fromkeys(url.rstrip("/") for url in urls))


def refuse_paths(text: str) -> None:
    """Raise InputError for a folder of a model or a file of rows: a bare name would be asked of a server."""
    # Not Path.is_file, which raises for a name that is too long to be a file's.
    if any(os.path.isfile(f"{text}/{name}") for name in ("config.json", "adapter_config.json")):
        raise InputError(f"model {text}: is a folder; name it as --model hf:{text}")
    if text.endswith(".py") and os.path.isfile(text):
        raise InputError(f"model {text}: is a file; name the function in it, as --model {text}:NAME")
    if text.endswith(".jsonl") and os.path.isfile(text):
        raise InputError(f"model {text}: is a file; recorded replies are named as --model replay:{text}")


def with_scheme(text: str) -> str:
    """Complete an address that lacks its http:// or https://; a name with an @ that is no address stays as it is.

    An address has a port, a path behind a host with a dot, or is an IP address or localhost. Other machines are asked
    over https, unless they have a port or an address of a private network.
    """
    match = BARE_ADDRESS.fullmatch(text)
    if match is None or "://" in text:
        return text
    name, address, host, port, path = match.groups()
    number = ip_number(host)
    is_near = host.lower() == "localhost" or (number is not None and (number.is_private or number.is_loopback))
    if not (is_near or number or port or ("." in host and path)):
        return text
    return f"{name}@{'http' if is_near or (port and port != '443') else 'https'}://{address}"


def ip_number(host: str) -> IPv4Address | IPv6Address | None:
    """Return a host as an IP address, or None if it is a name."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def refuse_secrets(place: str, url: str) -> None:
    """Raise InputError if a URL has a part that may hold a secret; the part is not shown."""
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise InputError(f"{place}: a URL must not hold a user or a password; {KEYS_HINT}")
    if "?" in url:
        raise InputError(
            f"{place}: a URL must not hold a query (from the ? on); {KEYS_HINT}, a parameter of the request from "
            f'--param NAME=VALUE, and a query such as api-version from {MODELS_FILE}: query = {{api-version = "..."}}'
        )


def is_address(url: str) -> bool:
    """Check that a URL names a server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:
        return False


def is_loopback(url: str) -> bool:
    """Check that a URL names this machine, by its address: 127.example.com does not."""
    host = urlsplit(url).hostname or ""
    number = ip_number(host)
    return host == "localhost" or (number is not None and number.is_loopback)


def without_proxy(url: str) -> dict[str, None]:
    """Return the `mounts` of an HTTP client for a URL: what stays on this machine does not go through a proxy."""
    parts = urlsplit(url)
    return {f"{parts.scheme}://{parts.netloc}": None} if is_loopback(url) else {}
