"""The rows that flow between commands: ids, rows read (records, preferences, documents), candidates made.

One JSON line per row. An id is a digest of what made the row, never a counter, so the same input gives the same
ids whatever ran before, beside or after it.
"""

import json
from array import array
from collections.abc import Iterable
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

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
ID_LENGTH = 16
SAMPLES_PER_PASS = 1_000
"""Sample numbers that one pass over the input may use."""


def canonical(value: object) -> bytes:
    """Encode a JSON value in one way only: sorted keys, no spaces, ASCII (a lone surrogate survives)."""
    return CANONICAL(value).encode("ascii")


def digest(value: object) -> str:
    """Name a JSON value by the sha256 of its canonical form, 64 hex digits."""
    return sha256(canonical(value)).hexdigest()


def row_id(method: str, parents: list[str], place: object, content: object) -> str:
    """Name a row by how it was made, from what, at which place, and what it says."""
    return digest([method, parents, place, content])[:ID_LENGTH]


def as_messages(prompt: Text) -> Messages:
    """Turn a prompt into the messages of a chat request."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def request_text(prompt: Text) -> str:
    """Return what the user asks: the prompt itself, or the last message of a conversation."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def with_request(prompt: Text, text: str) -> Text:
    """Return the prompt with what the user asks replaced; earlier turns stay."""
    return text if isinstance(prompt, str) else [*prompt[:-1], {**prompt[-1], "content": text}]


@dataclass(frozen=True, slots=True)
class Record:
    """One input row, as a generator sees it."""

    id: str
    prompt: Text
    response: str | None = None
    source_id: str | None = None
    """The id that a foreign row brought along."""
    extra: Row = field(default_factory=dict)
    """Unknown fields of the input row, kept in every row made from it."""
    meta: Row = field(default_factory=dict)
    """What the input row says about itself, if a command of ours wrote it."""
    responses: tuple[str, ...] = ()
    """Several answers to the prompt, where the row holds samples."""
    ranks: tuple[int, ...] = ()
    """Their ranks, 1 the best and equal ones a tie, once they are ranked."""
    scores: tuple[float | None, ...] = ()
    """Their scores; None where no score could be had."""
    view: Any = field(default=None, compare=False, repr=False)
    """What the rows kept so far looked like when this record was opened, for a method with a lag."""
    pass_no: int = 0
    """How often the whole input was gone through before (`-n` asks again until enough rows are kept)."""
    seed: int = 0
    """The run's `--seed`."""
    line: int = field(default=0, compare=False)
    """The place in its file: a line, or an item of a JSON array, from 1. No part of any id."""

    def random(self, purpose: str) -> Random:
        """Return a source of chance that depends on this record alone, never on time or order."""
        return Random(f"{self.seed}:{self.id}:{self.pass_no}:{purpose}")

    def sample(self, number: int) -> int:
        """Number a sample so that no other pass over the input has the same."""
        return SAMPLES_PER_PASS * self.pass_no + number

    @property
    def lineage(self) -> Row:
        """The fields of `meta` that say where a row made from this one comes from."""
        return {"parents": [self.id], "seed_id": self.meta.get("seed_id"), "source_id": self.source_id}

    def for_pass(self, pass_no: int, seed: int) -> "Record":
        """Return this record as a pass of a run asks it."""
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
    """By how much `chosen` is better, on the scale of whoever judged."""
    line: int = field(default=0, compare=False)
    source_id: str | None = None
    extra: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A text that answers nobody: pre-training, instruction backtranslation."""

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
    """What was paid for: answers and tokens, good ones or not."""

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
    """What a generator made of one try: a row to keep, or the reason why there is none."""

    status: Status
    row: Row
    """The line as it will stand in the file of its status."""
    reason: str = ""
    usage: Usage = Usage()
    """Filled in by the engine."""


def keep(row: Row) -> Candidate:
    """A row that passed."""
    return Candidate("kept", row)


def reject(reason: str, *, stage: str, record: Row, reply: str | None, meta: Row) -> Candidate:
    """A row that a rule dropped."""
    return _dropped("rejected", reason, stage, record, reply, meta)


def fail(error: CallFailed, *, record: Row, meta: Row) -> Candidate:
    """A row that a failed call prevented; the same command asks for it again."""
    subject = {**record, "error": error.detail}
    return _dropped("failed", error.reason, error.stage, subject, error.reply, meta)


def _dropped(status: Status, reason: str, stage: str, record: Row, reply: str | None, meta: Row) -> Candidate:
    row = {"status": status, "reason": reason, "stage": stage, "record": record, "reply": reply, "meta": meta}
    return Candidate(status, row, reason)


class Seen:
    """A set of 64-bit digests in 16 to 32 bytes each, where Python's own takes 80: runs are long, memory is flat."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0
        for value in values:
            self.add(value)

    def add(self, value: object) -> bool:
        """Remember a JSON value; say whether it is new."""
        if not self._insert(int.from_bytes(sha256(canonical(value)).digest()[:8]) or 1):
            return False
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
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

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for number in old:
            if number:
                self._insert(number)
