"""`datagen train eval`: measure a model on rows that it was not trained on: the loss, and answers that it generates.

The loss is the mean over all trained tokens of all rows, whatever the batches. Answers are generated greedily from the
prompt alone; metrics of teacher-forced predictions would flatter the model. Measuring changes neither the model nor the
state of the random generators.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from datagen.engine.options import file_values, template_values
from datagen.errors import InputError
from datagen.llm.local.generation import context_length, in_batches, inference_mode, open_model
from datagen.llm.local.hub import resolve_model
from datagen.llm.local.weights import is_classifier, language_model
from datagen.printing import printable
from datagen.records.columns import parse_map
from datagen.records.files import check_folder, dump_line, open_file, open_input, replace_file
from datagen.records.labelled import LABELLED
from datagen.records.lines import json_lines
from datagen.records.places import paths_in, refuse_overlap
from datagen.records.ranked import RANKED
from datagen.records.reader import DOCUMENTS, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Record
from datagen_train.data.encode import IGNORED, Encoded, Encoder, encode_row
from datagen_train.data.labels import encode_labelled
from datagen_train.data.rankings import RankingEncoder
from datagen_train.data.split import Account, encode_usable, is_held_out, split_group
from datagen_train.data.trained import trained_by, was_trained_on
from datagen_train.models.classifier import open_classifier
from datagen_train.models.load import Loaded, pick_dtype
from datagen_train.models.reward_model import is_reward_model, label_logits, raw_scores
from datagen_train.models.template import set_defaults
from datagen_train.models.tokens import attention_mask, fit_tokenizer, pad, turn_end_ids
from datagen_train.options import ModelOptions
from datagen_train.rewards.reward_model import load_reward
from datagen_train.rewards.specs import Rewards
from datagen_train.run.impartial import refuse_partial_judges
from datagen_train.run.label_metrics import by_label, measure_labels
from datagen_train.run.metrics import Answers, answer_prompts, mean, measure, normalise
from datagen_train.run.reward_report import describe, verdict
from datagen_train.tools.options import EvalOptions

ANSWER_KEYS = ("id", "prompt", "expected", "answer", "exact", "finish_reason")
"""The keys of a line of -o."""
MAX_LOGITS = 1 << 28
"""Elements of the logits of a batch: 1 GiB in float32."""


def run(model: str, data: str, options: EvalOptions) -> dict[str, Any]:
    """Measure a model on a file of rows; return the metrics by name."""
    if options.output is not None:
        check_folder(Path(options.output))
        refuse_overlap([Path(options.output)], paths_in([model, data, file_values(options)]))
        refuse_stranger(Path(options.output))
    if is_reward_model(model):
        return evaluate_reward(model, data, options)
    if model.partition(":")[0] != "tiny" and is_classifier(folder := resolve_model(model)):
        return evaluate_classifier(folder, data, options)
    refuse_partial_judges(options.reward, model, allow_self=options.allow_self)
    loaded = load_trained(model, options.dtype, options.chat_template_kwargs)
    max_length = min(options.max_length, context_length(loaded.model))
    encoder = Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), max_length, options.reasoning)
    rows, counts = read(data, DOCUMENTS if options.documents else PROMPTS, model, options)

    # 1. The loss of the rows, encoded as for training.
    encoded, dropped = encode_usable(rows, lambda row: encode_row(encoder, row))
    if not encoded:
        raise InputError(f"{data}: no row is left to measure on: {Account(dropped=dropped).losses()}")
    loss = sequence_loss(loaded.model, encoded, options.batch_size)
    result: dict[str, Any] = {
        **counts,
        "dropped": dict(sorted(dropped.items())),
        "cut": sum(sequence.cut for sequence in encoded),
        "trained_tokens": sum(sequence.trained for sequence in encoded),
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
    }

    # 2. Greedy answers, compared with the responses of the rows.
    answered = [row for row in rows if isinstance(row, Record) and row.response is not None and row.label is not False]
    answered = answered[: options.generate]
    if not answered:
        return result
    answers = answer_prompts(
        loaded.model, encoder, answered, max_tokens=options.max_tokens, batch_size=options.batch_size
    )
    if options.output is not None:
        write_answers(Path(options.output), answers, options.ignore_case)
    result |= {"answered": len(answers.rows), **measure(answers, ignore_case=options.ignore_case)}

    # 3. Rewards of the answers: one that rises while the answers get worse is exploited.
    if options.reward:
        with Rewards(options.reward) as rewards:
            scored = rewards.score(answers.rows, answers.texts, [answer.ids for answer in answers.generated])
        known = [score for score in scored.total if score is not None]
        result |= {"reward": mean(known) if known else None, "unscored": len(answers.rows) - len(known)}
    return result


def evaluate_reward(folder: str, data: str, options: EvalOptions) -> dict[str, Any]:
    """Measure a reward model on a file of rankings; return how often it is right, by source, and the verdict."""
    reward = load_reward(folder)
    rows, counts = read(data, RANKED, folder, options)
    encoder = RankingEncoder(reward.encoder)
    rankings, dropped = encode_usable(rows, lambda row: [encoder.encode(row)])
    if not rankings:
        raise InputError(f"{data}: no row is left to measure on: {Account(dropped=dropped).losses()}")
    answers = [ids for ranking in rankings for ids in ranking.answers]
    scores = raw_scores(reward.model, answers, pad_id=reward.contract.pad, batch_size=options.batch_size)
    metrics = describe(rankings, scores / reward.contract.gain, seed=0)
    return {
        **counts,
        "dropped": dict(sorted(dropped.items())),
        "left_out": dict(sorted(encoder.left_out.items())),
        **metrics,
        "verdict": trained_verdict(counts) if counts["trained_on"] else verdict(metrics),
    }


def evaluate_classifier(folder: Path, data: str, options: EvalOptions) -> dict[str, Any]:
    """Measure a classifier on a file of labelled texts; return loss, accuracy, macro F1 and the quality of each label.

    Raises:
        InputError: no row can be measured on, or one has a label that the classifier does not know.
    """
    model, tokenizer, labels = open_classifier(str(folder), pick_dtype(ModelOptions(dtype=options.dtype)))
    numbers = {label: number for number, label in enumerate(labels)}
    rows, counts = read(data, LABELLED, str(folder), options)
    longest = min(options.max_length, context_length(model))
    examples, dropped = encode_usable(rows, lambda row: [encode_labelled(tokenizer, row, numbers, longest)])
    if not examples:
        raise InputError(f"{data}: no row is left to measure on: {Account(dropped=dropped).losses()}")
    texts = [example.ids for example in examples]
    logits = label_logits(model, texts, pad_id=model.config.pad_token_id, batch_size=options.batch_size)
    qualities = by_label(logits, examples, labels)
    return {
        **counts,
        "dropped": dict(sorted(dropped.items())),
        "cut": sum(example.cut for example in examples),
        **measure_labels(logits, examples, labels),
        "labels": {label: vars(quality) for label, quality in qualities.items()},
    }


def trained_verdict(counts: dict[str, Any]) -> str:
    """Say that rows that were trained on tell nothing."""
    return f"Good enough for PPO? Unknown: {counts['trained_on']} of {counts['rows']} rows were trained on."


def load_trained(spec: str, dtype: str, chat_template_kwargs: str | None = None) -> Loaded:
    """Load a folder, an adapter on its base, or a hub name, onto the GPU if there is one."""
    if spec == "tiny" or spec.startswith("tiny:"):
        raise InputError(f"model {spec}: is untrained; name the folder of a trained model")
    model, tokenizer = open_model(language_model(spec), dtype=pick_dtype(ModelOptions(dtype=dtype)))
    notes = fit_tokenizer(model, tokenizer)
    set_defaults(tokenizer, template_values(chat_template_kwargs))
    return Loaded(model, tokenizer, notes)


def read(data: str, kind: Kind[Any], model: str, options: EvalOptions) -> tuple[list[Any], dict[str, Any]]:
    """Return the rows to measure on, and counts for the result.

    Raises:
        InputError: all rows were trained on.
    """
    trained, rows, left_out = trained_by(model), list[Any](), 0
    counts: dict[str, Any] = {"rows": 0, "unreadable": 0, "trained_on": 0}
    with open_input(data) as file:
        reader = Reader(data, file, kind, options.format, parse_map(options.map))
        for item in reader.read():
            if isinstance(item, BadLine):
                counts["unreadable"] += 1
                continue
            if options.held_out is not None and not is_held_out(split_group(item), options.held_out):
                continue
            is_trained = was_trained_on(item, trained)
            if is_trained and not options.all:
                left_out += 1
                continue
            rows.append(item)
            counts["trained_on"] += is_trained
            if len(rows) == options.limit:
                break
    for line in reader.account.lines():
        print(printable(line), file=sys.stderr)
    if left_out and not rows:
        raise InputError(f"{data}: all {left_out} rows were trained on; name other rows, or measure these with --all")
    if left_out:
        most = left_out + len(rows)
        note = f"{left_out} of {most} rows were trained on and are left out; --all measures them, too"
        print(printable(note), file=sys.stderr)
    return rows, {**counts, "rows": len(rows), "left_out_as_trained_on": left_out}


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


def refuse_stranger(path: Path) -> None:
    """Raise InputError if a file is there that holds something else than answers of an earlier measurement."""
    if not path.exists():
        return
    with open_file(str(path)) as file:
        first = next(json_lines(str(path), file), None)
    if first is not None and tuple(first.row or ()) != ANSWER_KEYS:
        raise InputError(f"-o {path}: exists and holds no answers of 'datagen train eval'; choose another -o")


def write_answers(path: Path, answers: Answers, ignore_case: bool) -> None:
    """Write one JSON line per answer, with the expected one."""
    lines = []
    for row, expected, answer in zip(answers.rows, answers.expected, answers.generated, strict=True):
        texts = [normalise(text, ignore_case=ignore_case) for text in (answer.text, expected)]
        values = (row.id, row.prompt, expected, answer.text, texts[0] == texts[1], answer.finish_reason)
        lines.append(dump_line(dict(zip(ANSWER_KEYS, values, strict=True))))
    replace_file(path, b"".join(lines))
