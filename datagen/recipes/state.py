"""Which steps of a recipe are done: what each one ran with, and what it left.

A step that is done is skipped, and one whose words or inputs are others than before replaces what it wrote then. All
the rest is in the commands themselves: one that runs again finds its own answers and checkpoints.
"""

import json
import re
from pathlib import Path

from datagen.commands.flags import MethodCall
from datagen.recipes.recipe import CODE
from datagen.recipes.steps import Line
from datagen.records.files import content_digest, write_json
from datagen.records.record import Row

STATE = "recipe.json"
PREFIX = re.compile(r"hf:|replay:|[0-9.]+\*")
"""What stands before a path in a value: a kind of model, a weight."""
TELLING = ("run/report.json", "config.json", "adapter_config.json")
"""The files of a model's folder that change with it: the weights need not be read."""


class State:
    """The steps that have run in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            steps = json.loads((folder / STATE).read_bytes())["steps"]
        except (OSError, ValueError, LookupError, TypeError):  # none yet, or damaged: every command looks by itself
            steps = {}
        self._steps: dict[str, Row] = steps if isinstance(steps, dict) else {}

    def is_done(self, line: Line) -> bool:
        """Whether a step has run with these words on these files, and what it wrote is still there."""
        output = self._digest(line.output)
        return output is not None and self._steps.get(line.step.name) == {**self._inputs(line), "output": output}

    def begin(self, line: Line) -> bool:
        """Note that a step begins; return whether it is to replace what is there.

        Rows of an earlier run are replaced at no cost. A model is replaced that was trained with other words or on
        other files, until the step has begun its own: what tells is kept, for a run that is killed in between.
        """
        before, now = self._steps.get(line.step.name), self._inputs(line)
        if isinstance(line.parsed, MethodCall):
            self._write(line, now)
            return before is not None
        replaces = before and before.get("replaces")
        if before and {key: before.get(key) for key in now} != now:
            replaces = self._identity(line)
        self._write(line, {**now, "replaces": replaces})
        return replaces is not None and replaces == self._identity(line)

    def end(self, line: Line) -> None:
        """Note that a step is done."""
        self._write(line, {**self._inputs(line), "output": self._digest(line.output)})

    def _identity(self, line: Line) -> str | None:
        """Return the digest of what says by which command an output was made."""
        output = Path(line.output)
        names = map(str, (output / "run/config.json", output.with_suffix(".meta.json"), output))
        return next(filter(None, map(self._digest, names)), None)

    def _write(self, line: Line, entry: Row) -> None:
        self._steps[line.step.name] = entry
        write_json(self._folder / STATE, {"steps": self._steps})

    def _inputs(self, line: Line) -> Row:
        names = {word[prefix.end() if (prefix := PREFIX.match(word)) else 0 :] for word in line.words} - {line.output}
        names |= {code[2] for word in line.words if (code := CODE.fullmatch(word))}
        digests = {name: self._digest(name) for name in sorted(names)}
        return {"words": list(line.words), "inputs": {name: digest for name, digest in digests.items() if digest}}

    def _digest(self, name: str) -> str | None:
        """Return the digest of a file or folder; None if there is none."""
        path = self._folder / name
        if name == "" or not path.exists():
            return None
        if not path.is_dir():
            return content_digest(path)
        parts = [path / part for part in TELLING if (path / part).is_file()]
        return " ".join(map(content_digest, parts)) if parts else content_digest(path)
