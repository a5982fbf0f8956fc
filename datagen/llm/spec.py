"""One spec names a model: NAME[#tag][@URL], hf:PATH, or sim[:options] for the procedural teacher.

gpt-4o-mini                              the OpenAI API, or OPENAI_BASE_URL
qwen3:8b@http://127.0.0.1:11434/v1       any OpenAI-compatible server
my-model#2026-11@http://...              the tag tells apart what the server calls by one name
hf:out/policy                            the folder of a trained model, run in this process
sim:refuse=0.05,leak=0.05                the procedural teacher with faults
"""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from datagen.errors import InputError

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Spec:
    """A model spec, parsed."""

    identity: str
    """What the call key holds: name and tag, never URL or key; the whole spec and its version for `sim`; a digest of
    what is in the folder for `hf:`."""
    name: str
    url: str | None
    """None for `sim` and `hf:`."""


def parse_spec(text: str) -> Spec:
    """Parse a model spec; raise InputError with the way out."""
    if text == "sim" or text.startswith("sim:"):
        from datagen.llm.sim import VERSION

        return Spec(f"{text}/{VERSION}", text, None)
    if text.startswith("hf:"):
        from datagen.llm.weights import model_folder, weights_digest

        folder = model_folder(text)
        return Spec(f"hf:{folder.resolve().name}/{weights_digest(folder)}", text, None)
    name, at, url = text.rpartition("@") if "://" in text else (text, "", "")
    url = url if at else os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    plain, _, _ = name.partition("#")
    if not plain or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InputError(f"model {text!r}: expected NAME[#tag][@URL], such as qwen3:8b@http://127.0.0.1:11434/v1")
    return Spec(name, plain, url.rstrip("/"))


def is_loopback(url: str) -> bool:
    """Say whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def api_key(url: str) -> str:
    """Return the key for a URL, from the environment alone; over plain http it goes to this machine only."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if key and (url.startswith("https:") or is_loopback(url)):
        return key
    if url == OPENAI_URL:
        raise InputError(
            "OPENAI_API_KEY is not set. Set it, name a server (--model NAME@http://127.0.0.1:8000/v1), "
            "or try the tool without one: --model sim"
        )
    return "none"
