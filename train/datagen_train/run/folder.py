"""A run's folder: the model, and beside it the record of its training.

    out/                       the model: weights, config, tokenizer, template; README.md, its card
    out/run/config.json        every option with its value, digests of data and base model: what the run is
    out/run/metrics.jsonl      one line per log and per measurement        out/run/curves.svg    the same as a picture
    out/run/dropped.jsonl      rows that were not trained on, with the reason
    out/run/trained.bin        digests of the prompts that the model and its base were trained on (data/trained.py)
    out/run/report.json        how it ended: counts, checks, final metrics. Written last: it marks a finished run
    out/run/files.json         the names of the files in out/ that the run wrote: `--overwrite` removes these alone
    out/run/lock               held while it trains; never removed
    out/checkpoints/           while it trains

Running the command again goes on from the newest complete checkpoint. The library's saves are not atomic and it resumes
from the highest number whatever is in it, so a checkpoint counts only with `complete.json`, which is written last, and
if every file has the size that is recorded there.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from datagen.engine.output import differences
from datagen.errors import DatagenError, InputError
from datagen.records.files import replace_file, write_json
from datagen.records.places import real_path, refuse_bytes
from datagen_train.data.trained import record_of
from datagen_train.run.manifest import CARD, LAST, Manifest, remove_empty

MARK, STATE = "complete.json", "trainer_state.json"


class RunFolder:
    """The files of a run: their paths, and how they are begun, continued and finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path / "run"
        self.checkpoints = path / "checkpoints"
        self.config, self.metrics = self.run / "config.json", self.run / "metrics.jsonl"
        self.report, self.curves = self.run / "report.json", self.run / "curves.svg"
        self.dropped, self.samples = self.run / "dropped.jsonl", self.run / "samples.jsonl"
        self.lock, self.saving = self.run / "lock", self.run / "saving"
        self.files = Manifest(path, self.run / "files.json")

    def refuse_stranger(self) -> None:
        """Raise InputError if something is here that is no run: nothing is written beside it."""
        refuse_bytes(self.path)
        if self.path.is_file():
            raise InputError(f"-o {self.path}: is a file; the output of training is a folder")
        # In this order: another process of the run may write its config meanwhile, before any other file.
        if self.path.exists() and not self._is_unused() and self.read_config() is None:
            raise InputError(f"{self.path}: exists and holds no run of datagen; choose another -o")

    def _is_unused(self) -> bool:
        """Is nothing here but what a run leaves that was killed at its very start?"""
        entries = [*self.path.iterdir(), *(self.run.iterdir() if self.run.is_dir() else ())]
        return all(entry in (self.run, self.lock) or entry.name.endswith(".part") for entry in entries)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and lock it against other processes; nothing may be changed here before."""
        real_path(self.path).mkdir(parents=True, exist_ok=True)
        self.run.mkdir(exist_ok=True)
        with self.lock.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DatagenError(f"{self.path}: another run is writing it") from None
            yield

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the config, which says what the run is; remove what a killed run was saving.

        Raises:
            InputError: a file of somebody else is where the model will be.
        """
        self.files.refuse_others((CARD, LAST))
        write_json(self.config, config)
        rmtree(self.saving, ignore_errors=True)

    def clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else. The config stays until that of the next run replaces it:
        it says that the folder is ours."""
        self.files.remove()
        for path in (self.metrics, self.report, self.curves, self.dropped, self.samples, record_of(self.path)):
            path.unlink(missing_ok=True)
        rmtree(self.saving, ignore_errors=True)
        self.remove_checkpoints()

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints; what else lies beside them stays."""
        for path in self.checkpoints.glob("checkpoint-*"):
            if step_of(path) >= 0:
                rmtree(path, ignore_errors=True)
        (self.checkpoints / CARD).unlink(missing_ok=True)  # TRL writes one beside every checkpoint
        remove_empty([self.checkpoints])

    def is_done(self, config: Mapping[str, Any]) -> bool:
        """Say whether exactly this run is finished here.

        Args:
            config: everything that decides the model.

        Raises:
            InputError: another run has trained here.
        """
        earlier = self.read_config()
        changes = differences(earlier, config) if earlier else []
        if changes and (self.report.exists() or self.newest_checkpoint()):
            raise InputError(
                f"{self.path}: holds another run:\n  " + "\n  ".join(changes) + "\nChoose another -o, or --overwrite."
            )
        return earlier is not None and self.report.exists()

    def read_config(self) -> dict[str, Any] | None:
        """Return the config of the run that is here, None if there is none; InputError if it is not ours."""
        if not self.config.exists():
            return None
        config = read_object(self.config)
        if not str(config.get("command")).startswith("train "):
            raise InputError(f"{self.config}: not written by datagen; choose another -o")
        return config

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint."""
        newest_first = sorted(self.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)
        return next((path for path in newest_first if is_complete(path)), None)

    def log(self, values: Mapping[str, Any]) -> None:
        """Append a line of metrics."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics; a damaged one is left out."""
        lines = self.metrics.read_bytes().splitlines() if self.metrics.exists() else []
        return [line for line in map(read_line, lines) if line is not None]

    def measured(self, metric: str | None) -> list[float]:
        """Return the values of a metric after the first step and later."""
        return [line[metric] for line in self.read_metrics() if line["step"] > 0 and metric in line]

    def read_report(self) -> dict[str, Any]:
        """Return the report of a finished run, with the folder's path as it is called now."""
        return read_object(self.report) | {"folder": str(self.path)}

    def finish(self, report: Mapping[str, Any]) -> None:
        """Move what was saved to its place, mark the run as finished, and remove the checkpoints."""
        self.files.move_in(self.saving)
        write_json(self.report, report)
        self.remove_checkpoints()  # last: a kill before would lose the run with them


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DatagenError(f"{folder}: another run is writing it") from None
    finally:
        os.close(file)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that we wrote; InputError if it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged, or not written by datagen; move its folder away, or choose another -o")
    return value


def read_line(line: bytes) -> dict[str, Any] | None:
    """Read a line of metrics: a step, and numbers by name; None if it is damaged."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(values, dict) and isinstance(values.get("step"), int)
    return values if is_ours and all(isinstance(value, int | float) for value in values.values()) else None


def step_in(line: bytes) -> int | None:
    """Return the step of a line that holds a JSON object; None if it is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def drop_later_lines(path: Path, step: int) -> None:
    """Drop the lines of later steps, and damaged ones, from a file of JSON lines: a resumed run writes them again."""
    if path.exists():
        lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        steps = [(line, step_in(line)) for line in lines]
        replace_file(path, b"".join(line for line, at in steps if at is not None and at <= step))


def step_of(checkpoint: Path) -> int:
    """Return the step in the name of a checkpoint folder; -1 if there is none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def mark_complete(checkpoint: Path) -> None:
    """Write the mark of a complete checkpoint: the size in bytes of each of its files."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARK]
    write_json(checkpoint / MARK, {str(path.relative_to(checkpoint)): path.stat().st_size for path in files})


def is_complete(checkpoint: Path) -> bool:
    """Is the mark there, has every file its recorded size, and can the library's state be read?"""
    try:
        sizes, state = json.loads((checkpoint / MARK).read_bytes()), checkpoint / STATE
        is_readable = not state.exists() or isinstance(json.loads(state.read_bytes()), dict)
        return is_readable and all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
