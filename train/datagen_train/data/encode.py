"""The data contract: from rows to token ids and labels. Nothing else in `train` knows what a row looks like.

Rows come through datagen's readers. An answer is tokenised apart from its prompt and joined to it, exactly as it will
be generated: the prompt's ids are those that the model sees when it is asked, whatever tokens would merge across the
border. The loss covers the assistant's words and the token that ends them, nothing before and nothing after.

What cannot be trained on is dropped with a reason and counted; what is cut is counted. Rows are split by prompt, and
those that evolved from one seed stay together, so that no held-out prompt is trained on, nor a relative of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Generic, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from datagen.records.record import Document, Messages, Record, Text, as_messages, canonical

IGNORED = -100
"""The label of a token that the loss leaves out."""
Ids = list[int]
Row = TypeVar("Row")
Example = TypeVar("Example")


class UnusableRow(Exception):
    """A row that cannot be trained on; the message is the reason that is counted."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence: token ids, and the same with IGNORED where there is no loss."""

    ids: Ids
    labels: Ids
    cut: bool = False

    @property
    def trained(self) -> int:
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One preference: a prompt and two answers to it."""

    prompt: Ids
    chosen: Ids
    rejected: Ids
    cut: bool = False


class Encoder:
    """Turns conversations, preferences and documents into ids, for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: set[int], max_length: int) -> None:
        """`ends` are the tokens that end an answer; `max_length` in tokens."""
        self.tokenizer, self.ends, self.max_length = tokenizer, ends, max_length
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = sorted({*tokenizer.all_special_tokens, *added} - {""})

    def turns(self, messages: Messages, *, all_turns: bool = False) -> Encoded:
        """Encode a conversation that ends in an assistant's turn; train on that one, or on all of them."""
        self._refuse_special(messages)
        ids, labels = Ids(), Ids()
        for text, trained in self._pieces(messages, all_turns):
            piece = self.ids(text)
            answer = self._until_end(piece) if trained else Ids()
            rest = piece[len(answer) :] if trained else piece
            ids += answer + rest
            labels += answer + [IGNORED] * len(rest)
        length = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
        return self._fit(ids[:length], labels[:length])

    def preference(self, prompt: Text, chosen: str, rejected: str) -> EncodedPair:
        """Encode a preference: both answers follow the very same prompt ids."""
        asked = as_messages(prompt)
        made = []
        for answer in (chosen, rejected):
            encoded = self.turns([*asked, {"role": "assistant", "content": answer}])
            start = next(i for i, label in enumerate(encoded.labels) if label != IGNORED)
            made.append((encoded.ids[:start], encoded.ids[start:], encoded.cut))
        (before, first, cut), (_, second, also_cut) = made
        if first == second:
            raise UnusableRow("chosen and rejected are the same tokens")
        return EncodedPair(before, first, second, cut or also_cut)

    def document(self, text: str) -> Iterator[Encoded]:
        """Encode a document in windows of max_length; nothing of it is lost, and its end is marked."""
        if any(token in text for token in self._special):
            raise UnusableRow("the text holds a special token")
        ids = [*self.ids(text), self._end]
        for at in range(0, len(ids), self.max_length):
            window = ids[at : at + self.max_length]
            yield Encoded(window, window)

    def prompt(self, prompt: Text) -> Ids:
        """Encode what a model is given before it answers."""
        return self.ids(self._render(as_messages(prompt), ask=True))

    def without_special(self, text: str) -> str:
        """Take special tokens out of a text, until none is left: taking one out may make another."""
        while (found := next((token for token in self._special if token in text), None)) is not None:
            text = text.replace(found, "")
        return text

    @property
    def _end(self) -> int:
        end = self.tokenizer.eos_token_id
        assert isinstance(end, int)
        return end

    def _pieces(self, messages: Messages, all_turns: bool) -> Iterator[tuple[str, bool]]:
        """Split the rendered conversation where an assistant begins and ends."""
        at = ""
        for number, message in enumerate(messages):
            last = number == len(messages) - 1
            if message["role"] != "assistant" or not (all_turns or last):
                continue
            before, after = self._render(messages[:number], ask=True), self._render(messages[: number + 1])
            if not before.startswith(at) or not after.startswith(before) or after == before:
                raise UnusableRow("the chat template renders a prompt otherwise once it is answered")
            yield before[len(at) :], False
            yield after[len(before) :], True
            at = after

    def _render(self, messages: Messages, *, ask: bool = False) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))

    def ids(self, text: str) -> Ids:
        """Tokenise without special tokens: the template has written those that belong, so none comes twice."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def _until_end(self, piece: Ids) -> Ids:
        """Return an answer up to the token that ends it; add one where the template has none."""
        at = next((i for i, token in enumerate(piece) if token in self.ends), None)
        return [*piece, self._end] if at is None else piece[: at + 1]

    def _fit(self, ids: Ids, labels: Ids) -> Encoded:
        if len(ids) <= self.max_length:
            return Encoded(ids, labels)
        ids, labels = ids[: self.max_length], labels[: self.max_length]
        if all(label == IGNORED for label in labels):
            raise UnusableRow(f"the prompt alone fills --max-length {self.max_length}")
        return Encoded(ids, labels, cut=True)

    def _refuse_special(self, messages: Messages) -> None:
        """A special token inside someone's words would be taken for the real thing."""
        for message in messages:
            if any(token in message["content"] for token in self._special):
                raise UnusableRow("a message holds a special token")


@dataclass
class Account:
    """What became of the rows."""

    read: int = 0
    unreadable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    train: int = 0
    held_out: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    makers: Counter[str] = field(default_factory=Counter)
    """Models that rows name as who wrote or judged them, and how many do."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "unreadable": self.unreadable,
            "dropped": dict(sorted(self.dropped.items())),
            "cut": self.cut,
            "train": self.train,
            "held_out": self.held_out,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "makers": dict(sorted(self.makers.items())),
        }


def split_group(row: Any) -> object:
    """Return the group of a row; rows of one group go to the same side of the split.

    It is the seed that the prompt was evolved from, else the prompt itself; for a document its text.
    """
    return row.text if isinstance(row, Document) else row.meta.get("seed_id") or row.prompt


def is_held_out(group: object, share: float) -> bool:
    """Decide by that alone, so that equal prompts are on one side, today and tomorrow."""
    return int.from_bytes(sha256(canonical(group)).digest()[:4]) < share * 2**32


def conversation(record: Record, *, backward: bool = False) -> Messages:
    """Return a record as the conversation to train on; `backward` asks for the prompt that fits a response."""
    if record.response is None:
        raise UnusableRow("no response")
    if backward:
        if not isinstance(record.prompt, str):
            raise UnusableRow("--backward needs a prompt of one turn")
        return [{"role": "user", "content": record.response}, {"role": "assistant", "content": record.prompt}]
    return [*as_messages(record.prompt), {"role": "assistant", "content": record.response}]


@dataclass
class Split(Generic[Row, Example]):
    """Encoded rows on both sides, and the held-out rows as they were read."""

    train: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    held_out_rows: list[Row] = field(default_factory=list)


def encode_rows(
    rows: Iterable[Row],
    encode: Callable[[Row], Iterable[Example]],
    measure: Callable[[Example], tuple[int, int, bool]],
    account: Account,
    held_out_share: float,
) -> Split[Row, Example]:
    """Encode rows, each with its split_group, and split them; what is unfit is counted, never fatal.

    `measure` returns a row's tokens, the trained ones among them, and whether it was cut.
    """
    split: Split[Row, Example] = Split()
    for row in rows:
        try:
            made = list(encode(row))
        except UnusableRow as reason:
            account.dropped[str(reason)] += 1
            continue
        held_out = is_held_out(split_group(row), held_out_share)
        (split.held_out if held_out else split.train).extend(made)
        split.held_out_rows += [row] if held_out else []
        for tokens, trained, cut in map(measure, made):
            account.tokens, account.trained_tokens = account.tokens + tokens, account.trained_tokens + trained
            account.cut += cut
    account.train, account.held_out = len(split.train), len(split.held_out)
    return split


def measure_sequence(made: Encoded) -> tuple[int, int, bool]:
    """Return (tokens, trained tokens, cut)."""
    return len(made.ids), made.trained, made.cut


def measure_pair(made: EncodedPair) -> tuple[int, int, bool]:
    """Return (tokens of both sequences, trained tokens, cut)."""
    answers = len(made.chosen) + len(made.rejected)
    return 2 * len(made.prompt) + answers, answers, made.cut


def as_columns(made: Sequence[Encoded]) -> dict[str, list[Any]]:
    """Lay sequences out as TRL's SFT trainer takes them, 4 bytes a token."""
    return {
        "input_ids": [np.array(each.ids, dtype=np.int32) for each in made],
        "labels": [np.array(each.labels, dtype=np.int32) for each in made],
    }


def pairs_as_columns(made: Sequence[EncodedPair]) -> dict[str, list[Any]]:
    """Lay preferences out as TRL's DPO trainer takes them."""
    return {
        "prompt_ids": [each.prompt for each in made],
        "chosen_ids": [each.chosen for each in made],
        "rejected_ids": [each.rejected for each in made],
    }
