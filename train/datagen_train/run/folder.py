"""A run's folder: the model, and beside it the record of its training.

    out/                       the model: weights, config, tokenizer, template; README.md, its card
    out/run/config.json        every option with its value, digests of data and base model: what the run is
    out/run/metrics.jsonl      one line per log and per measurement        out/run/curves.svg    the same as a picture
    out/run/dropped.jsonl      rows that were not trained on, with the reason
    out/run/report.json        how it ended: counts, checks, final metrics. Written last: it marks a finished run
    out/checkpoints/           while it trains

Running the command again goes on from the newest complete checkpoint. The library's saves are not atomic and it resumes
from the highest number whatever is in it, so a checkpoint counts only with `complete.json`, which is written last, and
if every file has the size that is recorded there.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from datagen.engine.output import differences
from datagen.errors import DatagenError, InputError
from datagen.records.files import write_json

MARK = "complete.json"


class RunFolder:
    """The files of a run: their paths, and how they are begun, continued and finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path / "run"
        self.checkpoints = path / "checkpoints"
        self.config, self.metrics = self.run / "config.json", self.run / "metrics.jsonl"
        self.report, self.curves = self.run / "report.json", self.run / "curves.svg"
        self.dropped = self.run / "dropped.jsonl"

    @contextmanager
    def locked(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Make the folder, lock it against other processes, and write the config, which says what the run is."""
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DatagenError(f"{self.path}: another run is writing it") from None
            write_json(self.config, config)
            yield

    def is_done(self, config: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Say whether exactly this run is finished here; clear the folder if it is to be overwritten.

        Args:
            config: everything that decides the model.
            overwrite: start again, whatever run is here.

        Raises:
            InputError: another run has trained here, or the folder is not of a run.
        """
        if not self.config.exists():
            if self.path.exists() and any(entry.name != "run" for entry in self.path.iterdir()):
                raise InputError(f"{self.path}: exists and holds no run of datagen; choose another -o")
            return False
        if overwrite:  # remove the files of a run, but no folders that somebody else may have put there
            for folder in (self.run, self.checkpoints):
                rmtree(folder, ignore_errors=True)
            for entry in self.path.iterdir():
                if entry.is_file():
                    entry.unlink()
            return False
        changes = differences(json.loads(self.config.read_text()), config)
        if changes and (self.report.exists() or self.newest_checkpoint()):
            raise InputError(
                f"{self.path}: holds another run:\n  " + "\n  ".join(changes) + "\nChoose another -o, or --overwrite."
            )
        return self.report.exists()

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint."""
        newest_first = sorted(self.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)
        return next((path for path in newest_first if is_complete(path)), None)

    def log(self, values: Mapping[str, Any]) -> None:
        """Append a line of metrics."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.read_text().splitlines()] if self.metrics.exists() else []

    def finish(self, report: Mapping[str, Any]) -> None:
        """Remove the checkpoints and mark the run as finished."""
        rmtree(self.checkpoints, ignore_errors=True)
        write_json(self.report, report)


def drop_later_lines(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a torn one, from a file of JSON lines: a resumed run writes them again."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        path.write_bytes(b"".join(kept))


def step_of(checkpoint: Path) -> int:
    """Return the step in the name of a checkpoint folder; -1 if there is none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def mark_complete(checkpoint: Path) -> None:
    """Write the mark of a complete checkpoint: the size in bytes of each of its files."""
    sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir() if path.is_file() and path.name != MARK}
    write_json(checkpoint / MARK, sizes)


def is_complete(checkpoint: Path) -> bool:
    """Is the mark there, and does every file have its recorded size?"""
    try:
        sizes = json.loads((checkpoint / MARK).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
