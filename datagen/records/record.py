"""The rows that flow between commands: their ids, the rows that a reader returns, the candidates that a method makes.

One JSON line per row. An id is a digest of everything that determines the row, never a counter: the same input gives
the same ids, whatever runs before, beside or after it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import Any, Literal

from datagen.errors import CallFailed
from datagen.records.usage import Purpose, Usage

Message = dict[str, Any]
"""One turn of a conversation: `role` and `content`, and whatever of TURN_FIELDS the turn has. Nothing of it is lost
between a reply or a file, the row, the encoder and the writers."""
TURN_FIELDS = ("reasoning_content", "tool_calls", "tool_call_id", "name", "weight")
"""What a message may hold beside its role and its text: what the assistant thought before it answered, the functions
that it calls (as in the OpenAI API), the call that a tool's result belongs to, the speaker or the tool, and 0 for a
turn that must not be learned."""
UNSENT_FIELDS = ("reasoning_content", "weight")
"""Those of TURN_FIELDS that are not sent to a model."""
Messages = list[Message]
Text = str | Messages
"""A prompt: a string, or a conversation whose last message is the user's, or the result of a tool."""
Row = dict[str, Any]
Status = Literal["kept", "rejected", "failed"]

canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False).encode
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
    """Return the request of a prompt: the prompt itself, or the user's last message in a conversation."""
    return prompt if isinstance(prompt, str) else prompt[request_place(prompt)]["content"]


def with_request(prompt: Text, text: str) -> Text:
    """Return a prompt with another request; the other turns stay."""
    if isinstance(prompt, str):
        return text
    place = request_place(prompt)
    return [*prompt[:place], {**prompt[place], "content": text}, *prompt[place + 1 :]]


def request_place(messages: Messages) -> int:
    """Return the place of the user's last message; only calls and the results of tools may come after it."""
    places = (place for place in reversed(range(len(messages))) if messages[place]["role"] == "user")
    return next(places, len(messages) - 1)


def ends_in_request(prompt: Text) -> bool:
    """Check that nothing follows the request of a prompt: the results of tools fit no other one."""
    return isinstance(prompt, str) or request_place(prompt) == len(prompt) - 1


def request_messages(messages: Messages) -> Messages:
    """Return messages as they are sent to a model: without earlier reasoning, which many servers refuse, and without
    weights, which are for training."""
    if all(len(message) <= 2 for message in messages):
        return messages
    return [{k: v for k, v in message.items() if k not in UNSENT_FIELDS} for message in messages]


def reasoning_field(reasoning: str | None, name: str = "reasoning") -> Row:
    """Return the field of a row that holds what was thought before an answer; no field where nothing was."""
    return {name: reasoning} if reasoning else {}


def reasoning_list(reasonings: Iterable[str | None]) -> Row:
    """Return the field of a row that holds what was thought before each of its answers, null where nothing was."""
    texts = [reasoning or None for reasoning in reasonings]
    return {"reasoning": texts} if any(texts) else {}


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
    """The text of the assistant's last turn, without its reasoning."""
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
    reasoning: str | None = None
    """What the assistant thought before the response."""
    response_fields: Row = field(default_factory=dict)
    """What else the message of the response holds: `tool_calls`, `name`, `weight`."""
    reasonings: tuple[str | None, ...] = ()
    """What was thought before each of the responses; empty if nothing is known of any."""
    tools: tuple[Row, ...] = ()
    """The functions that the assistant may call, in the form of the OpenAI API."""
    label: bool | None = None
    """Whether the response is a good one, in unpaired preferences (KTO). A bad one is never learned from."""
    view: Any = field(default=None, compare=False, repr=False)
    """The memory of kept rows as it was when this record was opened, for a method with a lag."""
    pass_no: int = 0
    """The number of earlier passes over the whole input (`-n` repeats the input until enough rows are kept)."""
    seed: int = 0
    """The run's `--seed`."""
    line: int = field(default=0, compare=False)
    """The line in the file, or the item of its JSON array, from 1. Not part of any id."""
    instruction: str = field(default="", compare=False)
    """The column "instruction" of the input row: the request without its input. Not part of any id."""

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

    @property
    def carried(self) -> Row:
        """What every row made from this one has of it: its tools, and its unknown fields."""
        return {**({"tools": list(self.tools)} if self.tools else {}), **self.extra}

    @property
    def beside_response(self) -> Row:
        """What a row that keeps the response holds beside it: its reasoning, tool calls, name, weight and label."""
        label = {} if self.label is None else {"label": self.label}
        return {**reasoning_field(self.reasoning), **self.response_fields, **label}

    @property
    def row(self) -> Row:
        """The whole input row in our own layout: for `reject` and `fail`, so that nothing of it is lost."""
        texts: Row = {"response": self.response, "responses": list(self.responses)}
        values: Row = {
            "ranks": list(self.ranks), "scores": list(self.scores), **self.response_fields, "label": self.label,
            "reasoning": self.reasoning or list(self.reasonings), "tools": list(self.tools), "meta": self.meta,
        }  # fmt: skip
        filled = {
            name: value for name, value in (texts | values).items() if value is not None and value not in ([], {})
        }
        return {"id": self.id, "prompt": self.prompt, **filled, **self.extra}

    @property
    def messages(self) -> Messages:
        """The whole conversation: the prompt, and the response as a message with all that is known of it."""
        if self.response is None:
            return as_messages(self.prompt)
        reasoning = {"reasoning_content": self.reasoning} if self.reasoning else {}
        answer = {"role": "assistant", "content": self.response, **reasoning, **self.response_fields}
        return [*as_messages(self.prompt), answer]

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
    chosen_reasoning: str | None = None
    """What was thought before `chosen`."""
    rejected_reasoning: str | None = None
    tools: tuple[Row, ...] = ()
    """As in Record."""

    @property
    def row(self) -> Row:
        """The whole row in our own layout."""
        values: Row = {
            "margin": self.margin, "chosen_reasoning": self.chosen_reasoning,
            "rejected_reasoning": self.rejected_reasoning, "tools": list(self.tools) or None, "meta": self.meta,
        }  # fmt: skip
        filled = {name: value for name, value in values.items() if value is not None}
        texts = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        return {"id": self.id, **texts, **filled, **self.extra}


@dataclass(frozen=True, slots=True)
class Document:
    """A document without a prompt, for pre-training or backtranslation."""

    id: str
    text: str
    line: int = field(default=0, compare=False)
    source_id: str | None = None
    extra: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The whole row in our own layout."""
        return {"id": self.id, "text": self.text, "meta": self.meta, **self.extra}


@dataclass(frozen=True, slots=True)
class BadLine:
    """An input line that cannot be used."""

    source: str
    line: int
    reason: str
    raw: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(slots=True)
class Candidate:
    """The result of one try of a method: a row to keep, or the reason why there is none."""

    status: Status
    row: Row
    """The line to write: a row, or for another status a line of x.rejected.jsonl."""
    reason: str = ""
    usage: Usage = Usage()
    """Filled in by the engine."""
    spending: Mapping[Purpose, Usage] = field(default_factory=dict)
    """The parts of `usage`; filled in by the engine."""
    asks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """What was asked for beside the row, by name: how much, and how much was not obtained (engine/unobtained.py)."""


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
        record: The whole row that it was made from, usually `Record.row`, and what the method adds.
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
