"""What every trainer does around its algorithm: read, load, encode, check, train or resume, save, report.

A trainer's file calls these in order, so that it reads from top to bottom; what is here is the same for all of them.
"""

import os
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import torch
from transformers import set_seed

from datagen.engine.options import file_values
from datagen.errors import InputError
from datagen.llm.local.generation import context_length
from datagen.records.places import paths_in, refuse_overlap
from datagen.records.reader import Kind
from datagen.records.record import Record
from datagen.signals import on_stop
from datagen_train.data.checks import CheckInput, run_checks
from datagen_train.data.encode import Encoder
from datagen_train.data.layouts import Layout
from datagen_train.data.length import fill
from datagen_train.data.sources import Data, Sources
from datagen_train.data.split import Account, Example, Row, Split, choose_sides, split_rows
from datagen_train.data.table import EncodeJob
from datagen_train.data.trained import trained_by, write_trained
from datagen_train.errors import Finished, Interrupted
from datagen_train.launch import is_main
from datagen_train.models.load import Loaded, choose_trained, count_parameters, load, model_identity
from datagen_train.models.precision import round_weights
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import TrainerOptions, TrainOptions, shaping
from datagen_train.rates import Rates
from datagen_train.run.encoding import encode_all, encoding_key
from datagen_train.run.folder import RunFolder, drop_later_lines, step_of
from datagen_train.run.outcome import Course, check_selection, fingerprint, has_changed, outcome
from datagen_train.run.overfitting import with_alarm
from datagen_train.run.pending import Pending
from datagen_train.run.progress import Terminal
from datagen_train.run.reading import check_measured, file_digests, read_measured, read_sources
from datagen_train.run.report import circumstances, write_card, write_curves
from datagen_train.run.schedule import Scheduled
from datagen_train.run.stops import disk_full_as_one_line
from datagen_train.run.trl_adapter import (
    RunCallback,
    check_report_to,
    quality_metrics,
    quiet_libraries,
    set_callbacks,
    shared_arguments,
)

Metrics = dict[str, float]
"""Numbers by name. Those measured on held-out rows begin with "eval_"."""


class Session:
    """One run of one trainer. Its methods are called in this order: read, load, encode, check, arguments, train.

    Attributes:
        name: the trainer, as on the command line.
        sources: the files of rows.
        options: options of all trainers, with `epochs` and `best` filled in.
        rate: peak learning rate.
        terminal, folder: where messages go, and where the run writes.
        account: what became of the rows and tokens, so far.
        loaded, encoder: model, tokenizer and encoder; set by `load`.
        findings: results of the checks by name, for the report.
    """

    def __init__(
        self,
        name: str,
        data: Data,
        kind: Any,
        options: TrainOptions,
        algorithm: TrainerOptions,
        rates: Rates,
        terminal: Terminal,
        rewards: Sequence[str],
    ) -> None:
        """See `open_session`."""
        self.name, self._kind, self._algorithm, self._rewards = name, kind, algorithm, rewards
        self.options, self.rate, self.terminal = rates.fill(options), rates.pick(options), terminal
        self._least_steps = rates.least_steps(options)
        self.sources = Sources(data)
        self.folder = RunFolder(Path(options.output or f"{self.sources.stem}.{name}"))
        self.account = Account()
        self._measured: list[Any] = []  # the rows of --eval-data
        self.loaded: Loaded
        self.encoder: Encoder
        self.findings: dict[str, str] = {}
        self.length: dict[str, Any] = {}  # with --tokens: what is trained on in all

    def config(self) -> dict[str, Any]:
        """Return everything that decides the model: options, and digests of data and base model."""
        return {
            "command": f"train {self.name}",
            **shaping(self.options, self._algorithm),
            **({"reward": self._rewards} if self._rewards else {}),
            "learning_rate": self.rate,
            "model": model_identity(self.options.model),
            "data": self.sources.identity,
            **file_digests(self.options, self._algorithm),
        }

    def read(self, *others: Kind[Any]) -> list[Any]:
        """Read the rows; write lines that cannot be used to `run/dropped.jsonl`, each with the reason.

        Args:
            others: kinds of rows that the file may hold instead.

        Returns:
            At most `--limit` rows of each file, of the record type that the trainer reads.

        Raises:
            InputError: a file cannot be read, or no row of it can be used.
        """
        self.terminal.phase("reading rows")
        options, kinds = self.options, (self._kind, *others)
        dropped_file = self.folder.dropped if is_main() else Path(os.devnull)
        with self.sources as sources, dropped_file.open("wb") as dropped:
            rows = read_sources(sources, kinds, options, dropped, self.account, self.terminal)
        self._measured = read_measured(options, kinds, self.terminal)
        return rows

    def load(
        self,
        texts: Iterable[str],
        adapt: Callable[[Loaded], Any] = lambda loaded: loaded.model,
        *,
        reasoning: str = "drop",
    ) -> Loaded:
        """Load the model and the tokenizer, and choose which parameters are trained.

        Args:
            texts: what the tokenizer of the model `tiny` is trained on.
            adapt: returns the model as the trainer needs it, before LoRA and freezing; may change the tokenizer.
            reasoning: what becomes of the reasoning that rows hold: train or drop.

        Raises:
            InputError: the model cannot be loaded, or the options do not fit it.
        """
        options = self.options
        self.terminal.phase("loading the model")
        set_seed(options.seed)  # the library sets it when the model is there: too late for new adapters
        self.loaded = load(options.model, options.model_options, texts, options.seed)
        ends = turn_end_ids(self.loaded.model, self.loaded.tokenizer)
        model = adapt(self.loaded)
        for note in self.loaded.notes:
            self.terminal.say(note)
        longest = context_length(self.loaded.model)
        if longest < options.max_length:
            self.terminal.say(f"--max-length {options.max_length}: the model takes {longest} tokens, so that is used")
        self.encoder = Encoder(self.loaded.tokenizer, ends, min(options.max_length, longest), reasoning)
        self.account.contents = self.encoder.contents
        self.loaded.model = choose_trained(model, options.model_options)
        return self.loaded

    def encode(
        self,
        rows: Sequence[Row],
        encode: Callable[[Row], Iterable[Example]],
        layout: Layout[Example],
        *counts: Counter[str],
        **shape: Any,
    ) -> Split[Row, Example]:
        """Encode rows and hold some out; say how many were dropped and cut.

        Args:
            rows, encode, layout, counts: see `EncodeJob`.
            shape: options of this trainer that decide what a row is encoded into.

        Raises:
            InputError: no row is left to train on, or to measure on.
        """
        self.terminal.phase("encoding")
        job = EncodeJob([*rows, *self._measured], encode, layout, (self.account.contents, *counts))
        encoder = getattr(self, "encoder", None)  # a classifier has none
        others = [self.name, list(layout.columns), self.sources.digests, shape]
        key = partial(encoding_key, self.loaded.tokenizer, encoder, self.options, others)
        encoded = encode_all(job, key, self.folder.path, self.options.encode_workers, self.terminal)
        sides = choose_sides(rows, self._measured, self.options.held_out, len(rows))
        draw = partial(self.sources.draw, seed=self.options.seed)
        split = split_rows(sides, encoded, self.account, draw)
        if not split.train:
            raise InputError(f"{self.sources}: no row is left to train on: {self.account.losses()}")
        if is_main():
            write_trained(self.folder.path, split.trained | trained_by(self.options.model))
        if self.options.tokens:
            split.train, self.length["trained_on"] = fill(split.train, self.options.tokens, self.options.seed)
        self.terminal.say(self.account.summary())
        if not self.sources.is_plain:
            self.report_check("files", self.sources.summary())
        check_measured(rows, self._measured, bool(split.held_out), self.options, self.terminal)
        return split

    def check(self, inputs: CheckInput) -> None:
        """Run the checks of data/checks.py; raise CheckFailed if one fails."""
        self.terminal.phase("checking")
        for name, finding in run_checks(inputs).items():
            self.report_check(name, finding)

    def report_check(self, name: str, finding: str) -> None:
        """Print the finding of a check, and keep it for the report."""
        self.findings[name] = finding
        self.terminal.say(f"check {name}: {finding}")

    def arguments(self, split: Split[Any, Any], *, sequences: int | None = None) -> dict[str, Any]:
        """Return the arguments of the library's trainer that all trainers share.

        `sequences` is their number in an epoch, if several rows are in one.
        """
        options, rows = self.options, len(split.held_out)
        rows_per_step, number = options.batch_size * options.nproc, sequences or len(split.train)
        steps = options.steps or max(self._least_steps, ceil((options.epochs or 0) * number / rows_per_step))
        arguments = shared_arguments(options, self.folder, rate=self.rate, steps=steps, rows=rows)
        if rows and options.best != "last" and not arguments["load_best_model_at_end"]:
            self.terminal.say("The last model is kept, not the best: --save-every is no multiple of --eval-every.")
        return arguments

    def generation_measure(self, rows: Sequence[Record]) -> Callable[[Any], Metrics] | None:
        """Return a function that answers held-out prompts with a model and measures the answers.

        None without `--generate`, and where no row has a response.
        """
        if not self.options.generate or not rows:
            return None
        from datagen_train.run.metrics import answer_measure

        return answer_measure(rows, self.encoder, self.options, self.terminal)

    def train(
        self,
        trainer: Scheduled,
        check_start: Callable[[Metrics], None] = lambda start: None,
        conclude: Callable[[Metrics, Metrics], dict[str, Any]] = lambda start, end: {},
        decides: str | None = None,
    ) -> dict[str, Any]:
        """Train to the end, from the start or from the newest complete checkpoint; save the model and the report.

        Args:
            trainer: the library's trainer, or a subclass.
            check_start: gets the metrics from before the first step; raises to stop the run.
            conclude: called with the metrics of start and end when the model is saved; its items join the result.
                "about" holds paragraphs for the card; "failure" and "doubt" are for the outcome (run/outcome.py).
            decides: the metric that says whether something was learned, if the best checkpoint is selected by another.

        Returns:
            The report: "folder", "result" (the same for the same inputs), "run" (times, device, versions).

        Raises:
            Interrupted: after Ctrl-C or another signal to stop, when a checkpoint is written.
            TrainingStopped: the loss is not a number, or the disk is full.
        """
        running = trainer.accelerator.num_processes
        if running != self.options.nproc:
            raise InputError(f"--nproc {self.options.nproc}: {running} processes run; start it without a launcher")
        checkpoint = self.folder.newest_checkpoint()
        callback = RunCallback(self.folder, self.terminal, self.options.patience)
        set_callbacks(trainer, Pending(trainer, checkpoint), callback)
        weights = fingerprint(self.loaded.model)
        drop_later_lines(self.folder.metrics, step_of(checkpoint) if checkpoint else -1)
        began = monotonic()
        trainer.accelerator.wait_for_everyone()  # until here each process ends at once, from here on all at one step
        with on_stop(callback.interrupt):
            # 1. Measure before the first step, so that the curves have a beginning.
            start = quality_metrics(self._start(trainer, checkpoint))
            check_selection(trainer.args.metric_for_best_model, start)
            check_start(start)

            # 2. Train.
            before = process_time()
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            cpu = process_time() - before
            if callback.interrupted:
                step = trainer.state.global_step
                raise Interrupted(f"Interrupted at step {step}; the same command goes on from there")

            # 3. Measure the model that is kept, as it will be saved; save it, and report.
            callback.finished = True
            round_weights(self.loaded.model, self.loaded.saved_dtype)
            self.terminal.phase("measuring the model that is kept")
            end = quality_metrics(trainer.evaluate() if trainer.eval_dataset is not None else {})
            metric = decides if decides in end else trainer.args.metric_for_best_model if end else None
            course = Course(self.options.model, self.rate, metric, start, end, self.folder.measured(metric))
            seconds = {"seconds": monotonic() - began, "cpu_seconds_training": cpu}
            return self._finish(trainer, course, has_changed(self.loaded.model, weights), seconds, conclude)

    def _start(self, trainer: Scheduled, checkpoint: Path | None) -> Metrics:
        """Return the metrics from before the first step: measured, or read from the run that is resumed."""
        if checkpoint:
            self.terminal.say(f"Going on from step {step_of(checkpoint)}")
            return dict(ChainMap(*(line for line in self.folder.read_metrics() if line["step"] == 0)))
        if trainer.eval_dataset is None:
            return {}
        self.terminal.phase("measuring before the first step")
        with torch.random.fork_rng():  # measuring must not change the random draws of training
            return dict(trainer.evaluate())

    def _finish(
        self,
        trainer: Scheduled,
        course: Course,
        changed: bool,
        seconds: Metrics,
        conclude: Callable[[Metrics, Metrics], dict[str, Any]],
    ) -> dict[str, Any]:
        """Save the model, then write the report, the curves and the card."""
        self.terminal.phase("saving")
        trainer.save_in(self.loaded.saved_dtype, self.folder.saving)
        conclusion, model = with_alarm(conclude(course.start, course.end), self.folder), self.options.model
        failure, doubt = conclusion.pop("failure", None), conclusion.pop("doubt", None)
        result = outcome(course, changed=changed, failure=failure, doubt=doubt)
        report = {
            "folder": str(self.folder.path),
            "result": {
                "command": f"train {self.name}",
                "rows": self.account.as_dict(),
                "checks": self.findings,
                "steps": trainer.state.global_step,
                **self.length,
                "learned": result.learned,
                "outcome": result.sentence,
                "best_step": trainer.state.best_global_step if trainer.args.load_best_model_at_end else None,
                "parameters": dict(zip(("trained", "all"), count_parameters(trainer.model), strict=True)),
                "start": course.start,
                "end": course.end,
                **conclusion,
            },
            "run": {**self.sources.as_dict(), "model": model, **circumstances(trainer, seconds)},
        }
        if trainer.is_world_process_zero():
            write_curves(self.folder)
            write_card(self.folder, self.sources.listed, model, report)
            self.folder.finish(report)
        return report


@contextmanager
def open_session(
    name: str,
    data: Data,
    kind: Any,
    options: TrainOptions,
    algorithm: TrainerOptions,
    rates: Rates,
    terminal: Terminal,
    rewards: Sequence[str] = (),
) -> Iterator[Session]:
    """Open a run of a trainer, and lock its folder while it lasts.

    Args:
        name: the trainer, as on the command line.
        data: the files of rows, or - for standard input (data/sources.py).
        kind: the reader's kind of rows (datagen/records/reader.py).
        options: options of all trainers.
        algorithm: options of this trainer alone.
        rates: default learning rates and epochs.
        terminal: where messages go.
        rewards: the rewards of `--reward` with digests of their files (`rewards.specs.identity`), for the config.

    Yields:
        The session.

    Raises:
        Finished: exactly this run is finished.
        InputError: an option has no such value, or the folder holds another run.
        TrainingStopped: the disk is full.
    """
    quiet_libraries()
    algorithm.check(options)
    check_report_to(options.report_to)
    session = Session(name, data, kind, options, algorithm, rates, terminal, rewards)
    with session.sources:
        config = session.config()
        folder = session.folder
        refuse_overlap([folder.path], paths_in([data, file_values(options), file_values(algorithm)]), data)
        folder.refuse_stranger()
        if not is_main():
            if not options.overwrite and folder.is_done(config):  # else the main process clears it meanwhile
                raise Finished(folder.read_report())
            yield session
            return
        with disk_full_as_one_line(), folder.locked():
            if options.overwrite:
                folder.clear()
            elif folder.is_done(config):
                folder.remove_checkpoints()  # a stop may have left some
                terminal.say(f"Nothing to do: {folder.path} is finished.")
                raise Finished(folder.read_report())
            folder.begin(config)
            yield session
