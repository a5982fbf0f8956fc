"""What every trainer does around its algorithm: read, load, encode, check, train or go on, save, report.

A trainer's file calls these in order, so that it reads from top to bottom; what is here is the same for all of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from math import ceil
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Protocol

import torch
from datasets import Dataset
from transformers import PrinterCallback, Trainer, TrainerState

from datagen.errors import InputError
from datagen.llm.local.weights import weights_digest
from datagen.records.files import dump_line, input_digest, open_input
from datagen.records.reader import Reader
from datagen.records.record import BadLine, Record
from datagen_train.data.checks import CheckInput, run_checks
from datagen_train.data.encode import Account, Encoder, Example, Row, Split, encode_rows
from datagen_train.errors import Interrupted
from datagen_train.launch import is_main
from datagen_train.models.load import Loaded, choose_trained, count_parameters, load
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import Rates, TrainOptions
from datagen_train.run.folder import RunFolder, step_of
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
Metrics = dict[str, float]
ROOM = 4
"""Times the longest expected answer that a measured one may take; a model that babbles on tells nothing more."""


class Terminal(Protocol):
    """Whoever shows a run to a person."""

    def say(self, text: str) -> None: ...

    def show(self, state: TrainerState, numbers: dict[str, Any]) -> None: ...


class Session:
    """One run of one trainer."""

    def __init__(
        self, name: str, data: str, kind: Any, options: TrainOptions, own: Any, rates: Rates, terminal: Terminal
    ) -> None:
        self.name, self.data, self.own, self._kind = name, data, own, kind
        self.options = replace(options, epochs=options.epochs or rates.epochs)
        self.rate, self.terminal = rates.pick(options), terminal
        self.folder = RunFolder(Path(options.output or f"{Path(data).stem}.{name}"))
        self.account = Account()
        self.loaded: Loaded
        self.encoder: Encoder
        self.findings: dict[str, str] = {}

    def config(self) -> dict[str, Any]:
        """Everything that decides the model."""
        shaping = {name: value for name, value in asdict(self.options).items() if name not in NOT_SHAPING}
        with open_input(self.data) as file:
            data = input_digest(file)
        return {
            "command": f"train {self.name}",
            **shaping,
            **asdict(self.own),
            **(self.own.identity() if hasattr(self.own, "identity") else {}),
            "learning_rate": self.rate,
            "model": model_identity(self.options.model),
            "data": data,
        }

    def read(self) -> list[Any]:
        """Read every row; keep what cannot be used, with the reason, in the run's folder."""
        rows: list[Any] = []
        with open_input(self.data) as file, self._dropped().open("wb") as dropped:
            for item in Reader(self.data, file, self._kind, self.options.format).read():
                if isinstance(item, BadLine):
                    self._drop(item, dropped)
                elif self.options.limit is None or len(rows) < self.options.limit:
                    rows.append(item)
        self.account.read = len(rows) + self.account.unreadable
        for row in rows:
            self.account.makers.update(set(makers(row.meta)))
        if not rows:
            raise InputError(f"{self.data}: no row could be used")
        return rows

    def _dropped(self) -> Path:
        return self.folder.dropped if is_main() else Path(os.devnull)

    def _drop(self, bad: BadLine, dropped: Any) -> None:
        self.account.unreadable += 1
        dropped.write(dump_line({"source": bad.source, "line": bad.line, "reason": bad.reason, "raw": bad.raw}))
        if self.account.unreadable <= BAD_LINES_SHOWN:
            self.terminal.say(f"{bad} (skipped)")

    def load(self, texts: Iterable[str], adapt: Callable[[Any], Any] = lambda model: model) -> Loaded:
        """Load the model, `adapt` it to the trainer, and choose what is trained of it."""
        options = self.options
        if options.is_tiny and (options.lora or options.qlora):
            raise InputError("--lora adapts a trained model; tiny is made from nothing: leave --lora out")
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
        """Encode rows, each with its split_group; tell what was dropped and cut."""
        split = encode_rows(rows, encode, measure, self.account, self.options.held_out)
        if not split.train:
            raise InputError(f"{self.data}: no row is left to train on: {dict(self.account.dropped)}")
        account = self.account
        self.terminal.say(
            f"{account.read} rows: {account.train} sequences to train on, {account.held_out} held out, "
            f"{account.unreadable} unreadable, {account.dropped.total()} dropped, {account.cut} cut"
        )
        if self.options.held_out and not split.held_out:
            self.terminal.say(f"Nothing is held out to measure on: raise --held-out {self.options.held_out}")
        return split

    def check(self, subject: CheckInput) -> None:
        """Run the checks; raise CheckFailed if one fails."""
        for name, finding in run_checks(subject).items():
            self.report_check(name, finding)

    def report_check(self, name: str, finding: str) -> None:
        """Say what was found, and keep it for the report."""
        self.findings[name] = finding
        self.terminal.say(f"check {name}: {finding}")

    def steps(self, sequences: int) -> int:
        """Return the optimiser steps of the whole run."""
        a_step = self.options.batch_size * self.options.nproc
        return self.options.steps or max(1, ceil((self.options.epochs or 0) * sequences / a_step))

    def arguments(self, split: Split[Any, Any]) -> dict[str, Any]:
        """Return the settings that all trainers share."""
        steps, rows = self.steps(len(split.train)), len(split.held_out)
        made = shared_arguments(self.options, self.folder, rate=self.rate, steps=steps, rows=rows)
        if rows and not made["load_best_model_at_end"]:
            self.terminal.say("The last model is kept, not the best: --save-every is no multiple of --eval-every.")
        return made

    def measure(self, rows: Sequence[Record]) -> Callable[[Any], dict[str, float]] | None:
        """Return what answers held-out prompts with a model, if that is wanted and there are any."""
        if not self.options.generate or not rows:
            return None
        from datagen_train.tools.evaluate import evaluate_generation

        asked = [row for row in rows if row.response is not None][: self.options.generate]
        longest = max((len(self.encoder.ids(row.response or "")) for row in asked), default=0)

        def measure(model: Any) -> dict[str, float]:
            return evaluate_generation(
                model,
                self.loaded.tokenizer,
                asked,
                max_tokens=min(self.options.max_length, ROOM * (longest + 1)),
                batch_size=self.options.batch_size,
                limit=None,
            )

        return measure

    def train(
        self,
        trainer: Trainer,
        expect: Callable[[dict[str, float]], None] = lambda start: None,
        conclude: Callable[[], dict[str, Any]] = dict,
        judge: Callable[[Metrics, Metrics], dict[str, Any]] = lambda start, end: {},
    ) -> dict[str, Any]:
        """Train to the end, or go on from the newest complete checkpoint; save the model and the report.

        `expect` looks at what was measured before the first step; `conclude` is called when the model is saved, and
        what it returns joins the result ("about": paragraphs for the card), as does what `judge` makes of the start
        and the end.
        """
        running = trainer.accelerator.num_processes
        if running != self.options.nproc:
            raise InputError(f"--nproc {self.options.nproc}: {running} processes run; start it without a launcher")
        watch = RunCallback(self.folder, self.terminal.show, self.options.patience)
        trainer.add_callback(watch)
        trainer.remove_callback(PrinterCallback)
        checkpoint = self.folder.newest_checkpoint()
        self.folder.rewind(step_of(checkpoint) if checkpoint else -1)
        began = monotonic()
        with interruptible(watch):
            start = self._start(trainer, checkpoint)
            expect(start)
            before = process_time()
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            cpu = process_time() - before
            if watch.interrupted:
                raise Interrupted(
                    f"Interrupted at step {trainer.state.global_step}; the same command goes on from there"
                )
            watch.finished = True
            end = trainer.evaluate() if trainer.eval_dataset is not None else {}
            took = {"seconds": monotonic() - began, "cpu_seconds_training": cpu}
            return self._finish(
                trainer, start, end, took, lambda: conclude() | judge(quality_metrics(start), quality_metrics(end))
            )

    def _start(self, trainer: Trainer, checkpoint: Path | None) -> dict[str, float]:
        """Measure before the first step, so that the curves have a beginning; chance is left as it was."""
        if checkpoint:
            self.terminal.say(f"Going on from step {step_of(checkpoint)}")
            begun = (m for m in self.folder.read_metrics() if m["step"] == 0)
            first = next((m for m in begun if any(name.startswith("eval_") for name in m)), {})
            return dict(first)
        if trainer.eval_dataset is None:
            return {}
        with torch.random.fork_rng():
            return dict(trainer.evaluate())

    def _finish(
        self, trainer: Trainer, start: Any, end: Any, took: dict[str, float], conclude: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
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
                "start": quality_metrics(start),
                "end": quality_metrics(end),
                **conclude(),
            },
            "run": {
                **{name: round(value, 2) for name, value in took.items()},
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
    name: str, data: str, kind: Any, options: TrainOptions, own: Any, rates: Rates, terminal: Terminal
) -> Iterator[Session | None]:
    """Open a run; None if exactly this one is finished."""
    quiet_libraries()
    refuse_unknown(options)
    run = Session(name, data, kind, options, own, rates, terminal)
    main = is_main()
    config = run.config()
    if run.folder.is_done(config, overwrite=options.overwrite and main):
        terminal.say(f"Nothing to do: {run.folder.path} is finished.")
        yield None
        return
    if not main:
        run.folder.run.mkdir(parents=True, exist_ok=True)
        yield run
        return
    with disk_full_as_one_line(), run.folder.held():
        run.folder.begin(config)
        yield run


def model_identity(spec: str) -> str:
    """Name a model by what is in its folder, if it is one: a retrained one is another."""
    path = Path(spec.removeprefix("hf:"))
    return weights_digest(path) if path.is_dir() else spec


def make_dataset(columns: dict[str, list[Any]]) -> Dataset | None:
    """Make a dataset of columns; None where there is no row."""
    return Dataset.from_dict(columns) if next(iter(columns.values())) else None
