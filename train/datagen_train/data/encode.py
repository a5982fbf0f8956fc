"""The data contract: from rows to token ids and labels. Nothing else in this package knows what a row looks like.

Rows come through datagen's readers. An answer is tokenised apart from its prompt and joined to it, exactly as it will
be generated: the prompt's ids are those that the model gets in use, whatever tokens would merge across the border. The
loss covers the assistant's text and the token that ends it, nothing before and nothing after.

A row that cannot be trained on is dropped with a reason and counted (data/split.py); a row that is cut is counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from datagen.reasoning import split_thinking, without_end_tokens
from datagen.records.record import Document, Message, Messages, Preference, Record, Row, Text, as_messages, request_text
from datagen_train.errors import UnusableRow
from datagen_train.models.template import ChatTemplate
from datagen_train.models.tokens import TokenSequence, start_token

IGNORED = -100
"""The label of a token that the loss leaves out."""
Ids = list[int]
CONTENTS = {
    "reasoning": "with reasoning that is trained",
    "reasoning_left_out": "with reasoning that is left out",
    "tools": "with tools",
    "weight_0": "with turns of weight 0",
    "split": "split, since the template changes earlier turns",
    "split_into": "sequences from those",
}
"""What is counted of the rows that are trained on, and how it is said."""
NO_WEIGHT = "nothing to train on (weight 0)"
LABEL_FALSE = "label false"
BY_CHOICE = (NO_WEIGHT, LABEL_FALSE)
"""Reasons that the rows themselves give: nothing is wrong where many are dropped for one of them."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence: token ids, and labels of the same length with IGNORED where there is no loss."""

    ids: TokenSequence
    labels: TokenSequence
    cut: bool = False

    @property
    def trained(self) -> int:
        """Tokens with a loss."""
        return int(np.count_nonzero(np.asarray(self.labels) != IGNORED))

    @property
    def prompt_length(self) -> int:
        """Tokens before the first one with a loss."""
        return next(i for i, label in enumerate(self.labels) if label != IGNORED)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One preference: the ids of a prompt and of two answers to it."""

    prompt: TokenSequence
    chosen: TokenSequence
    rejected: TokenSequence
    cut: bool = False

    def sequences(self) -> list[Encoded]:
        """Return the two sequences that go through the model: the prompt with each answer."""
        return [answered(self.prompt, ids, self.cut) for ids in (self.chosen, self.rejected)]


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """One answer that is good or bad by itself: its ids and those of its prompt."""

    prompt: TokenSequence
    answer: TokenSequence
    is_good: bool
    cut: bool = False

    def sequence(self) -> Encoded:
        """Return the sequence that goes through the model."""
        return answered(self.prompt, self.answer, self.cut)


def answered(prompt: TokenSequence, answer: TokenSequence, cut: bool) -> Encoded:
    """Return the sequence of a prompt and an answer, with a loss on the answer."""
    ids = np.concatenate([prompt, answer])
    return Encoded(ids, np.where(np.arange(len(ids)) < len(prompt), IGNORED, ids), cut)


class _Part(NamedTuple):
    """A piece of a sequence: an answer up to its end token, and what stands between it and the answer before."""

    before: Ids
    answer: Ids


class Encoder:
    """Turns conversations, preferences and documents into token ids, for one tokenizer.

    Attributes:
        contents: how many rows hold what is in CONTENTS.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, ends: set[int], max_length: int, reasoning: str = "train"
    ) -> None:
        """`ends` are the token ids that end an answer; `max_length` is in tokens; `reasoning` is train or drop."""
        self.tokenizer, self.ends, self.max_length = tokenizer, ends, max_length
        self.template = ChatTemplate(tokenizer)
        self.contents: Counter[str] = Counter()
        self._trains_reasoning = reasoning == "train"
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = sorted({*tokenizer.all_special_tokens, *added} - {""})
        self._eos: Any = tokenizer.eos_token_id
        self._backend = fast_backend(tokenizer)
        start = start_token(tokenizer)
        self._start = [] if start is None else [start]

    @property
    def settings(self) -> Row:
        """What decides the ids, beside the tokenizer and its chat template."""
        return {"ends": sorted(self.ends), "max_length": self.max_length, "trains_reasoning": self._trains_reasoning}

    def turns(self, messages: Messages, tools: Sequence[Row] = (), *, all_turns: bool = False) -> list[Encoded]:
        """Encode a conversation that ends in an assistant turn.

        Args:
            messages: the turns, each with role and content, and whatever else of TURN_FIELDS.
            tools: the functions that the assistant may call.
            all_turns: train on every assistant turn, not only on those after the last turn of the user: the answer,
                and the calls of tools that led to it.

        Returns:
            Ids and labels up to the last trained token, at most `max_length` of them. Several sequences where the
            template changes earlier turns: one for each turn, behind the prompt that the model gets in use.

        Raises:
            UnusableRow: a message holds a special token, the template refuses the conversation or leaves something
                out, no turn has a weight, or the prompt alone is too long.
        """
        # 1. Choose the turns to train on.
        messages = [apart(message) for message in messages]
        request = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        chosen = answers if all_turns else [i for i in answers if i > request]
        trained = [i for i in chosen if messages[i].get("weight") != 0]
        if not trained:
            raise UnusableRow(NO_WEIGHT)
        holds_reasoning = any(messages[i].get("reasoning_content") for i in trained)
        messages = self._readable(messages, tools)

        # 2. Join each turn to the ones before it, unless the template now renders those otherwise.
        sequences, trains_reasoning, done = list[list[_Part]](), False, ""
        for number in trained:
            exchange = self.template.exchange(messages[: number + 1], tools)
            trains_reasoning |= exchange.has_reasoning
            if not done or not exchange.prompt.startswith(done):
                sequences.append([])
                done = ""
            ids, text = self._up_to_end(exchange.answer)
            sequences[-1].append(_Part(self.ids(exchange.prompt[len(done) :]), ids))
            done = exchange.prompt + text if text else ""

        # 3. Cut them at the longest length, and count.
        encoded = [sequence for parts in sequences if (sequence := self._cut(parts))]
        if not encoded:
            raise UnusableRow(f"the prompt alone fills --max-length {self.max_length}")
        self.contents += Counter(
            reasoning=trains_reasoning,
            reasoning_left_out=holds_reasoning and not trains_reasoning,
            tools=bool(tools) or any(message.get("tool_calls") for message in messages),
            weight_0=len(trained) < len(chosen),
            split=len(sequences) > 1,
            split_into=len(encoded) if len(sequences) > 1 else 0,
        )
        return encoded

    def answer(self, messages: Messages, tools: Sequence[Row] = ()) -> Encoded:
        """Encode a conversation with a loss on its last turn alone; errors as in `turns`."""
        prompt, answer, _ = self.template.exchange(self._readable(map(apart, messages), tools), tools)
        encoded = self._cut([_Part(self.ids(prompt), self._up_to_end(answer)[0])])
        if encoded is None:
            raise UnusableRow(f"the prompt alone fills --max-length {self.max_length}")
        return encoded

    def whole(self, messages: Messages, tools: Sequence[Row] = ()) -> Encoded:
        """Encode a conversation as one text, as any other code does, with a label on the tokens of its last turn.

        Raises:
            UnusableRow: As in `turns`.
        """
        messages = self._readable(map(apart, messages), tools)
        ids = self.ids(self.template.conversation(messages, tools))
        start = min(len(self.prompt(messages[:-1], tools)), len(ids) - 1)
        if start >= self.max_length:
            raise UnusableRow(f"the prompt alone fills --max-length {self.max_length}")
        labels = [IGNORED] * start + ids[start:]
        length = self.max_length
        return Encoded(ids[:length], labels[:length], cut=len(ids) > length)

    def preference(
        self,
        prompt: Text,
        chosen: str,
        rejected: str,
        *,
        thoughts: tuple[str | None, str | None] = (None, None),
        tools: Sequence[Row] = (),
    ) -> EncodedPair:
        """Encode a preference: both answers follow the very same prompt ids.

        Args:
            prompt, chosen, rejected: the texts.
            thoughts: what was thought before each answer. Where only one has it, it is left out: it would be learned
                or unlearned by itself.
            tools: the functions that the assistant may call.
        """
        answers = [
            apart({"role": "assistant", "content": text, "reasoning_content": thought or ""})
            for text, thought in zip((chosen, rejected), thoughts, strict=True)
        ]
        held = [bool(answer["reasoning_content"]) for answer in answers]
        if not all(held):
            answers = [answer | {"reasoning_content": ""} for answer in answers]
        one, other = (self.answer([*as_messages(prompt), answer], tools) for answer in answers)
        start = one.prompt_length
        if one.ids[start:] == other.ids[start:]:
            raise UnusableRow("chosen and rejected are the same tokens")
        is_trained = all(held) and self._trains_reasoning
        self.contents += Counter(
            reasoning=is_trained, reasoning_left_out=any(held) and not is_trained, tools=bool(tools)
        )
        return EncodedPair(one.ids[:start], one.ids[start:], other.ids[start:], one.cut or other.cut)

    def document(self, text: str) -> Iterator[Encoded]:
        """Encode a document in windows of `max_length` tokens; nothing of it is lost, and an end token follows it.

        It begins with the start token if the model was trained behind one. What looks like a special token in the text
        is text.
        """
        ids = [*self._start, *self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]]
        ids.append(self._eos)
        for start in range(0, len(ids), self.max_length):
            window = ids[start : start + self.max_length]
            yield Encoded(window, window)

    def prompt(self, prompt: Text, tools: Sequence[Row] = ()) -> Ids:
        """Encode what a model gets before it answers.

        Raises:
            UnusableRow: the template refuses it, has no tools, or leaves a message out.
        """
        return self.ids(self.template.prompt(as_messages(prompt), tools))

    def ids(self, text: str) -> Ids:
        """Tokenise without adding special tokens: the template has written them, so none comes twice."""
        backend = self._backend
        if backend and not (backend.truncation or backend.padding or backend.encode_special_tokens):
            (encoding,) = backend.encode_batch_fast([text], add_special_tokens=False)
            return list(encoding.ids)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def without_special(self, text: str) -> str:
        """Remove special tokens from a text, until none is left: removing one may make another."""
        while (special := next((token for token in self._special if token in text), None)) is not None:
            text = text.replace(special, "")
        return text

    def _readable(self, messages: Iterable[Message], tools: Sequence[Row]) -> Messages:
        """Return messages without the reasoning if it is not trained.

        Raises:
            UnusableRow: something holds a special token, which would act as a real one.
        """
        dropped = {} if self._trains_reasoning else {"reasoning_content": ""}
        readable = [message | dropped for message in messages]
        if any(token in text for text in strings([*readable, *tools]) for token in self._special):
            raise UnusableRow("a message holds a special token")
        return readable

    def _up_to_end(self, answer: str) -> tuple[Ids, str]:
        """Return the ids of an answer up to the token that ends it, and their text.

        If there is no such token, one is added. Then the text is "": no later prompt holds that token.
        """
        ids = self.ids(answer)
        end = next((i for i, token in enumerate(ids) if token in self.ends), None)
        if end is None:
            return [*ids, self._eos], ""
        before, token, _ = answer.partition(str(self.tokenizer.decode([ids[end]])))
        return ids[: end + 1], before + token

    def _cut(self, parts: Sequence[_Part]) -> Encoded | None:
        """Join the parts, and cut them at the longest length; None if nothing to train on is left."""
        ids = [token for part in parts for token in part.before + part.answer]
        labels = [label for part in parts for label in [IGNORED] * len(part.before) + part.answer]
        trained = [i for i, label in enumerate(labels[: self.max_length]) if label != IGNORED]
        length = trained[-1] + 1 if trained else 0
        return Encoded(ids[:length], labels[:length], cut=len(ids) > self.max_length) if trained else None


def fast_backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return what a tokenizer of the library calls to encode, if it does nothing else; None for another.

    It is called without the places of the tokens in the text, which nobody reads and which take a third of the time.
    """
    is_plain = all(
        getattr(type(tokenizer), name, None) is getattr(PreTrainedTokenizerFast, name)
        for name in ("__call__", "_encode_plus")
    )
    return tokenizer.backend_tokenizer if is_plain and not tokenizer.split_special_tokens else None


def apart(message: Message) -> Message:
    """Return an assistant's message with the reasoning at the beginning of its content as a field of its own."""
    if message["role"] != "assistant" or message.get("reasoning_content") or not message.get("content"):
        return message
    content = message["content"]
    thought = split_thinking(content)
    if thought.is_cut or thought.answer == without_end_tokens(content):
        return message
    return message | {"reasoning_content": thought.reasoning, "content": thought.answer}


def strings(value: object) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def conversation(record: Record, *, backward: bool = False) -> Messages:
    """Return the conversation to train on: prompt and response.

    `backward` swaps them, so that a model learns to write the prompt for a response.
    """
    if record.response is None:
        raise UnusableRow("no response")
    if record.label is False:
        raise UnusableRow(LABEL_FALSE)
    if backward:
        if not isinstance(record.prompt, str):
            raise UnusableRow("--backward needs a prompt of one turn")
        return [{"role": "user", "content": record.response}, {"role": "assistant", "content": record.prompt}]
    return record.messages


def texts(row: Record | Preference | Document) -> list[str]:
    """Return the texts of a row, to train the tokenizer of `tiny` on."""
    if isinstance(row, Document):
        return [row.text]
    if isinstance(row, Record):
        return [request_text(row.prompt), row.response or "", row.reasoning or ""]
    return [request_text(row.prompt), row.chosen, row.rejected]


def encode_row(encoder: Encoder, row: Record | Document, *, all_turns: bool = False) -> list[Encoded]:
    """Encode a document, or a prompt with its response; raise UnusableRow if it cannot be trained on."""
    if isinstance(row, Document):
        return list(encoder.document(row.text))
    return encoder.turns(conversation(row), row.tools, all_turns=all_turns)


def encode_preference(encoder: Encoder, row: Preference) -> EncodedPair:
    """Encode a preference; raise UnusableRow if it cannot be trained on."""
    thoughts = row.chosen_reasoning, row.rejected_reasoning
    return encoder.preference(row.prompt, row.chosen, row.rejected, thoughts=thoughts, tools=row.tools)


def encode_answers(encoder: Encoder, row: Record | Preference) -> list[EncodedAnswer]:
    """Encode answers that are good or bad by themselves: the one of a row with a label, or both of a preference.

    Raises:
        UnusableRow: the row has no response or no label, or cannot be trained on.
    """
    if isinstance(row, Preference):
        pair = encode_preference(encoder, row)
        return [EncodedAnswer(pair.prompt, ids, ids is pair.chosen, pair.cut) for ids in (pair.chosen, pair.rejected)]
    if row.response is None or row.label is None:
        raise UnusableRow("no response" if row.response is None else "no label")
    encoded = encoder.answer(row.messages, row.tools)
    start = encoded.prompt_length
    return [EncodedAnswer(encoded.ids[:start], encoded.ids[start:], row.label, encoded.cut)]
