"""Classification: learn the label of a text.

A linear head on the model's last hidden states gives one logit for each label, and the loss is the cross-entropy

    L = - mean over rows of  w_y  log softmax(logits)_y

where w_y is 1, or with --balance  rows / (labels * rows of the label): then a rare label counts as much as a frequent
one. The labels are those of the rows. The folder is one of the library's classifiers: `pipeline` loads it, and a reward
may be a label of it (`--reward classifier:FOLDER#LABEL`). Adapters are merged when it is saved.

To learn labels as text instead, so that a chat model answers with them, train the same rows by sft.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments, set_seed

from datagen.errors import InputError
from datagen.llm.local.generation import context_length
from datagen.records.labelled import LABELLED, Labelled
from datagen.report.markdown import code
from datagen_train.data.labels import LabelledExample, collate_labelled, encode_labelled, encode_text
from datagen_train.data.layouts import LABELLED_TEXTS
from datagen_train.data.sources import Data
from datagen_train.data.split import Split
from datagen_train.models.classifier import load_classifier, without_adapters
from datagen_train.models.load import HEADS, choose_trained, count_parameters
from datagen_train.models.precision import held_in
from datagen_train.models.reward_model import Numbers, label_logits
from datagen_train.options import ClassifyOptions, TrainOptions
from datagen_train.rates import Rates
from datagen_train.run.label_metrics import by_label, measure_labels, quality_table
from datagen_train.run.progress import Terminal
from datagen_train.run.session import Metrics, Session, open_session
from datagen_train.run.steps import Watched
from datagen_train.run.whole_batch import WholeBatch

RATES = Rates(full=2e-5, lora=2e-4, tiny=2e-3, toy_steps=60)
"""BERT (arXiv 1810.04805, appendix A.3): 2e-5 to 5e-5, 2 to 4 epochs."""
FEW_LABELS = 20
"""So many may be those of any file; of more than that, each must be the label of two rows on average."""
EXAMPLE = "Read this and name its label."
USAGE = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", model=".")
print(classify("{text}"))  # {label}: {share:.4f}
```"""


def run(data: Data, training: TrainOptions, options: ClassifyOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on files of labelled texts; return the report."""
    with open_session("classify", data, LABELLED, training, options, RATES, terminal) as session:
        # 1. Read the rows: their labels are those of the head.
        rows: list[Labelled] = session.read()
        labels = read_labels(str(session.sources), rows)
        load_model(session, rows, labels)

        # 2. Encode the texts, hold some out, and check.
        longest = min(training.max_length, context_length(session.loaded.model))
        numbers = {label: number for number, label in enumerate(labels)}
        split = session.encode(
            rows,
            lambda row: [encode_labelled(session.loaded.tokenizer, row, numbers, longest)],
            LABELLED_TEXTS,
            labels=labels,
            longest=longest,
        )
        check(session, split, labels)

        # 3. Train; then measure each label.
        weights = balance(split.train, len(labels)) if options.balance else torch.ones(len(labels))
        trainer = ClassifyTrainer(session, split, labels, weights)
        return session.train(
            trainer,
            partial(check_start, session=session, labels=len(labels)),
            lambda start, end: describe(trainer, split, labels, longest),
            decides="eval_accuracy",
        )


def read_labels(data: str, rows: Sequence[Labelled]) -> list[str]:
    """Return the labels of the rows in the order of the alphabet; raise InputError if these are no labels."""
    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        raise InputError(f"{data}: every row has the label {labels[0]!r}; a classifier needs two")
    if len(labels) > max(FEW_LABELS, len(rows) // 2):
        raise InputError(f"{data}: {len(labels)} labels in {len(rows)} rows: these are no labels; answers go to sft")
    return labels


def load_model(session: Session, rows: Sequence[Labelled], labels: Sequence[str]) -> None:
    """Load the model with a new head into the session, and choose which parameters are trained."""
    options = session.options
    session.terminal.phase("loading the model")
    set_seed(options.seed)
    loaded = load_classifier(options.model, options.model_options, (row.prompt for row in rows), labels, options.seed)
    for note in loaded.notes:
        session.terminal.say(note)
    loaded.model = choose_trained(loaded.model, options.model_options)
    for name, parameter in loaded.model.named_parameters():
        if name.startswith(HEADS):  # new, so it is trained even where layers are frozen
            parameter.requires_grad_(True)
    session.loaded = loaded


def check(session: Session, split: Split[Labelled, LabelledExample], labels: Sequence[str]) -> None:
    """Report how the labels are spread, which of them are not trained on, and what is trained."""
    session.terminal.phase("checking")
    counts = Counter(example.label for example in split.train)
    number, rare = min((counts[number], label) for number, label in enumerate(labels))
    session.report_check("labels", f"{len(labels)}; the rarest, {rare}, has {number} of {len(split.train)} rows")
    if missing := [label for number, label in enumerate(labels) if not counts[number]]:
        session.terminal.say(
            f"warning: {len(missing)} labels, such as {missing[0]}, are not learned: all their rows are held out; "
            "give more of them, or name --eval-data"
        )
    trained, total = count_parameters(session.loaded.model)
    session.report_check("trained", f"{trained:,} of {total:,} parameters")
    session.report_check("length", f"{session.account.cut} cut, {session.account.dropped.total()} dropped")


def balance(examples: Sequence[LabelledExample], labels: int) -> Tensor:
    """Return weights of the labels, (labels,), under which each counts the same; their mean over the rows is 1.

    A label without a row, all of which are held out, has weight 0.
    """
    counts = Counter(example.label for example in examples)
    weights = [len(examples) / (len(counts) * counts[label]) if counts[label] else 0.0 for label in range(labels)]
    return torch.tensor(weights)


class ClassifyTrainer(WholeBatch, Watched):
    """Learns labels, and measures on the held-out texts."""

    def __init__(
        self, session: Session, split: Split[Labelled, LabelledExample], labels: Sequence[str], weights: Tensor
    ) -> None:
        pad_id = session.loaded.tokenizer.pad_token_id
        assert isinstance(pad_id, int)
        self.pad_id, self.labels, self.weights = pad_id, labels, weights
        self._tokens: Any = 0
        """Read so far in this process; a tensor of the device, so that no step waits for it."""
        super().__init__(
            model=session.loaded.model,
            args=TrainingArguments(**session.arguments(split), remove_unused_columns=False),
            data_collator=partial(collate_labelled, pad_id=pad_id),
            processing_class=session.loaded.tokenizer,
            train_dataset=split.train,
            eval_dataset=split.held_out or None,
        )

    def count(self, inputs: dict[str, Any]) -> tuple[int, int]:
        return len(inputs["labels"]), 0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"]
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        losses = cross_entropy(output.logits.float(), labels, reduction="none")
        self._tokens = self._tokens + inputs["attention_mask"].sum()
        loss = (self.weights.to(labels.device)[labels] * losses).mean()
        loss = self.weigh(loss, inputs) if model.training else loss
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the tokens read so far, from which the speed follows."""
        if "loss" in logs:
            logs |= {"num_tokens": float(self._tokens) * self.args.world_size}
        super().log(logs, *args, **kwargs)

    def predict_logits(self, examples: Sequence[LabelledExample]) -> Numbers:
        """Return the logits of texts, of shape (texts, labels)."""
        model: Any = self.model
        texts = [example.ids for example in examples]
        return label_logits(model, texts, pad_id=self.pad_id, batch_size=self.args.eval_batch_size)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure loss, accuracy and macro F1 on the held-out texts; every process measures on all of them."""
        examples: Any = self.eval_dataset
        measured = measure_labels(self.predict_logits(examples), examples, self.labels)
        metrics = {f"eval_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a checkpoint if the library calls, else the whole model, its adapters merged."""
        if _internal_call or not self.is_world_process_zero():
            return super().save_model(output_dir, _internal_call)
        model = without_adapters(self.accelerator.unwrap_model(self.model))
        with held_in(model, self.saved_dtype):
            model.save_pretrained(output_dir)
        self.processing_class.save_pretrained(output_dir)
        return None


def check_start(start: Metrics, session: Session, labels: int) -> None:
    """Say what the new head knows before the first step: nothing, so the loss is about that of a guess."""
    if "eval_loss" in start:
        session.report_check("untrained", f"loss {start['eval_loss']:.3f}, by a guess {log(labels):.3f}")


def describe(
    trainer: ClassifyTrainer, split: Split[Labelled, LabelledExample], labels: Sequence[str], longest: int
) -> dict[str, Any]:
    """Return what joins the report: the quality of each label, and how to use the model."""
    shown = split.held_out or split.train
    qualities = by_label(trainer.predict_logits(shown), shown, labels)
    measured = "Measured on the held-out texts:" if split.held_out else "Measured on the texts that were trained on:"
    return {
        "labels": {label: vars(quality) for label, quality in qualities.items()},
        "about": [measured, quality_table(qualities), *usage(trainer, labels, longest)],
    }


def usage(trainer: ClassifyTrainer, labels: Sequence[str], longest: int) -> list[str]:
    """Return paragraphs for the card: how to use the model with transformers alone, and what to expect."""
    tokenizer: Any = trainer.processing_class
    ids, _ = encode_text(tokenizer, EXAMPLE, longest)
    shares = torch.from_numpy(trainer.predict_logits([LabelledExample(ids, 0, False)]))[0].softmax(0)
    best = int(shares.argmax())
    label = code(labels[best])
    return [
        "A label with transformers alone:",
        USAGE.format(text=EXAMPLE, label=label, share=float(shares[best])),
    ]
