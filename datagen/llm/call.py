"""What passes between the layers: a Call goes in, a raw Reply comes out, a Completion is read from it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol

from datagen.errors import ParseError
from datagen.parse import split_thinking
from datagen.records.record import Messages, canonical

KEY_VERSION = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at one request."""

    key: bytes
    """What decides the answer; the same for every attempt."""
    model: str
    messages: Messages
    params: Mapping[str, Any]
    sample: int
    attempt: int
    task: str
    fields: Mapping[str, str]
    """Task and fields reach the procedural teacher; they are not part of the key."""


@dataclass(frozen=True)
class Reply:
    """A raw answer, good or not."""

    status: int
    body: str
    old: bool = False
    """Recorded before this run began."""

    @cached_property
    def parsed(self) -> Any:
        """The body as a JSON value, parsed once for all who ask; ValueError or RecursionError if it is none."""
        return json.loads(self.body)


def refusal(status: int, message: str, **details: str | None) -> Reply:
    """Return the reply of a backend that cannot serve a request, in the form of an OpenAI-compatible error."""
    return Reply(status, json.dumps({"error": {"message": message, **details}}))


class Layer(Protocol):
    """Anything that answers a call. May raise Stopped or Outage."""

    async def send(self, call: Call) -> Reply: ...


class Backend(Layer, Protocol):
    """The innermost layer."""

    async def close(self) -> None: ...


class Transient(Exception):
    """A fault that says nothing about the request: worth sending again, not worth recording."""

    def __init__(self, reason: str, *, retry_after: float = 0.0, limited: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""
        self.limited = limited
        """The server asked for fewer requests (429)."""


@dataclass(slots=True)
class Completion:
    """A good answer."""

    text: str
    reasoning: str
    finish_reason: str | None
    usage: dict[str, int | None]
    logprobs: Any
    model: str
    value: Any = None
    """What `parse` made of the text."""


class BadAnswer(Exception):
    """A reply that is paid for and not usable; another attempt may be better."""

    def __init__(self, reason: str, detail: str = "", *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail
        self.final = final
        """The server refused the request itself: asking again at once is pointless."""


def call_key(model: str, messages: Messages, params: Mapping[str, Any], sample: int) -> bytes:
    """Name a request by everything that decides its answer: 32 bytes."""
    return sha256(canonical([KEY_VERSION, model, messages, params, sample])).digest()


def read_reply(reply: Reply, parse: Callable[[str], Any] | None, *, cut_ok: bool = False) -> Completion:
    """Read a raw reply; raise BadAnswer unless it is whole, not empty, not cut, text, and `parse` accepts it.

    `cut_ok`: a reply that met the length limit will do, for a caller who can use its beginning.
    """
    if reply.status >= 400:
        raise BadAnswer(f"refused (HTTP {reply.status})", error_message(reply.body), final=True)
    choice = reply.parsed["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    thinking, text = split_thinking(message.get("content") or "")
    if (finish == "length" and not cut_ok) or text.lstrip().startswith("<think>"):
        raise BadAnswer("cut answer", "raise --max-tokens")
    if finish == "content_filter":
        raise BadAnswer("filtered answer")
    if not text.strip():
        raise BadAnswer("empty answer")
    if has_surrogate(text):
        raise BadAnswer("broken answer", "half a character (a lone surrogate)")
    try:
        value = parse(text) if parse else None
    except ParseError as error:
        raise BadAnswer("unparsed answer", str(error)) from error
    reasoning = message.get("reasoning") or message.get("reasoning_content") or thinking
    usage, model = read_usage(reply.parsed), str(reply.parsed.get("model") or "")
    return Completion(text, reasoning, finish, usage, choice.get("logprobs"), model, value)


def is_chat_completion(reply: Reply) -> bool:
    """Say whether a body has the shape that read_reply relies on."""
    try:
        choice = reply.parsed["choices"][0]
        content = choice["message"].get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return False
    return content is None or isinstance(content, str)


def read_usage(body: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the tokens that a server counted; None where it does not say."""
    usage = body.get("usage")
    told = usage if isinstance(usage, dict) else {}
    names = ("prompt_tokens", "completion_tokens")
    return {name: told[name] if isinstance(told.get(name), int) else None for name in names}


def reply_usage(reply: Reply) -> tuple[int, int]:
    """Return (prompt, completion) tokens of any reply, good or not; a refusal costs none."""
    if reply.status >= 400:
        return 0, 0
    usage = read_usage(reply.parsed)
    return usage["prompt_tokens"] or 0, usage["completion_tokens"] or 0


def reply_text(reply: Reply) -> str | None:
    """Return what the model wrote, for the record of a rejected or failed candidate."""
    if reply.status >= 400:
        return reply.body
    content = reply.parsed["choices"][0]["message"].get("content")
    return content if isinstance(content, str) else None


def error_message(body: str) -> str:
    """Return what the server says went wrong, in one line."""
    try:
        told = json.loads(body)
        error = told.get("error", told)
        text = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = None
    return " ".join(str(text or body).split())[:200]


def has_surrogate(text: str) -> bool:
    """Say whether text cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
