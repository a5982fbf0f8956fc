"""The numbers that a recipe shows at its end, and what to expect of them."""

import json
from pathlib import Path
from typing import Any

from datagen.commands.terminal import columns
from datagen.recipes.recipe import Recipe, Result


def result_lines(recipe: Recipe, folder: Path) -> list[str]:
    """Return a table of the numbers; without any, nothing. What is expected holds for a recipe that runs as it is."""
    rows = [result_row(result, folder, is_changed=recipe.is_changed) for result in recipe.results]
    heading = ["result", "value", *([] if recipe.is_changed else ["expected"])]
    return columns([heading, *rows]) if rows else []


def result_row(result: Result, folder: Path, *, is_changed: bool) -> list[str]:
    """Return the cells of one number."""
    value = read_value(result, folder)
    if is_changed:
        return [result.name, shown(value)]
    expected = "" if result.expect is None else " to ".join(map(shown, dict.fromkeys(result.expect)))
    return [result.name, shown(value), expected + ("" if is_expected(result, value) else "  <- not as expected")]


def read_value(result: Result, folder: Path) -> Any:
    """Return the value in the file of a step; None if it is not there."""
    try:
        value = json.loads((folder / result.file).read_bytes())
        for key in result.value:
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return value


def is_expected(result: Result, value: Any) -> bool:
    """Whether a number lies in its range; one that is not there does not."""
    if result.expect is None:
        return True
    return isinstance(value, int | float) and result.expect[0] <= value <= result.expect[1]


def shown(value: Any) -> str:
    """Return a value as the table has it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
