"""One spec names a model: NAME[#tag][@URL], hf:PATH, replay:FILE, or sim[:options] for the procedural teacher.

gpt-4o-mini                              the OpenAI API, or OPENAI_BASE_URL
qwen3:8b@http://127.0.0.1:11434/v1       any OpenAI-compatible server
my-model#2026-11@http://...              the tag tells apart what the server calls by one name
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
HIDDEN = re.compile(r"//[^/]*@|\?.*")
"""Where a URL can hold a secret: user and password, query."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A model spec, parsed."""

    identity: str
    """What the call key holds: name and tag, never URL or key; the whole spec and its version for `sim`; a digest of
    what is in the folder or file for `hf:` and `replay:`."""
    name: str
    url: str | None
    """None for what answers in this process."""


def parse_spec(text: str) -> Spec:
    """Parse a model spec; raise InputError with the way out."""
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
    name, url = match.groups() if match else (text, default_url())
    plain, _, _ = name.partition("#")
    if HIDDEN.search(url):
        raise InputError(f"model {name!r}: no user, password or query belongs in its URL; the key is OPENAI_API_KEY")
    if not plain or "://" in name or not is_address(url):
        shown = HIDDEN.sub("//...", text)
        raise InputError(f"model {shown!r}: expected NAME[#tag][@URL], such as qwen3:8b@http://127.0.0.1:11434/v1")
    return Spec(name, plain, url.rstrip("/"))


def default_url() -> str:
    """Return where a model without a URL is asked."""
    return os.environ.get("OPENAI_BASE_URL") or OPENAI_URL


def is_address(url: str) -> bool:
    """Say whether a URL names a server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:
        return False


def is_loopback(url: str) -> bool:
    """Say whether a URL names this machine, by address: 127.example.com does not."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def api_key(url: str) -> str:
    """Return the key for a URL, from the environment alone; over plain http it goes to this machine only."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if key and (urlsplit(url).scheme == "https" or is_loopback(url)):
        return key
    if url == OPENAI_URL:
        raise InputError(
            "OPENAI_API_KEY is not set. Set it, name a server (--model NAME@http://127.0.0.1:8000/v1), "
            "or try the tool without one: --model sim"
        )
    return "none"
