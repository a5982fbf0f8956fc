"""A model spec names a model: NAME[#tag][@URL], hf:PATH, replay:FILE, or sim[:options] for the procedural teacher.

gpt-4o-mini                              the OpenAI API, or the server in OPENAI_BASE_URL
qwen3:8b@http://127.0.0.1:11434/v1       any OpenAI-compatible server
my-model#2026-11@http://...              the tag separates versions that the server calls by one name
hf:out/policy                            the folder of a trained model, run in this process
replay:replies.jsonl                     recorded replies
sim:refuse=0.05,leak=0.05                the procedural teacher with faults
"""

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from datagen.errors import InputError
from datagen.records.files import content_digest

OPENAI_URL = "https://api.openai.com/v1"
ADDRESS = re.compile(r"(.*?)@([a-z]+://.*)", re.IGNORECASE)
SECRET = re.compile(r"//[^/]*@|\?.*")
"""The parts of a URL that can hold a secret: user and password, query."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed model spec."""

    identity: str
    """The model's part of the call key: name and tag, never URL or API key. For `sim` the spec and its version; for
    `hf:` and `replay:` the name and a digest of the folder or file."""
    name: str
    """The name that the server knows; the spec itself for `sim`, `hf:` and `replay:`."""
    url: str | None
    """None for a model that runs in this process."""


def parse_spec(text: str) -> Spec:
    """Parse a model spec. Nothing is sent.

    Args:
        text: NAME[#tag][@URL], hf:PATH, replay:FILE or sim[:options].

    Raises:
        InputError: The text is no spec, its URL holds a secret, or the folder or file that it names cannot be used.
    """
    if text == "sim" or text.startswith("sim:"):
        from datagen.llm.sim import VERSION

        return Spec(f"{text}/{VERSION}", text, None)
    if text.startswith("hf:"):
        from datagen.llm.local.weights import model_folder, weights_digest

        folder = model_folder(text)
        return Spec(f"hf:{folder.resolve().name}/{weights_digest(folder)}", text, None)
    if text.startswith("replay:"):
        path = Path(text.removeprefix("replay:"))
        return Spec(f"replay:{path.name}/{content_digest(path)[:16]}", text, None)
    match = ADDRESS.fullmatch(text)
    identity, url = match.groups() if match else (text, os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
    name = identity.partition("#")[0]
    if SECRET.search(url):
        raise InputError(
            f"model {identity!r}: its URL must not hold a user, a password or a query; set OPENAI_API_KEY instead"
        )
    if not name or "://" in identity or not is_address(url):
        spec = SECRET.sub("//...", text)
        raise InputError(f"model {spec!r}: expected NAME[#tag][@URL], such as qwen3:8b@http://127.0.0.1:11434/v1")
    return Spec(identity, name, url.rstrip("/"))


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
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def api_key(url: str) -> str:
    """Return the API key for a URL, from the environment. Over plain http it is sent to this machine only."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if key and (urlsplit(url).scheme == "https" or is_loopback(url)):
        return key
    if url == OPENAI_URL:
        raise InputError(
            "OPENAI_API_KEY is not set. Set it, name a server (--model NAME@http://127.0.0.1:8000/v1), "
            "or try the tool without a model: --model sim"
        )
    return "none"
