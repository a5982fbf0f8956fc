"""What passes between the layers: a Call goes down, a raw Reply comes up, and a Completion is read from it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

from datagen.errors import CUT_ANSWER, PARSER_ERROR, UNPARSED, Outage, ParseError
from datagen.llm.allowances import Allowance
from datagen.llm.dialects import (
    CUT,
    FILTERED,
    NO_TOKENS,
    WHOLE,
    Tokens,
    content_of,
    is_content,
    read_message,
    read_tokens,
)
from datagen.llm.facts import Learner
from datagen.records.record import Messages, Row
from datagen.schemas import Schema

EMBEDDING = "embedding"
"""The task of a call that asks for a vector."""
HIGHEST_LOGPROB = 0.01
"""Servers round: a little above 0 is a probability of 1."""
MOST_ERROR_CHARACTERS = 10_000
"""Of the body of an error in which its message is looked for."""
MOST_WORDS = 400
"""Characters of that message."""
MOST_FINISH = 40
"""Characters of a finish reason that stand in a row."""
MOST_DETAIL = 200
"""Characters of what an exception says that stand in a row."""


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
    schema: Schema | None = None
    """The form that the method asks for, in the prompt too, where `response_format` among the parameters is that of
    the schema: a server that does not take it gets a weaker one, or none."""
    is_embedding: bool = False
    """It asks for the vector of its only message instead of an answer."""

    @property
    def content(self) -> Row:
        """What the body of its request asks, beside the model and the parameters."""
        return {"input": self.messages[-1]["content"]} if self.is_embedding else {"messages": self.messages}


@dataclass(frozen=True)
class Reply:
    """A raw reply: the body of a chat completion, that of a list of embeddings, or the refusal of the request."""

    status: int
    """The HTTP status."""
    body: str
    from_earlier_run: bool = False
    """It was recorded before this run began."""
    is_batched: bool = False
    """It came with a batch, at the price of one."""
    allowances: tuple[Allowance, ...] = ()
    """What the server lets through, by the headers of the response."""

    @cached_property
    def parsed(self) -> Any:
        """The body as a JSON value, parsed once. Raises ValueError or RecursionError if it is none."""
        return json.loads(self.body)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens that the server counted. A refusal costs none."""
        if self.status >= 400:
            return NO_TOKENS
        tokens = read_tokens(self.parsed.get("usage"))
        return tokens._replace(completion=tokens.completion or 0) if self.is_embedding else tokens

    @property
    def usage(self) -> dict[str, int | None]:
        """The tokens that the server counted as a row has them, None where it says nothing that can be true."""
        known = self.tokens if self.status < 400 else Tokens(None, None)
        return {"prompt_tokens": known.prompt, "completion_tokens": known.completion}

    @property
    def text(self) -> str | None:
        """What the model wrote, or the body of a refusal: for the row of a rejected or failed candidate."""
        if self.status >= 400:
            return self.body
        content = self.parsed["choices"][0]["message"].get("content")
        return None if content is None else content_of(content)

    @property
    def is_whole(self) -> bool:
        """Whether it can be recorded and read: a chat completion, a vector, or a refusal."""
        return self.status >= 400 or (200 <= self.status < 300 and (self.is_chat_completion or self.is_embedding))

    @property
    def is_chat_completion(self) -> bool:
        """Whether the body has the shape that `read_reply` relies on."""
        try:
            content = self.parsed["choices"][0]["message"].get("content")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return False
        return is_content(content)

    @property
    def is_embedding(self) -> bool:
        """Whether the body has the shape that `read_vector` relies on."""
        try:
            vectors = self.parsed["data"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return isinstance(vectors, list) and bool(vectors) and all(map(is_embedding_entry, vectors))


def is_embedding_entry(value: object) -> bool:
    """Check that a part of a list of embeddings has a vector."""
    return isinstance(value, dict) and "embedding" in value


def refusal(status: int, message: str, **details: str | None) -> Reply:
    """Return the reply of a backend that cannot serve a request, in the form of an OpenAI-compatible error."""
    return Reply(status, json.dumps({"error": {"message": message, **details}}))


class Layer(Protocol):
    """Anything that answers a call."""

    async def send(self, call: Call) -> Reply:
        """Return the raw reply. May raise Stopped, Queued, Outage or CallFailed."""
        ...


@runtime_checkable
class ClosableLayer(Layer, Protocol):
    """An innermost layer that holds connections or a thread."""

    async def close(self) -> None: ...


@runtime_checkable
class LearningLayer(Layer, Protocol):
    """An innermost layer that learns what its server takes."""

    learners: Mapping[str, Learner]
    """By what they learn about; the name is empty for the parameters."""


@runtime_checkable
class GeneratingLayer(Layer, Protocol):
    """An innermost layer that generates the tokens itself."""

    unanswered_tokens: int
    """Tokens generated so far for the calls that have no answer yet."""


class Transient(Exception):
    """A fault that says nothing about the request: worth sending again, not worth recording."""

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float = 0.0,
        rate_limited: bool = False,
        unreachable: bool = False,
        timed_out: bool = False,
        is_paid: bool = False,
        allowances: tuple[Allowance, ...] = (),
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""
        self.rate_limited = rate_limited
        """The server is there and takes no more requests for now (429, 503, 529)."""
        self.timed_out = timed_out
        """There was no whole answer in time."""
        self.unreachable = unreachable
        """There was no connection: the request did not leave."""
        self.is_paid = is_paid
        """The server said that the answer follows (status 200), and none could be read."""
        self.allowances = allowances
        """What the server lets through, by the headers of the response."""


class Adapted(Exception):
    """The model refused a parameter of the request: it is to be sent again at once, without it."""


class Doubtful(Exception):
    """A refusal that is either that of this request or that of all (403, 404): another request tells."""

    def __init__(self, reply: "Reply", outage: Outage) -> None:
        super().__init__(str(outage))
        self.reply = reply
        """If it is that of this request."""
        self.outage = outage
        """If it is that of all."""


class TokenLogprobs(NamedTuple):
    """A token of an answer, and those that could have stood in its place."""

    token: str
    alternatives: list[tuple[str, float]]
    """Each with its log-probability."""


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
    logprobs: list[TokenLogprobs] | None
    """Of each token of the answer; None if they were not requested, or are not in the form of the API."""
    model: str
    """The name in the reply; `Roles.chat` puts the identity of the model here."""
    value: Any = None
    """What `parse` returned for the text."""
    tool_calls: tuple[Row, ...] = ()
    """The functions that the model calls, in the form of the OpenAI API; the text may be empty then."""


class BadAnswer(Exception):
    """A reply that is paid for and not usable; another attempt may be better."""

    def __init__(self, reason: str, detail: str = "", *, final: bool = False, settled: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail
        self.final = final
        """The server refused the request itself, so another attempt at once is pointless."""
        self.settled = settled
        """It will be the same in a later run."""


def read_reply(
    reply: Reply, parse: Callable[[str], Any] | None, *, cut_ok: bool = False, calls_ok: bool = False
) -> Completion:
    """Read a raw reply strictly.

    Args:
        reply: A refusal, or a body with the shape of a chat completion.
        parse: Turns the text into a value; ParseError makes the answer a bad one.
        cut_ok: Accept an answer that reached the length limit.
        calls_ok: Accept an answer without text that calls tools.

    Raises:
        BadAnswer: The answer was refused, cut, filtered, empty or no valid text, or `parse` does not accept it.
            Whatever else is raised while it is read is a fault of ours, and no reason to end the run: PARSER_ERROR.
    """
    try:
        return _read(reply, parse, cut_ok=cut_ok, calls_ok=calls_ok)
    except BadAnswer:
        raise
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_DETAIL]
        raise BadAnswer(PARSER_ERROR, problem) from error


def _read(reply: Reply, parse: Callable[[str], Any] | None, *, cut_ok: bool, calls_ok: bool) -> Completion:
    if reply.status >= 400:
        raise BadAnswer(f"refused (HTTP {reply.status})", error_message(reply.body), final=True)
    choice = reply.parsed["choices"][0]
    spoken, finish = read_message(choice["message"]), text_or_none(choice.get("finish_reason"))
    text, calls = spoken.text, spoken.tool_calls if calls_ok else ()
    ending = (finish or "").strip().lower()
    if (ending in CUT and not cut_ok) or spoken.is_cut:
        raise BadAnswer(CUT_ANSWER, "raise --max-tokens", settled=True)
    if ending in FILTERED or (spoken.refusal and not text.strip()):
        raise BadAnswer("filtered answer", spoken.refusal[:MOST_DETAIL])
    if ending not in WHOLE | CUT:
        raise BadAnswer(f"unknown finish reason: {ending[:MOST_FINISH]}")
    if not text.strip() and not calls:
        raise BadAnswer("empty answer")
    try:
        f"{text}{spoken.reasoning}{json.dumps(calls, ensure_ascii=False) if calls else ''}".encode()
    except UnicodeEncodeError as error:
        raise BadAnswer("broken answer", "half a character (a lone surrogate)") from error
    try:
        value = parse(text) if parse else None
    except ParseError as error:
        raise BadAnswer(UNPARSED, str(error)) from error
    model = text_or_none(reply.parsed.get("model")) or ""
    return Completion(
        text, spoken.reasoning, finish, reply.usage, read_logprobs(choice.get("logprobs")), model, value, calls
    )


def ends_at_limit(reply: Reply) -> bool:
    """Check that an answer was cut at a limit of its length."""
    return str(reply.parsed["choices"][0].get("finish_reason")).strip().lower() in CUT


def text_or_none(value: object) -> str | None:
    """Return a field of a reply that should be text, or None if it is something else."""
    return value if isinstance(value, str) else None


def read_logprobs(value: Any) -> list[TokenLogprobs] | None:
    """Read the log-probabilities of an answer, or return None if they are not in the form of the API."""
    try:
        return [
            TokenLogprobs(read_token(token), list(map(read_alternative, token.get("top_logprobs") or [])))
            for token in value["content"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        return None


def read_token(value: Any) -> str:
    """Return the text of a token. Raises KeyError, TypeError or ValueError if there is none."""
    if not isinstance(token := value["token"], str):
        raise ValueError(f"no token: {token!r}")
    return token


def read_alternative(value: Any) -> tuple[str, float]:
    """Read one token that could have stood in a place. Raises KeyError, TypeError or ValueError if it is none."""
    if isinstance(logprob := value["logprob"], bool) or not logprob <= HIGHEST_LOGPROB:
        raise ValueError(f"no log-probability: {logprob!r}")
    return read_token(value), float(logprob)


def error_message(body: str) -> str:
    """Return the message in the body of an error, in one line of at most MOST_WORDS characters."""
    body = body[:MOST_ERROR_CHARACTERS]
    try:
        value = json.loads(body)
        value = value[0] if isinstance(value, list) else value  # as Gemini sends it
        error = value.get("error", value)
        text = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError, IndexError, RecursionError):
        text = None
    return " ".join(str(text or body).split())[:MOST_WORDS]
