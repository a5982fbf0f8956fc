"""Answers that a model generates to the prompts of rows, compared with the responses of the rows.

Answers are generated greedily from the prompt alone; metrics of teacher-forced predictions would flatter the model.
Used while a model trains and by `datagen train eval`.
"""

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.llm.local.generation import Generated, context_length, generate
from datagen.records.record import Record
from datagen_train.data.encode import Encoder
from datagen_train.models.tokens import turn_end_ids
from datagen_train.run.metrics import classification, closed_labels, exact_match, mean, rouge


@dataclass(frozen=True)
class Answers:
    """The answers of a model, and the rows with the expected ones."""

    rows: list[Record]
    generated: list[Generated]

    @property
    def texts(self) -> list[str]:
        return [answer.text for answer in self.generated]


def evaluate_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Record],
    *,
    max_tokens: int,
    batch_size: int,
    limit: int | None = None,
) -> dict[str, float]:
    """Answer the first `limit` prompts of rows with responses, and compare: how trainers measure while they train."""
    encoder = Encoder(tokenizer, turn_end_ids(model, tokenizer), context_length(model))
    answered = [row for row in rows if row.response is not None][:limit]
    answers = answer_prompts(model, encoder, answered, max_tokens=max_tokens, batch_size=batch_size)
    return measure(answers) if answered else {}


def answer_prompts(
    model: PreTrainedModel, encoder: Encoder, rows: list[Record], *, max_tokens: int, batch_size: int
) -> Answers:
    """Answer the prompts of rows greedily."""
    prompts = [encoder.prompt(row.prompt) for row in rows]
    return Answers(rows, generate(model, encoder.tokenizer, prompts, max_tokens=max_tokens, batch_size=batch_size))


def measure(answers: Answers, *, ignore_case: bool = False) -> dict[str, float]:
    """Compare answers with the expected ones; `ended` is the share that ended by itself."""
    predicted, expected = answers.texts, [row.response or "" for row in answers.rows]
    labels = closed_labels(expected)
    return {
        "exact_match": exact_match(predicted, expected, ignore_case=ignore_case),
        **rouge(predicted, expected),
        "ended": mean([answer.finish_reason == "stop" for answer in answers.generated]),
        **(classification(predicted, expected, labels) if labels else {}),
    }
