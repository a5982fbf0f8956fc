"""Run a trainer inside a test, as its command does."""

import json
import os
from pathlib import Path
from typing import Any

from datagen.signals import LIFELINE
from datagen_train.cli import OPTIONS
from datagen_train.launch import shared_variables
from datagen_train.options import TrainOptions
from tests.forked import Forked


class Notes:
    """A terminal that keeps the messages and measurements."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.measurements: list[dict[str, Any]] = []
        self.phases: list[str] = []
        self.updates: list[dict[str, float]] = []

    def say(self, text: str) -> None:
        self.messages.append(text)

    def phase(self, name: str) -> None:
        if name not in self.phases:
            self.phases.append(name)

    def count(self, done: int, total: int | None = None, unit: str = "") -> None: ...

    def step(self, state: Any) -> None: ...

    def update(self, numbers: Any) -> None:
        self.updates.append({name: float(value) for name, value in numbers.items()})

    def show(self, state: Any, numbers: dict[str, Any]) -> None:
        self.measurements.append({"step": state.global_step, **numbers})


def train(
    module: Any, data: Path | str | list[str], algorithm: Any = None, notes: Notes | None = None, **options: Any
) -> dict[str, Any]:
    """Run a trainer; return the result of its report."""
    chosen = TrainOptions(**{"log_every": 5, **options})
    name = module.__name__.rpartition(".")[2]
    files = data if isinstance(data, list) else str(data)
    report = module.run(files, chosen, algorithm or OPTIONS[name](), notes or Notes())
    assert report is not None
    return dict(report["result"])


def start_ranks(line: str, processes: int = 1, **variables: str) -> list[Forked]:
    """Start a trainer's command in several processes that have its libraries."""
    environments = [variables]
    if processes > 1:
        shared = {name: value for name, value in shared_variables(processes).items() if name not in os.environ}
        shared.pop(LIFELINE, None)  # there is no pipe to the first process
        places = (str(rank) for rank in range(processes))
        environments = [{**variables, **shared, "RANK": rank, "LOCAL_RANK": rank} for rank in places]
        line += f" --nproc {processes}"
    return [Forked(f"train {line}", environment) for environment in environments]


def train_line(line: str, processes: int = 1, **variables: str) -> str:
    """Run a trainer's command to its end; return what its first process writes to standard error."""
    ranks = start_ranks(line, processes, **variables)
    stderr = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert all(rank.returncode in (0, 3) for rank in ranks), "".join(stderr)  # 3: in so few steps no better model
    return stderr[0]


def metrics(folder: Path | str) -> list[dict[str, float]]:
    """Return the rows of a run's metrics file."""
    return [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
