"""What passes between the layers: a Call goes down, a raw Reply comes up, and a Completion is read from it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from datagen.errors import UNPARSED, ParseError
from datagen.parse import split_thinking
from datagen.records.record import Messages


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at one request."""

    key: bytes
    """The digest of everything that decides the answer (`call_key`); the same for every attempt."""
    model: str
    """The identity of the model."""
    messages: Messages
    params: Mapping[str, Any]
    """Sampling parameters, by their names in the chat completions API."""
    sample: int
    attempt: int
    """From 1."""
    task: str
    """The name of the template that was rendered."""
    fields: Mapping[str, str]
    """The values in the template. Task and fields reach the procedural teacher; the key does not hold them."""


@dataclass(frozen=True)
class Reply:
    """A raw reply: the body of a chat completion, or the refusal of the request."""

    status: int
    """The HTTP status."""
    body: str
    from_earlier_run: bool = False
    """It was recorded before this run began."""

    @cached_property
    def parsed(self) -> Any:
        """The body as a JSON value, parsed once. Raises ValueError or RecursionError if it is none."""
        return json.loads(self.body)

    @cached_property
    def usage(self) -> dict[str, int | None]:
        """The tokens that the server counted, None where it does not say. A refusal costs none."""
        usage = self.parsed.get("usage") if self.status < 400 else None
        counts = usage if isinstance(usage, dict) else {}
        names = ("prompt_tokens", "completion_tokens")
        return {name: counts[name] if isinstance(counts.get(name), int) else None for name in names}

    @property
    def text(self) -> str | None:
        """What the model wrote, or the body of a refusal: for the row of a rejected or failed candidate."""
        if self.status >= 400:
            return self.body
        content = self.parsed["choices"][0]["message"].get("content")
        return content if isinstance(content, str) else None

    @property
    def is_chat_completion(self) -> bool:
        """Whether the body has the shape that `read_reply` relies on."""
        try:
            content = self.parsed["choices"][0]["message"].get("content")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return False
        return content is None or isinstance(content, str)


def refusal(status: int, message: str, **details: str | None) -> Reply:
    """Return the reply of a backend that cannot serve a request, in the form of an OpenAI-compatible error."""
    return Reply(status, json.dumps({"error": {"message": message, **details}}))


class Layer(Protocol):
    """Anything that answers a call."""

    async def send(self, call: Call) -> Reply:
        """Return the raw reply. May raise Stopped, Outage or CallFailed."""
        ...


@runtime_checkable
class ClosableLayer(Layer, Protocol):
    """An innermost layer that holds connections or a thread."""

    async def close(self) -> None: ...


class Transient(Exception):
    """A fault that says nothing about the request: worth sending again, not worth recording."""

    def __init__(self, reason: str, *, retry_after: float = 0.0, rate_limited: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""
        self.rate_limited = rate_limited
        """The server asked for fewer requests (429)."""


@dataclass(slots=True)
class Completion:
    """A good answer."""

    text: str
    """The answer without its reasoning."""
    reasoning: str
    """Empty if there is none."""
    finish_reason: str | None
    usage: dict[str, int | None]
    """`prompt_tokens` and `completion_tokens`, None where the server does not say."""
    logprobs: Any
    """As in the chat completions API, if they were requested."""
    model: str
    """The name in the reply; `Roles.chat` puts the identity of the model here."""
    value: Any = None
    """What `parse` returned for the text."""


class BadAnswer(Exception):
    """A reply that is paid for and not usable; another attempt may be better."""

    def __init__(self, reason: str, detail: str = "", *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail
        self.final = final
        """The server refused the request itself, so another attempt at once is pointless."""


def read_reply(reply: Reply, parse: Callable[[str], Any] | None, *, cut_ok: bool = False) -> Completion:
    """Read a raw reply strictly.

    Args:
        reply: A refusal, or a body with the shape of a chat completion.
        parse: Turns the text into a value; ParseError makes the answer a bad one.
        cut_ok: Accept an answer that reached the length limit.

    Raises:
        BadAnswer: The answer was refused, cut, filtered, empty or no valid text, or `parse` does not accept it.
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
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadAnswer("broken answer", "half a character (a lone surrogate)") from error
    try:
        value = parse(text) if parse else None
    except ParseError as error:
        raise BadAnswer(UNPARSED, str(error)) from error
    reasoning = message.get("reasoning") or message.get("reasoning_content") or thinking
    model = str(reply.parsed.get("model") or "")
    return Completion(text, reasoning, finish, reply.usage, choice.get("logprobs"), model, value)


def error_message(body: str) -> str:
    """Return the message in the body of an error, in one line of at most 200 characters."""
    try:
        value = json.loads(body)
        error = value.get("error", value)
        text = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = None
    return " ".join(str(text or body).split())[:200]
