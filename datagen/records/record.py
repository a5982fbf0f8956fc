"""The rows that flow between commands: their ids, the rows that a reader returns, the candidates that a method makes.

One JSON line per row. An id is a digest of everything that determines the row, never a counter: the same input gives
the same ids, whatever runs before, beside or after it.
"""

import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import Any, Literal

from datagen.errors import CallFailed

Message = dict[str, str]
Messages = list[Message]
Text = str | Messages
"""A prompt: a string, or a conversation whose last message is the user's."""
Row = dict[str, Any]
Status = Literal["kept", "rejected", "failed"]

canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
ID_LENGTH = 16
SAMPLES_PER_PASS = 1_000
"""The number of sample numbers that one pass over the input may use."""


def canonical(value: object) -> bytes:
    """Encode a JSON value in its one canonical form: sorted keys, no spaces, ASCII with escapes."""
    return canonical_json(value).encode("ascii")


def digest(value: object) -> str:
    """Return the SHA-256 of a JSON value's canonical form, 64 hex digits."""
    return sha256(canonical(value)).hexdigest()


def row_id(method: str, parents: list[str], place: object, content: object) -> str:
    """Return the id of a new row, 16 hex digits.

    Args:
        method: The name of the method that makes it.
        parents: The ids of the rows that it is made from.
        place: Which of the method's rows from these parents it is, such as [pass, round]; any JSON value.
        content: The text of the row, such as [prompt, response]; any JSON value.
    """
    return digest([method, parents, place, content])[:ID_LENGTH]


def as_messages(prompt: Text) -> Messages:
    """Return a prompt as the messages of a chat request."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def request_text(prompt: Text) -> str:
    """Return the request of a prompt: the prompt itself, or the last message of a conversation."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def with_request(prompt: Text, text: str) -> Text:
    """Return a prompt with another request; earlier turns stay."""
    return text if isinstance(prompt, str) else [*prompt[:-1], {**prompt[-1], "content": text}]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat request."""

    messages: Messages
    task: str
    """The name of the prompt template; `answer` for a prompt without one."""
    fields: Mapping[str, str]
    """The values in the template. Task and fields are for the procedural teacher `sim` and for recorded answers."""


def plain_prompt(prompt: Text) -> Prompt:
    """Return a chat request for a prompt as it stands, without a template."""
    return Prompt(as_messages(prompt), "answer", {"prompt": request_text(prompt)})


@dataclass(frozen=True, slots=True)
class Record:
    """One input row of prompts or samples, as a method sees it."""

    id: str
    prompt: Text
    response: str | None = None
    source_id: str | None = None
    """The id in the input row, if no command of ours wrote it."""
    extra: Row = field(default_factory=dict)
    """Unknown fields of the input row, copied to every row made from it."""
    meta: Row = field(default_factory=dict)
    """The `meta` of the input row, if a command of ours wrote it."""
    responses: tuple[str, ...] = ()
    """Several answers to the prompt, if the row holds samples."""
    ranks: tuple[int, ...] = ()
    """The ranks of the answers, 1 the best, equal ranks a tie; empty until they are ranked."""
    scores: tuple[float | None, ...] = ()
    """The scores of the answers; None for an answer without a score."""
    view: Any = field(default=None, compare=False, repr=False)
    """The memory of kept rows as it was when this record was opened, for a method with a lag."""
    pass_no: int = 0
    """The number of earlier passes over the whole input (`-n` repeats the input until enough rows are kept)."""
    seed: int = 0
    """The run's `--seed`."""
    line: int = field(default=0, compare=False)
    """The line in the file, or the item of its JSON array, from 1. Not part of any id."""

    def random(self, purpose: str) -> Random:
        """Return a random number generator that depends on this record and the run's seed alone, never on time or
        order.

        Args:
            purpose: What the numbers are drawn for; another purpose draws independent numbers.
        """
        return Random(f"{self.seed}:{self.id}:{self.pass_no}:{purpose}")

    def sample(self, number: int) -> int:
        """Return the sample number of a call, which no other pass over the input uses.

        Args:
            number: The number within this pass, from 0 to SAMPLES_PER_PASS - 1. Two calls that are equal except for
                the sample number get independent answers.
        """
        return SAMPLES_PER_PASS * self.pass_no + number

    @property
    def lineage(self) -> Row:
        """The fields of `meta` that say where a row made from this one comes from."""
        return {"parents": [self.id], "seed_id": self.meta.get("seed_id"), "source_id": self.source_id}

    def for_pass(self, pass_no: int, seed: int) -> "Record":
        """Return this record with the numbers of a pass and of the run's seed."""
        same = (self.pass_no, self.seed) == (pass_no, seed)
        return self if same else replace(self, pass_no=pass_no, seed=seed)


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, the better one first."""

    id: str
    prompt: Text
    chosen: str
    rejected: str
    margin: float | None = None
    """By how much `chosen` is better, on the judge's scale."""
    line: int = field(default=0, compare=False)
    source_id: str | None = None
    extra: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A document without a prompt, for pre-training or backtranslation."""

    id: str
    text: str
    line: int = field(default=0, compare=False)
    source_id: str | None = None
    extra: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadLine:
    """An input line that cannot be used."""

    source: str
    line: int
    reason: str
    raw: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Answers and tokens that were paid for, usable or not."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
        )


@dataclass(slots=True)
class Candidate:
    """The result of one try of a method: a row to keep, or the reason why there is none."""

    status: Status
    row: Row
    """The line to write: a row, or for another status a line of x.rejected.jsonl."""
    reason: str = ""
    usage: Usage = Usage()
    """Filled in by the engine."""


def keep(row: Row) -> Candidate:
    """Return a candidate that passed.

    Args:
        row: The line to write: `id`, the text (`prompt` and `response`, for example), `meta`, and the record's `extra`.
    """
    return Candidate("kept", row)


def reject(reason: str, *, stage: str, record: Row, reply: str | None, meta: Row) -> Candidate:
    """Return a candidate that a rule rejected.

    Args:
        reason: The name of the rule, in snake_case; the funnel counts candidates by it.
        stage: The step of the method.
        record: The input, to find it again: `id`, `prompt` and what the method adds.
        reply: The text that the rule was applied to, if there is one.
        meta: The `meta` that a kept row would have.
    """
    row = {"status": "rejected", "reason": reason, "stage": stage, "record": record, "reply": reply, "meta": meta}
    return Candidate("rejected", row, reason)


def fail(error: CallFailed, *, record: Row, meta: Row) -> Candidate:
    """Return a candidate that a failed call prevented; running the same command again repeats the call.

    Args:
        error: The exception that `llm.chat` raised.
        record: The input, as in `reject`.
        meta: The `meta` that a kept row would have.
    """
    candidate = reject(
        error.reason, stage=error.stage, record={**record, "error": error.detail}, reply=error.reply, meta=meta
    )
    candidate.row["status"] = candidate.status = "failed"
    return candidate


class Seen:
    """A set of JSON values that keeps only a 64-bit digest of each, in 16 to 32 bytes; a Python set takes 80."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0
        for value in values:
            self.add(value)

    def add(self, value: object) -> bool:
        """Add a JSON value; return whether it is new."""
        if not self._insert(int.from_bytes(sha256(canonical(value)).digest()[:8]) or 1):
            return False
        self._count += 1
        if 2 * self._count > len(self._slots):
            old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
            for number in filter(None, old):
                self._insert(number)
        return True

    def _insert(self, number: int) -> bool:
        slots, mask = self._slots, len(self._slots) - 1
        at = number & mask
        while slots[at]:
            if slots[at] == number:
                return False
            at = (at + 1) & mask
        slots[at] = number
        return True
