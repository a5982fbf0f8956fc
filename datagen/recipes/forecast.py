"""What a recipe would do, before anything is sent: the calls and dollars of each step that asks models.

The input of a later step is not there yet. So the steps are rehearsed in a folder that is removed afterwards: a few
rows go through each of them, answered by `sim`, and the calls are counted for as many rows as are then expected.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from datagen.commands.flags import MethodCall
from datagen.commands.run import run_method
from datagen.commands.terminal import columns
from datagen.engine.forecast import DryRun, dry_run
from datagen.engine.job import open_job
from datagen.errors import DatagenError
from datagen.llm.prices import dollars
from datagen.recipes.runner import share_models_file
from datagen.recipes.steps import Line
from datagen.records.makers import is_sim

ROWS = 8
"""Rows of an input that are rehearsed."""


@dataclass(frozen=True)
class Forecast:
    """What one step would do."""

    name: str
    calls: float = 0
    most_calls: float = 0
    cost: tuple[float, float] | None = (0, 0)
    """Dollars, with short and with long answers; None where a price is unknown."""
    note: str = ""
    """Why nothing can be said."""


class Rehearsal:
    """The files of a rehearsal, in the working folder."""

    def __init__(self) -> None:
        self._scales: dict[str, float] = {}
        """The rows to expect for each row of a rehearsed file."""

    def forecast(self, line: Line) -> Forecast:
        """Rehearse a step; return what it would do with the rows that are then expected."""
        call, name = line.parsed, line.step.name
        if not isinstance(call, MethodCall):
            return Forecast(name, note="asks no model")
        if call.input and "://" not in call.input and not Path(call.input).exists():
            return Forecast(name, note=f"not known before {call.input} is there")
        scale = self._scales.get(call.input or "", 1.0) if call.run.n is None else 1.0
        try:
            with open_job(*with_known_models(call, f"{name}.forecast.jsonl")) as job:
                asks, dry = bool(job.roles), dry_run(job)
            self._rehearse(line, call, dry.records * scale)
        except DatagenError as error:
            return Forecast(name, note=str(error))
        if not asks:
            return Forecast(name, note="asks no model")
        return scaled(name, dry, scale)

    def _rehearse(self, line: Line, call: MethodCall, records: float) -> None:
        """Make the output of a step from a few rows."""
        output = Path(line.output)
        if output.exists():  # it has run
            return
        n = None if call.run.n is None else min(call.run.n, ROWS)
        played = played_by_sim(call)
        run = replace(played.run, limit=ROWS, n=n, output=line.output, quiet=True)
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            run_method(*played._replace(run=run))
        rows = output.read_bytes().count(b"\n") if output.exists() else 0
        if rows:
            read = min(records, ROWS)
            self._scales[line.output] = call.run.n / rows if call.run.n else records / read


def scaled(name: str, dry: DryRun, scale: float) -> Forecast:
    """Return the forecast of a step whose input will have `scale` times as many rows."""
    cost = None if dry.unpriced or dry.cost is None else (dry.cost.least * scale, dry.cost.usual * scale)
    return Forecast(name, dry.calls * scale, dry.most_calls * scale, cost)


def with_known_models(call: MethodCall, output: str) -> MethodCall:
    """Return a call with another output, in which `sim` stands for models that are not trained yet."""
    call = with_models(call, lambda spec: "sim" if is_missing(spec) else spec)
    return call._replace(run=replace(call.run, output=output))


def played_by_sim(call: MethodCall) -> MethodCall:
    """Return a call in which `sim` stands for every other model."""
    return with_models(call, lambda spec: spec if is_sim(spec) else "sim")


def with_models(call: MethodCall, change: Callable[[str], str]) -> MethodCall:
    roles = {role: list(map(change, specs)) for role, specs in call.role_models.items()}
    return call._replace(run=replace(call.run, model=list(map(change, call.run.model))), role_models=roles)


def is_missing(spec: str) -> bool:
    """Whether a model is the folder of one that is not trained yet."""
    return spec.startswith("hf:") and not Path(spec.removeprefix("hf:")).exists()


@contextmanager
def rehearsal_folder(folder: Path, outputs: Sequence[str]) -> Iterator[None]:
    """Work in a new folder beside that of the recipe, from which the paths of its steps lead to the same files.

    What the recipe has written already is there.
    """
    here = Path.cwd()
    with TemporaryDirectory(prefix=".rehearsal-", dir=folder.resolve().parent) as place:
        for name in outputs:
            if (folder / name).exists():
                (Path(place) / name).symlink_to((folder / name).resolve())
        share_models_file(Path(place))
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(here)


def forecast_lines(lines: Sequence[Line], folder: Path) -> list[str]:
    """Return a table of what the steps would do."""
    rehearsal = Rehearsal()
    with rehearsal_folder(folder, [line.output for line in lines]):
        forecasts = [rehearsal.forecast(line) for line in lines]
    rows = [["step", "calls", "at most", "cost"], *map(table_row, forecasts)]
    known = [part.cost for part in forecasts if part.cost and not part.note]
    total = f"In all {dollars(sum(low for low, _ in known))} to {dollars(sum(high for _, high in known))}"
    unknown = [part.name for part in forecasts if part.cost is None or part.note.startswith("not known")]
    beside = f", and what {', '.join(unknown)} cost" if unknown else ""
    return [*columns(rows), f"{total}{beside} (short to long answers). Nothing was sent."]


def table_row(part: Forecast) -> list[str]:
    """Return the cells of one step."""
    if part.note:
        return [part.name, "", "", part.note]
    cost = "no price is known" if part.cost is None else " to ".join(map(dollars, dict.fromkeys(part.cost)))
    return [part.name, f"{part.calls:,.0f}", f"{part.most_calls:,.0f}", cost]
