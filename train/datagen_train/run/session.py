"""What every trainer does around its algorithm: read, load, encode, check, train or resume, save, report.

A trainer's file calls these in order, so that it reads from top to bottom; what is here is the same for all of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from math import ceil
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Protocol

import torch
from transformers import PrinterCallback, Trainer, TrainerState

from datagen.errors import InputError
from datagen.llm.local.weights import weights_digest
from datagen.records.files import dump_line, input_digest, open_input
from datagen.records.reader import Reader
from datagen.records.record import BadLine, Record
from datagen_train.data.checks import CheckInput, run_checks
from datagen_train.data.encode import Encoder
from datagen_train.data.split import Account, Example, Row, Split, encode_rows
from datagen_train.errors import Interrupted
from datagen_train.launch import is_main
from datagen_train.models.load import Loaded, choose_trained, count_parameters, load
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import Rates, TrainOptions
from datagen_train.run.folder import RunFolder, drop_later_lines, step_of
from datagen_train.run.report import makers, write_card, write_curves
from datagen_train.run.stops import disk_full_as_one_line, interruptible
from datagen_train.run.trl_adapter import (
    RunCallback,
    quality_metrics,
    quiet_libraries,
    refuse_unknown,
    shared_arguments,
)

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
NOT_SHAPING = ("output", "overwrite", "json", "quiet", "report_to", "keep")
"""Options that change nothing about the model."""
BAD_LINES_SHOWN = 5
MAX_EVAL_TOKENS_FACTOR = 4
"""Longest generated answer of a measurement, as a multiple of the longest expected one."""
Metrics = dict[str, float]
"""Numbers by name. Those measured on held-out rows begin with "eval_"."""


class Terminal(Protocol):
    """Whatever shows a run to a person (run/terminal.py; in tests a list)."""

    def say(self, text: str) -> None: ...

    def show(self, state: TrainerState, numbers: dict[str, Any]) -> None: ...


class Session:
    """One run of one trainer. Its methods are called in this order: read, load, encode, check, arguments, train.

    Attributes:
        name: the trainer, as on the command line.
        data: path of the rows.
        options: options of all trainers, with `epochs` filled in.
        rate: peak learning rate.
        terminal: where messages go.
        folder: where the run writes.
        account: what became of the rows and tokens, so far.
        loaded, encoder: model, tokenizer and encoder; set by `load`.
        findings: results of the checks by name, for the report.
    """

    def __init__(
        self, name: str, data: str, kind: Any, options: TrainOptions, algorithm: Any, rates: Rates, terminal: Terminal
    ) -> None:
        """See `open_session`."""
        self.name, self.data, self._kind, self._algorithm = name, data, kind, algorithm
        self.options = replace(options, epochs=options.epochs or rates.epochs)
        self.rate, self.terminal = rates.pick(options), terminal
        self.folder = RunFolder(Path(options.output or f"{Path(data).stem}.{name}"))
        self.account = Account()
        self.loaded: Loaded
        self.encoder: Encoder
        self.findings: dict[str, str] = {}

    def config(self) -> dict[str, Any]:
        """Return everything that decides the model: options, and digests of data and base model."""
        shaping = {name: value for name, value in asdict(self.options).items() if name not in NOT_SHAPING}
        with open_input(self.data) as file:
            data = input_digest(file)
        return {
            "command": f"train {self.name}",
            **shaping,
            **asdict(self._algorithm),
            **(self._algorithm.identity() if hasattr(self._algorithm, "identity") else {}),
            "learning_rate": self.rate,
            "model": model_identity(self.options.model),
            "data": data,
        }

    def read(self) -> list[Any]:
        """Read the rows; write lines that cannot be used to `run/dropped.jsonl`, each with the reason.

        Returns:
            At most `--limit` rows, of the record type that the trainer reads.

        Raises:
            InputError: the file cannot be read, or no row can be used.
        """
        rows: list[Any] = []
        dropped_file = self.folder.dropped if is_main() else Path(os.devnull)
        with open_input(self.data) as file, dropped_file.open("wb") as dropped:
            for item in Reader(self.data, file, self._kind, self.options.format).read():
                if isinstance(item, BadLine):
                    self.account.unreadable += 1
                    line = {"source": item.source, "line": item.line, "reason": item.reason, "raw": item.raw}
                    dropped.write(dump_line(line))
                    if self.account.unreadable <= BAD_LINES_SHOWN:
                        self.terminal.say(f"{item} (skipped)")
                elif self.options.limit is None or len(rows) < self.options.limit:
                    rows.append(item)
        self.account.read = len(rows) + self.account.unreadable
        for row in rows:
            self.account.makers.update(set(makers(row.meta)))
        if not rows:
            raise InputError(f"{self.data}: no row could be used")
        return rows

    def load(self, texts: Iterable[str], adapt: Callable[[Any], Any] = lambda model: model) -> Loaded:
        """Load the model and the tokenizer, and choose which parameters are trained.

        Args:
            texts: what the tokenizer of the model `tiny` is trained on.
            adapt: changes the model for the trainer, before LoRA and freezing.

        Raises:
            InputError: the model cannot be loaded, or the options do not fit it.
        """
        options = self.options
        if options.is_tiny and (options.lora or options.qlora):
            raise InputError("--lora adapts a trained model, and tiny is untrained: leave --lora out")
        self.loaded = load(options.model, options.model_options, texts, options.seed)
        for note in self.loaded.notes:
            self.terminal.say(note)
        ends = turn_end_ids(self.loaded.model, self.loaded.tokenizer)
        self.encoder = Encoder(self.loaded.tokenizer, ends, options.max_length)
        self.loaded.model = choose_trained(adapt(self.loaded.model), options.model_options)
        return self.loaded

    def encode(
        self,
        rows: Iterable[Row],
        encode: Callable[[Row], Iterable[Example]],
        measure: Callable[[Example], tuple[int, int, bool]],
    ) -> Split[Row, Example]:
        """Encode rows and hold some out; say how many were dropped and cut. For the arguments see `encode_rows`.

        Raises:
            InputError: no row is left to train on.
        """
        split = encode_rows(rows, encode, measure, self.account, self.options.held_out)
        if not split.train:
            raise InputError(f"{self.data}: no row is left to train on: {dict(self.account.dropped)}")
        account = self.account
        self.terminal.say(
            f"{account.read} rows: {account.train} sequences to train on, {account.held_out} held out, "
            f"{account.unreadable} unreadable, {account.dropped.total()} dropped, {account.cut} cut"
        )
        if self.options.held_out and not split.held_out:
            self.terminal.say(f"No row is held out, so nothing is measured: raise --held-out {self.options.held_out}")
        return split

    def check(self, inputs: CheckInput) -> None:
        """Run the checks of data/checks.py; raise CheckFailed if one fails."""
        for name, finding in run_checks(inputs).items():
            self.report_check(name, finding)

    def report_check(self, name: str, finding: str) -> None:
        """Print the finding of a check, and keep it for the report."""
        self.findings[name] = finding
        self.terminal.say(f"check {name}: {finding}")

    def arguments(self, split: Split[Any, Any]) -> dict[str, Any]:
        """Return the arguments of the library's trainer that all trainers share."""
        options, rows = self.options, len(split.held_out)
        rows_per_step = options.batch_size * options.nproc
        steps = options.steps or max(1, ceil((options.epochs or 0) * len(split.train) / rows_per_step))
        arguments = shared_arguments(options, self.folder, rate=self.rate, steps=steps, rows=rows)
        if rows and not arguments["load_best_model_at_end"]:
            self.terminal.say("The last model is kept, not the best: --save-every is no multiple of --eval-every.")
        return arguments

    def generation_measure(self, rows: Sequence[Record]) -> Callable[[Any], Metrics] | None:
        """Return a function that answers held-out prompts with a model and measures the answers.

        None without `--generate`, and where no row has a response.
        """
        if not self.options.generate or not rows:
            return None
        from datagen_train.run.metrics import evaluate_generation

        answered = [row for row in rows if row.response is not None][: self.options.generate]
        longest = max((len(self.encoder.ids(row.response or "")) for row in answered), default=0)
        return partial(
            evaluate_generation,
            tokenizer=self.loaded.tokenizer,
            rows=answered,
            max_tokens=min(self.options.max_length, MAX_EVAL_TOKENS_FACTOR * (longest + 1)),
            batch_size=self.options.batch_size,
        )

    def train(
        self,
        trainer: Trainer,
        check_start: Callable[[Metrics], None] = lambda start: None,
        conclude: Callable[[], dict[str, Any]] = dict,
        compare: Callable[[Metrics, Metrics], dict[str, Any]] = lambda start, end: {},
    ) -> dict[str, Any]:
        """Train to the end, from the start or from the newest complete checkpoint; save the model and the report.

        Args:
            trainer: the library's trainer, or a subclass.
            check_start: gets the metrics from before the first step; raises to stop the run.
            conclude: called when the model is saved; its items join the result ("about": paragraphs for the card).
            compare: gets the metrics of start and end; its items join the result.

        Returns:
            The report: "folder", "result" (the same for the same inputs), "run" (times, device, versions).

        Raises:
            Interrupted: after Ctrl-C, when a checkpoint is written.
            TrainingStopped: the loss is not a number, or the disk is full.
        """
        running = trainer.accelerator.num_processes
        if running != self.options.nproc:
            raise InputError(f"--nproc {self.options.nproc}: {running} processes run; start it without a launcher")
        callback = RunCallback(self.folder, self.terminal.show, self.options.patience)
        trainer.add_callback(callback)
        trainer.remove_callback(PrinterCallback)
        checkpoint = self.folder.newest_checkpoint()
        drop_later_lines(self.folder.metrics, step_of(checkpoint) if checkpoint else -1)
        began = monotonic()
        with interruptible(callback):
            # 1. Measure before the first step, so that the curves have a beginning.
            start = self._start(trainer, checkpoint)
            check_start(start)

            # 2. Train.
            before = process_time()
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            cpu = process_time() - before
            if callback.interrupted:
                step = trainer.state.global_step
                raise Interrupted(f"Interrupted at step {step}; the same command goes on from there")

            # 3. Measure the model that is kept, save it, and report.
            callback.finished = True
            end = trainer.evaluate() if trainer.eval_dataset is not None else {}
            seconds = {"seconds": monotonic() - began, "cpu_seconds_training": cpu}
            start, end = quality_metrics(start), quality_metrics(end)
            return self._finish(trainer, start, end, seconds, lambda: conclude() | compare(start, end))

    def _start(self, trainer: Trainer, checkpoint: Path | None) -> Metrics:
        """Return the metrics from before the first step: measured, or read from the run that is resumed."""
        if checkpoint:
            self.terminal.say(f"Going on from step {step_of(checkpoint)}")
            first_lines = (line for line in self.folder.read_metrics() if line["step"] == 0)
            return next((line for line in first_lines if any(name.startswith("eval_") for name in line)), {})
        if trainer.eval_dataset is None:
            return {}
        with torch.random.fork_rng():  # measuring must not change the random draws of training
            return dict(trainer.evaluate())

    def _finish(
        self,
        trainer: Trainer,
        start: Metrics,
        end: Metrics,
        seconds: Metrics,
        conclude: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Save the model, then write the report, the curves and the card."""
        trainer.save_model(str(self.folder.path))
        (self.folder.path / "training_args.bin").unlink(missing_ok=True)  # a pickle, and nothing needs it
        trained, total = count_parameters(trainer.model)
        report = {
            "folder": str(self.folder.path),
            "result": {
                "command": f"train {self.name}",
                "rows": self.account.as_dict(),
                "checks": self.findings,
                "steps": trainer.state.global_step,
                "best_step": trainer.state.best_global_step,
                "parameters": {"trained": trained, "all": total},
                "start": start,
                "end": end,
                **conclude(),
            },
            "run": {
                **{name: round(value, 2) for name, value in seconds.items()},
                "device": str(trainer.accelerator.device),
                "processes": trainer.accelerator.num_processes,
                "versions": {name: version(name) for name in LIBRARIES},
            },
        }
        if trainer.is_world_process_zero():
            write_curves(self.folder)
            write_card(self.folder, self.data, self.options.model, report)
            self.folder.finish(report)
        return report


@contextmanager
def open_session(
    name: str, data: str, kind: Any, options: TrainOptions, algorithm: Any, rates: Rates, terminal: Terminal
) -> Iterator[Session | None]:
    """Open a run of a trainer, and lock its folder while it lasts.

    Args:
        name: the trainer, as on the command line.
        data: path of the rows, or - for standard input.
        kind: the reader's kind of rows (datagen/records/reader.py).
        options: options of all trainers.
        algorithm: options of this trainer alone, a dataclass; its method `identity`, if any, adds to the config.
        rates: default learning rates and epochs.
        terminal: where messages go.

    Yields:
        The session; None if exactly this run is finished.

    Raises:
        InputError: an option has no such value, or the folder holds another run.
        TrainingStopped: the disk is full.
    """
    quiet_libraries()
    refuse_unknown(options)
    session = Session(name, data, kind, options, algorithm, rates, terminal)
    config = session.config()
    is_cleared_by_main = options.overwrite and not is_main()  # then what is in the folder must not be read
    if not is_cleared_by_main and session.folder.is_done(config, overwrite=options.overwrite):
        terminal.say(f"Nothing to do: {session.folder.path} is finished.")
        yield None
        return
    if not is_main():
        session.folder.run.mkdir(parents=True, exist_ok=True)
        yield session
        return
    with disk_full_as_one_line(), session.folder.locked(config):
        yield session


def model_identity(spec: str) -> str:
    """Return what identifies a model: the digest of the weights in a folder, else the hub name."""
    path = Path(spec.removeprefix("hf:"))
    return weights_digest(path) if path.is_dir() else spec
