"""What becomes of a model's reasoning in the rows: the option `--reasoning` of every command that writes answers.

It is applied to the finished candidates, and the requests do not depend on it: with another choice the same command
reads the recorded replies again.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from datagen.engine.options import option
from datagen.engine.unobtained import WITHOUT, ask
from datagen.records.record import Candidate, Row, reject

KEEP, DROP, ONLY = CHOICES = ("keep", "drop", "only")
ANSWERS = {
    "response": "reasoning", "responses": "reasoning", "chosen": "chosen_reasoning", "rejected": "rejected_reasoning"
}  # fmt: skip
"""The fields that hold answers, and where what was thought before them stands."""


def reasoning_option() -> Any:
    """Declare `--reasoning` as a field of a method's options."""
    return option(
        KEEP,
        "Reasoning of the model before its answers: keep it in the rows, drop it, or keep only rows in which every "
        "answer has it. One of: keep, drop, only.",
        choices=CHOICES,
    )


def apply_reasoning(candidate: Candidate, choice: str) -> Candidate:
    """Return a candidate as `--reasoning` wants it: a kept row may lose its reasoning, or be rejected without it."""
    row = candidate.row
    if candidate.status != "kept" or choice == KEEP:
        return candidate
    if choice == DROP:
        return replace(candidate, row=without_reasoning(row))
    if all(has_reasoning(text) for text in reasonings_of(row)):
        return ask(candidate, WITHOUT, 1, 0)
    record = {name: value for name, value in row.items() if name != "meta"}
    dropped = reject("no_reasoning", stage="reasoning", record=record, reply=row.get("response"), meta=row["meta"])
    dropped.asks = candidate.asks
    return ask(dropped, WITHOUT, 1, 1)


def reasonings_of(row: Row) -> Iterator[str | list[str | None] | None]:
    """Yield what was thought before each answer of a row, those of the earlier turns that were made with it too."""
    yield from (row.get(field) for answer, field in ANSWERS.items() if answer in row)
    earlier = row["meta"].get("turns", 1) - 1
    if earlier:
        answers = [turn for turn in row["prompt"] if turn["role"] == "assistant"]
        yield from (turn.get("reasoning_content") for turn in answers[-earlier:])


def has_reasoning(value: str | list[str | None] | None) -> bool:
    """Check that reasoning is known: of an answer, or of each of several."""
    return bool(value) and (isinstance(value, str) or all(value or ()))


def without_reasoning(row: Row) -> Row:
    """Return a row without any reasoning, that of earlier turns included."""
    row = {name: value for name, value in row.items() if name not in ANSWERS.values()}
    if isinstance(row["prompt"], list):
        row["prompt"] = [{k: v for k, v in turn.items() if k != "reasoning_content"} for turn in row["prompt"]]
    return row
