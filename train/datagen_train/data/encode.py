"""The data contract: from rows to token ids and labels. Nothing else in this package knows what a row looks like.

Rows come through datagen's readers. An answer is tokenised apart from its prompt and joined to it, exactly as it will
be generated: the prompt's ids are those that the model gets in use, whatever tokens would merge across the border. The
loss covers the assistant's text and the token that ends it, nothing before and nothing after.

A row that cannot be trained on is dropped with a reason and counted (data/split.py); a row that is cut is counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from datagen.records.record import Document, Messages, Record, Text, as_messages

IGNORED = -100
"""The label of a token that the loss leaves out."""
Ids = list[int]


class UnusableRow(Exception):
    """A row that cannot be trained on; the message is the reason that is counted."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence: token ids, and labels of the same length with IGNORED where there is no loss."""

    ids: Ids
    labels: Ids
    cut: bool = False

    @property
    def trained(self) -> int:
        """Tokens with a loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One preference: the ids of a prompt and of two answers to it."""

    prompt: Ids
    chosen: Ids
    rejected: Ids
    cut: bool = False

    def sequences(self) -> list[Encoded]:
        """Return the two sequences that go through the model: the prompt with each answer."""
        ignored = [IGNORED] * len(self.prompt)
        return [Encoded(self.prompt + ids, ignored + ids, self.cut) for ids in (self.chosen, self.rejected)]


class Encoder:
    """Turns conversations, preferences and documents into token ids, for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: set[int], max_length: int) -> None:
        """`ends` are the token ids that end an answer; `max_length` is in tokens."""
        self.tokenizer, self.ends, self.max_length = tokenizer, ends, max_length
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = sorted({*tokenizer.all_special_tokens, *added} - {""})
        self._eos: Any = tokenizer.eos_token_id

    def turns(self, messages: Messages, *, all_turns: bool = False) -> Encoded:
        """Encode a conversation that ends in an assistant turn.

        Args:
            messages: the turns, each with role and content.
            all_turns: train on every assistant turn, not on the last alone.

        Returns:
            Ids and labels up to the last trained token, at most `max_length` of them.

        Raises:
            UnusableRow: a message holds a special token, the template renders the prompt differently once it is
                answered, or the prompt alone is too long.
        """
        # 1. A special token inside a message would act as a real one.
        if any(token in message["content"] for message in messages for token in self._special):
            raise UnusableRow("a message holds a special token")

        ids, labels, done = Ids(), Ids(), ""
        for number, message in enumerate(messages):
            if message["role"] != "assistant" or not (all_turns or number == len(messages) - 1):
                continue
            # 2. Split the rendered conversation where this answer begins and ends; tokenise the two parts apart.
            prompt, answered = self._render(messages[:number], ask=True), self._render(messages[: number + 1])
            if not prompt.startswith(done) or not answered.startswith(prompt) or answered == prompt:
                raise UnusableRow("the chat template renders a prompt otherwise once it is answered")
            before, after = self.ids(prompt[len(done) :]), self.ids(answered[len(prompt) :])
            done = answered
            # 3. Train on the answer up to the token that ends it; add one where the template has none.
            end = next((i for i, token in enumerate(after) if token in self.ends), None)
            answer = [*after, self._eos] if end is None else after[: end + 1]
            rest = after[len(answer) :]
            ids += before + answer + rest
            labels += [IGNORED] * len(before) + answer + [IGNORED] * len(rest)

        # 4. Drop what follows the last trained token, and cut at the longest length.
        length = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
        kept = min(length, self.max_length)
        ids, labels = ids[:kept], labels[:kept]
        if all(label == IGNORED for label in labels):
            raise UnusableRow(f"the prompt alone fills --max-length {self.max_length}")
        return Encoded(ids, labels, cut=length > self.max_length)

    def preference(self, prompt: Text, chosen: str, rejected: str) -> EncodedPair:
        """Encode a preference: both answers follow the very same prompt ids."""
        messages = as_messages(prompt)
        parts = []
        for answer in (chosen, rejected):
            encoded = self.turns([*messages, {"role": "assistant", "content": answer}])
            start = next(i for i, label in enumerate(encoded.labels) if label != IGNORED)
            parts.append((encoded.ids[:start], encoded.ids[start:], encoded.cut))
        (prompt_ids, chosen_ids, chosen_cut), (_, rejected_ids, rejected_cut) = parts
        if chosen_ids == rejected_ids:
            raise UnusableRow("chosen and rejected are the same tokens")
        return EncodedPair(prompt_ids, chosen_ids, rejected_ids, chosen_cut or rejected_cut)

    def document(self, text: str) -> Iterator[Encoded]:
        """Encode a document in windows of `max_length` tokens; nothing of it is lost, and an end token follows it."""
        if any(token in text for token in self._special):
            raise UnusableRow("the text holds a special token")
        ids = [*self.ids(text), self._eos]
        for start in range(0, len(ids), self.max_length):
            window = ids[start : start + self.max_length]
            yield Encoded(window, window)

    def prompt(self, prompt: Text) -> Ids:
        """Encode what a model gets before it answers."""
        return self.ids(self._render(as_messages(prompt), ask=True))

    def ids(self, text: str) -> Ids:
        """Tokenise without adding special tokens: the template has written them, so none comes twice."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def without_special(self, text: str) -> str:
        """Remove special tokens from a text, until none is left: removing one may make another."""
        while (special := next((token for token in self._special if token in text), None)) is not None:
            text = text.replace(special, "")
        return text

    def _render(self, messages: Messages, *, ask: bool = False) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))


def conversation(record: Record, *, backward: bool = False) -> Messages:
    """Return the conversation to train on: prompt and response.

    `backward` swaps them, so that a model learns to write the prompt for a response.
    """
    if record.response is None:
        raise UnusableRow("no response")
    if backward:
        if not isinstance(record.prompt, str):
            raise UnusableRow("--backward needs a prompt of one turn")
        return [{"role": "user", "content": record.response}, {"role": "assistant", "content": record.prompt}]
    return [*as_messages(record.prompt), {"role": "assistant", "content": record.response}]


def encode_row(encoder: Encoder, row: Record | Document, *, all_turns: bool = False) -> list[Encoded]:
    """Encode a document, or a prompt with its response; raise UnusableRow if it cannot be trained on."""
    if isinstance(row, Document):
        return list(encoder.document(row.text))
    return [encoder.turns(conversation(row), all_turns=all_turns)]
