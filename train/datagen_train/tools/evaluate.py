"""`datagen train eval`: measure a model on rows that it was not trained on: the loss, and answers that it generates.

The loss is the mean over all trained tokens of all rows, whatever the batches. Answers are generated greedily from the
prompt alone; metrics of teacher-forced predictions would flatter the model. Measuring changes neither the model nor the
state of the random generators.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.local.generation import context_length, in_batches, inference_mode, open_model
from datagen.records.files import dump_line, open_input
from datagen.records.ranked import RANKED
from datagen.records.reader import DOCUMENTS, PROMPTS, Reader
from datagen.records.record import BadLine, Document, Record
from datagen_train.data.encode import IGNORED, Encoded, Encoder, encode_row
from datagen_train.data.rankings import RankingEncoder
from datagen_train.data.split import encode_usable, is_held_out, read_rows, split_group
from datagen_train.models.load import Loaded, load, pick_dtype
from datagen_train.models.reward_model import is_reward_model, raw_scores
from datagen_train.models.tokens import attention_mask, fit_tokenizer, pad, turn_end_ids
from datagen_train.options import ModelOptions
from datagen_train.rewards.reward_model import load_reward
from datagen_train.rewards.specs import Rewards
from datagen_train.run.metrics import Answers, answer_prompts, mean, measure, normalise

MAX_LOGITS = 1 << 28
"""Elements of the logits of a batch: 1 GiB in float32."""
MEASURE, DATA, MODEL = "Measurement", "Data", "Model"


@dataclass(frozen=True)
class Options:
    """Options of `datagen train eval`."""

    output: str | None = option(None, "File for the generated answers, each with its reference answer.", short="-o")
    format: str | None = option(None, "Format of the data. [detected]", panel=DATA)
    limit: int | None = option(None, "Read only the first N rows.", least=1, panel=DATA)
    held_out: float | None = option(
        None, "Use only the rows that training with the same --held-out holds out.", least=0, most=1, panel=DATA
    )
    documents: bool = option(False, "The data are documents: measure only the loss.", panel=DATA)
    max_length: int = option(
        1024, "Maximum sequence length in tokens; longer ones are cut and counted.", least=8, panel=DATA
    )
    generate: int | None = option(None, "Answer only the first N prompts; 0 = none. [all]", least=0, panel=MEASURE)
    max_tokens: int = option(256, "Maximum length of an answer in tokens.", least=1, panel=MEASURE)
    reward: list[str] = option(
        [], "Reward of the answers, as in 'datagen train ppo'. Repeat it for a weighted sum.", panel=MEASURE
    )
    ignore_case: bool = option(False, "Ignore case in exact-match accuracy.", panel=MEASURE)
    batch_size: int = option(32, "Rows per batch.", least=1, panel=MEASURE)
    dtype: str = option("auto", "Data type of the weights: auto, float32 or bfloat16.", panel=MODEL)


def run(model: str, data: str, options: Options) -> dict[str, Any]:
    """Measure a model on a file of rows; return the metrics by name."""
    if is_reward_model(model):
        return evaluate_reward(model, data, options)
    loaded = load_trained(model, options.dtype)
    max_length = min(options.max_length, context_length(loaded.model))
    encoder = Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), max_length)
    rows, unreadable = read(data, options)

    # 1. The loss of the rows, encoded as for training.
    encoded, dropped = encode_usable(rows, lambda row: encode_row(encoder, row))
    if not encoded:
        raise InputError(f"{data}: no row is left to measure on: {dict(dropped)}")
    loss = sequence_loss(loaded.model, encoded, options.batch_size)
    result: dict[str, Any] = {
        "rows": len(rows),
        "unreadable": unreadable,
        "dropped": dict(sorted(dropped.items())),
        "cut": sum(sequence.cut for sequence in encoded),
        "trained_tokens": sum(sequence.trained for sequence in encoded),
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
    }

    # 2. Greedy answers, compared with the responses of the rows.
    answered = [row for row in rows if isinstance(row, Record) and row.response is not None][: options.generate]
    if not answered:
        return result
    answers = answer_prompts(
        loaded.model, encoder, answered, max_tokens=options.max_tokens, batch_size=options.batch_size
    )
    if options.output is not None:
        write_answers(Path(options.output), answers, options.ignore_case)
    result |= {"answered": len(answered), **measure(answers, ignore_case=options.ignore_case)}

    # 3. Rewards of the answers: one that rises while the answers get worse is exploited.
    if options.reward:
        with Rewards(options.reward) as rewards:
            scored = rewards.score(answers.rows, answers.texts, [answer.ids for answer in answers.generated])
        known = [score for score in scored.total if score is not None]
        result |= {"reward": mean(known) if known else None, "unscored": len(answered) - len(known)}
    return result


def evaluate_reward(folder: str, data: str, options: Options) -> dict[str, Any]:
    """Measure a reward model on a file of rankings; return how often it is right, by source, and the verdict."""
    from datagen_train.reward import describe, verdict  # loads TRL, which nothing else here needs

    reward = load_reward(folder)
    rows, unreadable = read_rows(data, RANKED, options.format)
    share = options.held_out
    rows = [row for row in rows if share is None or is_held_out(split_group(row), share)][: options.limit]
    encoder = RankingEncoder(reward.encoder)
    rankings, dropped = encode_usable(rows, lambda row: [encoder.encode(row)])
    if not rankings:
        raise InputError(f"{data}: no row is left to measure on: {dict(dropped)}")
    answers = [ids for ranking in rankings for ids in ranking.answers]
    raw = raw_scores(reward.model, answers, pad_id=reward.contract.pad, batch_size=options.batch_size)
    metrics = describe(rankings, raw, seed=0)
    return {
        "rows": len(rows),
        "unreadable": unreadable,
        "dropped": dict(sorted(dropped.items())),
        "left_out": dict(sorted(encoder.left_out.items())),
        **metrics,
        "verdict": verdict(metrics),
    }


def load_trained(spec: str, dtype: str) -> Loaded:
    """Load a folder, an adapter on its base, or a hub name, onto the GPU if there is one."""
    if spec == "tiny" or spec.startswith("tiny:"):
        raise InputError(f"model {spec}: is untrained; name the folder of a trained model")
    path, options = Path(spec.removeprefix("hf:")), ModelOptions(dtype=dtype)
    if not path.is_dir():
        loaded = load(spec, options, [], 0)
        loaded.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        return loaded
    model, tokenizer = open_model(path, dtype=pick_dtype(options))
    return Loaded(model, tokenizer, fit_tokenizer(model, tokenizer))


def read(data: str, options: Options) -> tuple[list[Record | Document], int]:
    """Return the rows to measure on, and the number of lines that cannot be used."""
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


def sequence_loss(model: PreTrainedModel, encoded: Sequence[Encoded], batch_size: int) -> float:
    """Return the mean cross-entropy in nats over the trained tokens of all sequences; NaN without any."""
    total, count = 0.0, 0
    max_tokens = MAX_LOGITS // max(1, int(model.config.get_text_config().vocab_size))
    with inference_mode(model):
        for batch in in_batches([len(sequence.ids) for sequence in encoded], batch_size, max_tokens):
            loss, tokens = batch_loss(model, [encoded[i] for i in batch])
            total, count = total + loss, count + tokens
    return total / count if count else math.nan


def batch_loss(model: PreTrainedModel, batch: list[Encoded]) -> tuple[float, int]:
    """Return the sum of the losses of a batch, and its number of predicted tokens with a loss."""
    sequences = [sequence.ids for sequence in batch]
    ids, mask = pad(sequences, 0).to(model.device), attention_mask(sequences).to(model.device)
    labels = pad([sequence.labels for sequence in batch], IGNORED).to(model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    targets = labels[:, 1:].flatten()  # the first token of a sequence is never predicted
    loss = cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum")
    return float(loss), int((targets != IGNORED).sum())


def write_answers(path: Path, answers: Answers, ignore_case: bool) -> None:
    """Write one JSON line per answer, with the expected one."""
    lines = []
    for row, answer in zip(answers.rows, answers.generated, strict=True):
        texts = [normalise(text, ignore_case=ignore_case) for text in (answer.text, row.response or "")]
        line = {"id": row.id, "prompt": row.prompt, "expected": row.response, "answer": answer.text}
        lines.append(dump_line(line | {"exact": texts[0] == texts[1], "finish_reason": answer.finish_reason}))
    path.write_bytes(b"".join(lines))
