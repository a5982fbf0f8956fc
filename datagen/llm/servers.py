"""What servers say of themselves, for `datagen doctor`: whether they answer and accept the key, and their models.

Only lists are read (GET /models, and what two kinds of server offer beside it): nothing is generated, so nothing is
paid for. Local servers are looked for on this machine alone, at the ports that they usually have, and get no key. What
comes back is bounded in size and time, no redirect is followed, and its text is that of others.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from socket import gaierror
from time import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2

from datagen.errors import InputError, causes
from datagen.llm.call import error_message
from datagen.llm.facts import number_from
from datagen.llm.keys import BEARER, api_key, extra_headers, host, key_header, key_hint, key_variables
from datagen.llm.models_file import Access
from datagen.llm.names import listed_as, nearest_name
from datagen.llm.spec import Spec, is_loopback, without_proxy

LOCAL_SERVERS = {
    11434: "Ollama",
    1234: "LM Studio",
    8000: "vLLM or transformers serve",
    8080: "llama.cpp or TGI",
    30000: "SGLang",
    4000: "LiteLLM",
    3000: "TGI",
    5000: "text-generation-webui",
    1337: "Jan",
}
"""The usual ports of local servers."""
OWNERS = {
    "library": "Ollama",
    "vllm": "vLLM",
    "llamacpp": "llama.cpp",
    "sglang": "SGLang",
    "organization_owner": "LM Studio",
}
"""What servers write as the owner of their models."""
OWN_HEADERS = {"api.anthropic.com": ("x-api-key", {"anthropic-version": "2023-06-01"})}
"""Hosts whose list of models takes the key in another header than their chat completions, and what goes with it."""
CONTEXT_KEYS = (
    "max_model_len", "loaded_context_length", "context_length", "context_window", "max_context_length",
    "max_input_tokens", "n_ctx", "n_ctx_train", "inputTokenLimit",
)  # fmt: skip
"""Under which a list of models has the length of a model's context; the first that is there counts."""
LOCAL_SECONDS, CONNECT_SECONDS, SECONDS = 0.7, 2.0, 5.0
"""For a local server that may not be there; to connect; for one page of a server that was named."""
MOST_BYTES = 8 * 1024**2
"""Of a page. A list of a thousand models has one."""
MOST_MODELS, MOST_NAME = 5_000, 200
"""Models of a list, and characters of a name."""
MOST_CONTEXT = 10**9


class Page(NamedTuple):
    """What came back for one request."""

    status: int
    """0: nothing did."""
    value: Any = None
    """The body as a JSON value; None if it is none."""
    words: str = ""
    """What the server says of an error, or why nothing came."""
    skew: float | None = None
    """Seconds by which the clock here is ahead of the server's; None if it says no time."""


class Listed(NamedTuple):
    """A model in the list of a server."""

    name: str
    context: int | None = None
    """Tokens; None if the server does not say."""
    owner: str = ""


@dataclass
class Local:
    """A server found on this machine."""

    url: str
    kind: str
    models: list[str]
    needs_key: bool = False


@dataclass
class Look:
    """What is known of a model at an address."""

    model: str
    """As it was named."""
    url: str = ""
    """Empty for a model that needs no server."""
    identity: str = ""
    """Name and tag."""
    answers: bool | None = None
    kind: str = ""
    key: str = ""
    """accepted, refused, missing, none needed, or not checked."""
    listed: bool | None = None
    """None: there is no list, or any name is good."""
    nearest: str | None = None
    others: int = 0
    """Models in the list."""
    context: int | None = None
    skew: float | None = None
    price: dict[str, Any] | None = None
    """Dollars per million tokens, and where that comes from; None if it is not known."""
    requests: int = 0
    """Sent by --try."""
    cost: float | None = None
    """Dollars that these cost; None if nothing was sent, or no price is known."""
    tried: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Problems, unless the model answers all the same."""
    problems: list[str] = field(default_factory=list)


def open_client(url: str, seconds: float) -> httpx2.AsyncClient:
    """Open a client for one address. Certificates are read only where they are needed."""
    return httpx2.AsyncClient(
        verify=url.startswith("https"),
        mounts=without_proxy(url),
        follow_redirects=False,
        timeout=httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
    )


async def fetch(client: httpx2.AsyncClient, url: str, seconds: float, **request: Any) -> Page:
    """Fetch one page; whatever goes wrong is said in its words.

    Args:
        client: Of the address.
        url: The page.
        seconds: For all of it.
        request: `headers`, `params`, and `json` for what is sent, by POST then.
    """
    method = "POST" if "json" in request else "GET"
    body = bytearray()
    try:
        async with asyncio.timeout(seconds), client.stream(method, url, **request) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    return Page(0, words=f"its answer is longer than {MOST_BYTES:,} bytes")
    except TimeoutError:
        return Page(0, words=f"no answer within {seconds:g} s")
    except Exception as error:  # of the client and the libraries below it, as in endpoint.py
        return Page(0, words=fault_words(error))
    text = body.decode(errors="replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    words = "" if response.is_success else error_message(text).rstrip(".")
    return Page(response.status_code, value, words, clock_skew(response.headers.get("date", "")))


def fault_words(error: Exception) -> str:
    """Say why there is no connection, from the operating system's error if there is one."""
    for cause in causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(cause, gaierror):
            return f"the host is not known ({cause.strerror})"
    return f"no connection ({type(error).__name__}: {' '.join(str(error).split())[:MOST_NAME]})"


def clock_skew(date: str) -> float | None:
    """Return how many seconds the clock here is ahead of the time in a header; None if that is no time."""
    try:
        return round(time() - parsedate_to_datetime(date[:MOST_NAME]).timestamp(), 1)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


# Lists of models


def read_list(value: Any) -> list[Listed] | None:
    """Read a list of models, as the OpenAI API has it or bare; None if it is none."""
    items = value.get("data", value.get("models")) if isinstance(value, dict) else value
    if not isinstance(items, list):
        return None
    return [one for one in map(read_model, items[:MOST_MODELS]) if one is not None]


def read_model(item: Any) -> Listed | None:
    """Read one model of a list; None if it has no name."""
    if not isinstance(item, dict):
        return None
    name = next((item[key] for key in ("id", "name", "model") if isinstance(item.get(key), str)), "")
    owner = item.get("owned_by")
    places = [part for part in (item, item.get("meta"), item.get("top_provider")) if isinstance(part, dict)]
    context = next(filter(None, (tokens(place.get(key)) for place in places for key in CONTEXT_KEYS)), None)
    return Listed(name[:MOST_NAME], context, owner[:MOST_NAME] if isinstance(owner, str) else "") if name else None


def tokens(value: Any) -> int | None:
    """Return a number of tokens from a server; None if it is none."""
    number = number_from(value, 1, MOST_CONTEXT)
    return int(number) if number else None


async def local_servers() -> list[Local]:
    """Look for servers on this machine, at all usual ports at once. They get no key."""
    found_here = await asyncio.gather(*(local_server(port) for port in LOCAL_SERVERS))
    return [server for server in found_here if server]


async def local_server(port: int) -> Local | None:
    """Return the server at a port of this machine; None if nothing there lists models."""
    url = f"http://127.0.0.1:{port}/v1"
    async with open_client(url, LOCAL_SECONDS) as client:
        page = await fetch(client, f"{url}/models", LOCAL_SECONDS)
    if page.status in (401, 403):
        return Local(url, LOCAL_SERVERS[port], [], needs_key=True)
    models = read_list(page.value) if page.status == 200 else None
    if models is None:
        return None
    return Local(url, kind_of(models) or LOCAL_SERVERS[port], [model.name for model in models])


def kind_of(models: list[Listed]) -> str:
    """Return which server has written a list; empty if that is not known."""
    return next((OWNERS[model.owner] for model in models if model.owner in OWNERS), "")


# A model that was named


async def look_at(spec: Spec, model: str, url: str) -> Look:
    """Find out what a server says of a model, without asking for an answer."""
    look = Look(model, url, answers=False)
    try:
        headers = request_headers(url, spec.access)
    except InputError as error:
        look.key = "missing"
        look.problems.append(str(error))
        return look
    async with open_client(url, SECONDS) as client:
        page = await fetch(client, f"{url}/models", SECONDS, headers=headers, params=spec.access.query)
        look.skew = page.skew
        secret = api_key(url, spec.access.key)
        words = page.words.replace(secret, "***") if secret != "none" else page.words
        if not page.status:
            look.problems.append(f"{words}. {unreachable_hint(url)}")
            return look
        look.answers = True
        if page.status in (401, 403):
            look.key = "refused" if secret != "none" else "missing"
            hint = (
                key_hint(url, spec.access.key) or f"The key in {sent_variable(url, spec.access)} is refused: renew it"
            )
            look.problems.append(f"HTTP {page.status}: {words}. {hint}")
            return look
        models = read_list(page.value) if page.status == 200 else None
        if models is None:
            look.key = "not checked: there is no list of models" if secret != "none" else "none sent"
            await explain_no_list(look, client, page.status, words)
            return look
        look.key = await key_state(client, url, spec.access, has_key=secret != "none")
        await read_listed(look, client, spec.name, models, headers)
    return look


def request_headers(url: str, access: Access) -> dict[str, str]:
    """Return the headers of a request for the list of models."""
    key = api_key(url, access.key)
    header, more = OWN_HEADERS.get(host(url), (key_header(url), {}))
    value = f"Bearer {key}" if header == BEARER else key
    return {**({header: value} if key != "none" else {}), **more, **extra_headers(url, access.headers)}


def sent_variable(url: str, access: Access) -> str:
    """Return the variable whose key goes to a URL."""
    return next((name for name in key_variables(url, access.key) if os.environ.get(name)), "the environment")


async def key_state(client: httpx2.AsyncClient, url: str, access: Access, *, has_key: bool) -> str:
    """Say whether the server has accepted the key: a list that anybody may read says nothing of it."""
    if not has_key:
        return "none needed"
    _, more = OWN_HEADERS.get(host(url), ("", {}))
    page = await fetch(client, f"{url}/models", SECONDS, headers=more, params=access.query)
    return "accepted" if page.status in (401, 403) else "not checked: anybody may read the list of models"


async def explain_no_list(look: Look, client: httpx2.AsyncClient, status: int, words: str) -> None:
    """Say what an answer means that holds no list of models: the address lacks its /v1, or the server has none."""
    if not urlsplit(look.url).path.strip("/"):
        page = await fetch(client, f"{look.url}/v1/models", SECONDS)
        if page.status in (401, 403) or (page.status == 200 and read_list(page.value) is not None):
            look.problems.append(f"the address ends in /v1: {look.url}/v1")
            return
    behind = f": {words}" if words else ""
    if status >= 500:
        look.problems.append(f"HTTP {status}{behind}. The server is there and does not work: look at its log")
    elif status == 200 or 300 <= status < 400:
        look.doubts.append(f"what answers there (HTTP {status}) has no list of models: is the address right?")
    else:
        look.notes.append(f"it has no list of models (HTTP {status}{behind}); --try sends requests")


async def read_listed(
    look: Look, client: httpx2.AsyncClient, name: str, models: list[Listed], headers: Mapping[str, str]
) -> None:
    """Find a model in the list of its server, and the length of its context."""
    names = [model.name for model in models]
    look.kind, look.others = kind_of(models), len(models)
    listed = listed_as(name, names)
    if look.kind == "llama.cpp":
        listed = listed or names[0]
        if name not in names:
            look.notes.append(f"llama.cpp takes any name; its model is {names[0]}")
    look.listed = listed is not None
    if listed is None:
        look.nearest = nearest_name(name, names)
        return
    look.context = next((model.context for model in models if model.name == listed), None)
    root = look.url.removesuffix("/v1")
    if look.kind == "llama.cpp":
        page = await fetch(client, f"{root}/props", SECONDS, headers=headers)
        look.context = tokens(value_at(page.value, "default_generation_settings", "n_ctx")) or look.context
    if look.kind == "Ollama":
        await read_ollama(look, client, root, listed)


async def read_ollama(look: Look, client: httpx2.AsyncClient, root: str, name: str) -> None:
    """Read the context of a model of Ollama: that of the loaded model, else what it can have at most."""
    page = await fetch(client, f"{root}/api/ps", SECONDS)
    loaded = value_at(page.value, "models")
    for model in loaded if isinstance(loaded, list) else []:
        if value_at(model, "name") in (name, f"{name}:latest") and (
            context := tokens(value_at(model, "context_length"))
        ):
            look.context = context
            return
    page = await fetch(client, f"{root}/api/show", SECONDS, json={"model": name})
    about = value_at(page.value, "model_info")
    lengths = (v for k, v in about.items() if str(k).endswith(".context_length")) if isinstance(about, dict) else ()
    if most := next(filter(None, map(tokens, lengths)), None):
        look.notes.append(
            f"the model can have a context of {most:,} tokens; Ollama takes less, and cuts longer prompts, unless "
            "OLLAMA_CONTEXT_LENGTH is set where it runs"
        )


def value_at(value: Any, *keys: str) -> Any:
    """Return what lies under keys of objects in each other; None if it does not."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def unreachable_hint(url: str) -> str:
    """Return what to do where nothing answers."""
    if is_loopback(url):
        return "Start the server, or correct the address"
    return "Check the address and the network; proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
