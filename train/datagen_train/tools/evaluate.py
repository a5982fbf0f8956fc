"""`datagen train eval`: what a model makes of rows that it was not trained on: their loss, and answers of its own.

The loss is the mean over all trained tokens of all rows, whatever the batches. Answers are generated greedily from the
prompt alone; metrics of teacher-forced predictions would flatter. Looking leaves no trace in the model or in chance.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.local.generation import Generated, context_length, generate, in_batches, inference_mode, open_model
from datagen.records.files import dump_line, open_input
from datagen.records.reader import DOCUMENTS, PROMPTS, Reader
from datagen.records.record import BadLine, Document, Record
from datagen_train.data.encode import IGNORED, Encoded, Encoder, UnusableRow, conversation, is_held_out, split_group
from datagen_train.models.load import Loaded, load, pick_dtype
from datagen_train.models.reward_model import is_reward_model
from datagen_train.models.tokens import attention_mask, fit_tokenizer, pad, turn_end_ids
from datagen_train.options import ModelOptions
from datagen_train.rewards.specs import Rewards
from datagen_train.tools import evaluate_reward
from datagen_train.tools.metrics import classification, closed_labels, exact_match, mean, normalise, rouge

MOST_LOGITS = 1 << 28
"""Numbers in the logits of a batch: 1 GiB in float32."""
MEASURE, DATA, MODEL = "Measurement", "Data", "Model"


@dataclass(frozen=True)
class Options:
    """What `datagen train eval` can be told."""

    output: str | None = option(None, "Write every answer, beside what was expected, to this file.", short="-o")
    format: str | None = option(None, "What shape the data has. [detected]", panel=DATA)
    limit: int | None = option(None, "Read only the first so many rows.", least=1, panel=DATA)
    held_out: float | None = option(
        None, "Use only the prompts that training with this --held-out kept apart.", least=0, most=1, panel=DATA
    )
    documents: bool = option(False, "The data are documents: measure their loss alone.", panel=DATA)
    max_length: int = option(1024, "Longest sequence in tokens; longer ones are cut and counted.", least=8, panel=DATA)
    generate: int | None = option(None, "Prompts to answer, the first ones; 0 for none. [all]", least=0, panel=MEASURE)
    max_tokens: int = option(256, "The longest answer in tokens.", least=1, panel=MEASURE)
    reward: list[str] = option(
        [], "Also score the answers, as datagen train ppo does; repeat it to add rewards up.", panel=MEASURE
    )
    ignore_case: bool = option(False, "Count answers as exact that differ in upper and lower case.", panel=MEASURE)
    batch_size: int = option(32, "Rows looked at together.", least=1, panel=MEASURE)
    dtype: str = option("auto", "Type of the weights: auto, float32 or bfloat16.", panel=MODEL)


@dataclass(frozen=True)
class Answers:
    """What a model answered, beside what was expected."""

    rows: list[Record]
    made: list[Generated]

    @property
    def predicted(self) -> list[str]:
        return [each.text for each in self.made]

    @property
    def expected(self) -> list[str]:
        return [row.response or "" for row in self.rows]


def run(model: str, data: str, options: Options) -> dict[str, Any]:
    """Measure a model on a file of rows."""
    if is_reward_model(model):
        return evaluate_reward.run(model, data, options)
    loaded = load_trained(model, options.dtype)
    longest = min(options.max_length, context_length(loaded.model))
    encoder = Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), longest)
    rows, unreadable = read(data, options)
    encoded, dropped = encode(rows, encoder)
    if not encoded:
        raise InputError(f"{data}: no row is left to measure on: {dict(dropped)}")
    loss = sequence_loss(loaded.model, encoded, options.batch_size)
    result: dict[str, Any] = {
        "rows": len(rows),
        "unreadable": unreadable,
        "dropped": dict(sorted(dropped.items())),
        "cut": sum(each.cut for each in encoded),
        "trained_tokens": sum(each.trained for each in encoded),
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
    }
    answered = [row for row in rows if isinstance(row, Record) and row.response is not None][: options.generate]
    return result | (answer_and_measure(loaded, encoder, answered, options) if answered else {})


def load_trained(spec: str, dtype: str) -> Loaded:
    """Load a folder, an adapter on its base, or a hub name, onto the device at hand."""
    if spec == "tiny" or spec.startswith("tiny:"):
        raise InputError(f"model {spec}: is made from nothing; name the folder of a trained one")
    path, options = Path(spec.removeprefix("hf:")), ModelOptions(dtype=dtype)
    if not path.is_dir():
        loaded = load(spec, options, [], 0)
        loaded.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        return loaded
    model, tokenizer = open_model(path, dtype=pick_dtype(options))
    return Loaded(model, tokenizer, fit_tokenizer(model, tokenizer))


def read(data: str, options: Options) -> tuple[list[Record | Document], int]:
    """Return the rows to measure on, and how many lines could not be used."""
    rows: list[Record | Document] = []
    unreadable = 0
    kind: Any = DOCUMENTS if options.documents else PROMPTS
    with open_input(data) as file:
        for item in Reader(data, file, kind, options.format).read():
            if isinstance(item, BadLine):
                unreadable += 1
            elif options.held_out is None or is_held_out(split_group(item), options.held_out):
                rows.append(item)
            if options.limit is not None and len(rows) == options.limit:
                break
    return rows, unreadable


def encode(rows: Iterable[Record | Document], encoder: Encoder) -> tuple[list[Encoded], Counter[str]]:
    """Encode rows as they are trained on; count the reasons why some cannot be."""
    encoded: list[Encoded] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        try:
            encoded += encoder.document(row.text) if isinstance(row, Document) else [encoder.turns(conversation(row))]
        except UnusableRow as reason:
            dropped[str(reason)] += 1
    return encoded, dropped


def sequence_loss(model: PreTrainedModel, encoded: Sequence[Encoded], batch_size: int) -> float:
    """Return the mean loss over the trained tokens of all sequences; not a number where there is none."""
    total, count = 0.0, 0
    most = MOST_LOGITS // max(1, int(model.config.get_text_config().vocab_size))
    with inference_mode(model):
        for batch in in_batches([len(each.ids) for each in encoded], batch_size, most):
            summed, tokens = _batch_loss(model, [encoded[i] for i in batch])
            total, count = total + summed, count + tokens
    return total / count if count else math.nan


def _batch_loss(model: PreTrainedModel, batch: list[Encoded]) -> tuple[float, int]:
    """Return the sum of the losses, and of how many tokens: the first of a sequence is never predicted."""
    sequences = [sequence.ids for sequence in batch]
    labels = pad([sequence.labels for sequence in batch], IGNORED).to(model.device)
    ids, mask = pad(sequences, 0).to(model.device), attention_mask(sequences).to(model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    targets = labels[:, 1:].flatten()
    loss = cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum")
    return float(loss), int((targets != IGNORED).sum())


def evaluate_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Record],
    *,
    max_tokens: int,
    batch_size: int,
    limit: int | None,
) -> dict[str, float]:
    """Answer the prompts of the first `limit` rows that have a response, and compare; for trainers in training."""
    encoder = Encoder(tokenizer, turn_end_ids(model, tokenizer), context_length(model))
    asked = [row for row in rows if row.response is not None][:limit]
    answers = answer(model, encoder, asked, max_tokens=max_tokens, batch_size=batch_size)
    return measure(answers) if asked else {}


def answer(
    model: PreTrainedModel, encoder: Encoder, rows: list[Record], *, max_tokens: int, batch_size: int
) -> Answers:
    """Answer the rows' prompts greedily."""
    prompts = [encoder.prompt(row.prompt) for row in rows]
    return Answers(rows, generate(model, encoder.tokenizer, prompts, max_tokens=max_tokens, batch_size=batch_size))


def measure(answers: Answers, *, ignore_case: bool = False) -> dict[str, float]:
    """Compare answers with what was expected; `ended` is the share that was not cut."""
    predicted, expected = answers.predicted, answers.expected
    labels = closed_labels(expected)
    return {
        "exact_match": exact_match(predicted, expected, ignore_case=ignore_case),
        **rouge(predicted, expected),
        "ended": mean([each.finish_reason == "stop" for each in answers.made]),
        **(classification(predicted, expected, labels) if labels else {}),
    }


def answer_and_measure(loaded: Loaded, encoder: Encoder, rows: list[Record], options: Options) -> dict[str, Any]:
    """Answer, measure, and write the answers down if that is wanted."""
    answers = answer(loaded.model, encoder, rows, max_tokens=options.max_tokens, batch_size=options.batch_size)
    if options.output is not None:
        Path(options.output).write_bytes(b"".join(map(dump_line, _told(answers, options.ignore_case))))
    compared = measure(answers, ignore_case=options.ignore_case)
    return {"answered": len(rows), **compared, **(rewarded(answers, options.reward) if options.reward else {})}


def rewarded(answers: Answers, specs: Sequence[str]) -> dict[str, Any]:
    """Score answers by rewards: a reward that rises while the answers get worse is exploited."""
    with Rewards(specs) as rewards:
        scored = rewards.score(answers.rows, answers.predicted, [each.ids for each in answers.made])
    known = [score for score in scored.total if score is not None]
    return {"reward": mean(known) if known else None, "unscored": len(answers.rows) - len(known)}


def _told(answers: Answers, ignore_case: bool) -> Iterator[dict[str, Any]]:
    for row, made in zip(answers.rows, answers.made, strict=True):
        same = normalise(made.text, ignore_case=ignore_case) == normalise(row.response or "", ignore_case=ignore_case)
        told = {"id": row.id, "prompt": row.prompt, "expected": row.response, "answer": made.text}
        yield told | {"exact": same, "finish_reason": made.finish_reason}
