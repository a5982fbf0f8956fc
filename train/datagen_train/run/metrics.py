"""Answers that a model generates to the prompts of rows, and their metrics: exact match, ROUGE, accuracy and F1.

Answers are generated greedily from the prompt alone; metrics of teacher-forced predictions would flatter the model.
Used while a model trains and by `datagen train eval`.

ROUGE is that of the `rouge-score` package without stemming, to which it adds Chinese and Japanese: there every
character is a token, where the package finds none.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.errors import InputError
from datagen.llm.local.generation import Generated, context_length, generate
from datagen.reasoning import split_thinking
from datagen.records.record import Record
from datagen.text import CJK
from datagen_train.data.encode import Encoder, texts
from datagen_train.data.split import Account, encode_usable
from datagen_train.models.sharding import in_step
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import TrainOptions
from datagen_train.run.progress import ANSWERING, Terminal, token_counter

TOKEN = re.compile(rf"[a-z0-9]+|{CJK.pattern}")
MAX_TOKENS_FACTOR = 4
"""Longest generated answer of a measurement, as a multiple of the longest expected one."""
MAX_LABELS = 20
"""With more different responses, they are not taken for labels."""
MIN_PER_LABEL = 2
"""Rows per label, on average; with fewer, the responses are short answers and no labels."""


@dataclass(frozen=True)
class Answers:
    """The answers of a model, and the rows with the expected ones."""

    rows: list[Record]
    generated: list[Generated]

    @property
    def texts(self) -> list[str]:
        return [answer.text for answer in self.generated]

    @property
    def expected(self) -> list[str]:
        """The answers of the rows, without any reasoning in them."""
        return [split_thinking(row.response or "").answer for row in self.rows]


def answer_measure(
    rows: Sequence[Record], encoder: Encoder, options: TrainOptions, terminal: Terminal
) -> Callable[[PreTrainedModel], dict[str, float]]:
    """Return a function that answers the first rows with a response with a model, and measures the answers."""
    answered = [row for row in rows if row.response is not None][: options.generate]
    max_tokens = most_tokens(encoder, answered)

    def measure_answers(model: PreTrainedModel) -> dict[str, float]:
        terminal.phase(ANSWERING)
        with in_step(model):
            return evaluate_generation(
                model,
                encoder.tokenizer,
                answered,
                max_tokens=max_tokens,
                batch_size=options.batch_size,
                on_tokens=token_counter(terminal),
            )

    return measure_answers


def evaluate_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Record],
    *,
    max_tokens: int,
    batch_size: int,
    limit: int | None = None,
    on_tokens: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Answer the first `limit` prompts of rows with responses, and compare: how trainers measure while they train."""
    encoder = Encoder(tokenizer, turn_end_ids(model, tokenizer), context_length(model))
    answered = [row for row in rows if row.response is not None][:limit]
    answers = answer_prompts(
        model, encoder, answered, max_tokens=max_tokens, batch_size=batch_size, on_tokens=on_tokens
    )
    return measure(answers) if answered else {}


def most_tokens(encoder: Encoder, rows: Sequence[Record]) -> int:
    """Return how long generated answers may be, in tokens."""
    longest = max((len(encoder.ids("".join(texts(row)[1:]))) for row in rows), default=0)
    return min(encoder.max_length, MAX_TOKENS_FACTOR * (longest + 1))


def answer_prompts(
    model: PreTrainedModel,
    encoder: Encoder,
    rows: list[Record],
    *,
    max_tokens: int,
    batch_size: int,
    on_tokens: Callable[[int], None] | None = None,
) -> Answers:
    """Answer the prompts of rows greedily; `on_tokens` is that of `generate`.

    A row whose prompt the chat template refuses gets no answer.
    """
    prompts, dropped = encode_usable(rows, lambda row: [(row, encoder.prompt(row.prompt, row.tools))])
    if rows and not prompts:
        raise InputError(f"no prompt can be answered: {Account(dropped=dropped).losses()}")
    generated = generate(
        model,
        encoder.tokenizer,
        [ids for _, ids in prompts],
        max_tokens=max_tokens,
        batch_size=batch_size,
        on_tokens=on_tokens,
    )
    return Answers([row for row, _ in prompts], generated)


def measure(answers: Answers, *, ignore_case: bool = False) -> dict[str, float]:
    """Compare answers with the expected ones; `ended` is the share that ended by itself."""
    predicted, expected = answers.texts, answers.expected
    labels = closed_labels(expected)
    return {
        "exact_match": exact_match(predicted, expected, ignore_case=ignore_case),
        **rouge(predicted, expected),
        "ended": mean([answer.finish_reason == "stop" for answer in answers.generated]),
        **(classification(predicted, expected, labels) if labels else {}),
    }


def normalise(text: str, *, ignore_case: bool = False) -> str:
    """Strip a text and collapse its white space; fold its case if asked to."""
    collapsed = " ".join(text.split())
    return collapsed.casefold() if ignore_case else collapsed


def exact_match(predicted: Sequence[str], expected: Sequence[str], *, ignore_case: bool = False) -> float:
    """Return the share of answers that equal the expected ones, up to white space."""
    pairs = zip(predicted, expected, strict=True)
    return mean([normalise(a, ignore_case=ignore_case) == normalise(b, ignore_case=ignore_case) for a, b in pairs])


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 for no values."""
    return sum(values) / len(values) if values else 0.0


def words(text: str) -> list[str]:
    """Split a text into the tokens of ROUGE."""
    return TOKEN.findall(text.lower())


def rouge_n(predicted: str, expected: str, n: int) -> float:
    """Return ROUGE-n, the F1 of shared n-grams."""
    sides = words(predicted), words(expected)
    one, other = (Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for tokens in sides)
    return f1((one & other).total(), one.total(), other.total())


def rouge_l(predicted: str, expected: str) -> float:
    """Return ROUGE-L, the F1 of the longest common subsequence."""
    one, other = words(predicted), words(expected)
    return f1(LCSseq.similarity(one, other), len(one), len(other))


def rouge(predicted: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """Return the means of ROUGE-1, ROUGE-2 and ROUGE-L."""
    pairs = list(zip(predicted, expected, strict=True))
    return {
        "rouge_1": mean([rouge_n(one, other, 1) for one, other in pairs]),
        "rouge_2": mean([rouge_n(one, other, 2) for one, other in pairs]),
        "rouge_l": mean([rouge_l(one, other) for one, other in pairs]),
    }


def f1(shared: int, predicted: int, expected: int) -> float:
    """Return the harmonic mean of precision and recall, from counts."""
    return 2 * shared / (predicted + expected) if shared else 0.0


def closed_labels(expected: Sequence[str]) -> list[str] | None:
    """Return the labels if the responses are a closed set: few different ones, each used several times."""
    labels = sorted({normalise(text, ignore_case=True) for text in expected})
    is_closed = 2 <= len(labels) <= MAX_LABELS and MIN_PER_LABEL * len(labels) <= len(expected)
    return labels if is_closed else None


def classification(predicted: Sequence[str], expected: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return accuracy and macro F1 over the labels; an answer that is no label is wrong."""
    pairs = [
        (normalise(one, ignore_case=True), normalise(other, ignore_case=True))
        for one, other in zip(predicted, expected, strict=True)
    ]
    hits = Counter(other for one, other in pairs if one == other)
    predictions, truths = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    return {
        "accuracy": mean([one == other for one, other in pairs]),
        "macro_f1": mean([f1(hits[label], predictions[label], truths[label]) for label in labels]),
    }
