"""Run a trainer inside a test, as its command does."""

import json
from pathlib import Path
from typing import Any

from datagen_train.options import TrainOptions


class Notes:
    """A terminal that keeps the messages and measurements."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.measurements: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        self.messages.append(text)

    def show(self, state: Any, numbers: dict[str, Any]) -> None:
        self.measurements.append({"step": state.global_step, **numbers})


def train(
    module: Any, data: Path | str, algorithm: Any = None, notes: Notes | None = None, **options: Any
) -> dict[str, Any]:
    """Run a trainer; return the result of its report."""
    chosen = TrainOptions(**{"log_every": 5, **options})
    report = module.run(str(data), chosen, algorithm or module.Options(), notes or Notes())
    assert report is not None
    return dict(report["result"])


def metrics(folder: Path | str) -> list[dict[str, float]]:
    """Return the rows of a run's metrics file."""
    return [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
