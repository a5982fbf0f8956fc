"""Precision and recall of the rules on what models write around prompts, and what they do to good rows.

    python -m benchmarks.rules

`tests/data/replies_seen.jsonl` and `replies_held_out.jsonl` have replies in the manner of sixteen model families. The
rules were written with the first file in view, without the second: so the second shows how they generalise, as far as
one author's idea of a family goes. A rewrite is right if the clean prompt comes out, or the rule that was meant drops
it. The last column counts rows of public data that a rule would drop, or change, of a thousand.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.elimination import markdown
from datagen.errors import ParseError
from datagen.generators.self_instruct import read_tasks
from datagen.records.record import Record, Row, request_text
from datagen.select import Rule, first_reason
from datagen.select.elimination import BEFORE_ANSWER, Step, answered, leaked, refused
from datagen.select.heuristics import FILTERS
from datagen.select.mentions import points_at_text
from datagen.select.subjects import read_subjects
from datagen.select.wrapping import unwrap
from tests.conftest import REAL_DATA

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
SEEN, HELD_OUT = "seen", "held_out"
PARENT = "Name a tree."
PROMPTS = (
    "self_instruct/seed_tasks.jsonl",
    "sft/oasst_zh_sft_dev.json",
    "ifeval/input_data_341.jsonl",
    "prefs/dpo_sharegpt_en_dev.json",
    "prefs/hhh_dev.jsonl",
)
ANSWERED = ("self_instruct/seed_tasks.jsonl", "sft/oasst_zh_sft_dev.json", "gsm8k/train_2000.jsonl")


class Outcome(NamedTuple):
    """What a rule should do with a reply, and what it does: a name, or None for nothing."""

    rule: str
    family: str
    expected: object
    got: object


def load(name: str) -> list[Row]:
    """Read the replies of one of the two files."""
    return [json.loads(line) for line in (DATA / f"replies_{name}.jsonl").read_text("utf-8").splitlines()]


def outcomes(rows: Iterable[Row]) -> Iterator[Outcome]:
    """Yield what the rules do with replies."""
    for row in rows:
        reply, family = row["reply"], row["family"]
        if row["kind"] == "rewrite":
            child = unwrap(reply, row["parent"])
            if row["text"]:
                wrapped = row["text"] != reply.strip()
                yield Outcome(
                    "unwrap", family, row["text"] if wrapped else None, None if child == reply.strip() else child
                )
            got = first_reason(BEFORE_ANSWER, Step(row["parent"], child))
            for name in ("leaked", "refused", "answered"):
                yield Outcome(name, family, name if row["rule"] == name else None, name if got == name else None)
        elif row["kind"] == "refusal":
            yield Outcome("refused", family, row["rule"], refused(Step(PARENT, reply)))
        elif row["kind"] == "instruction":
            yield Outcome("mentions_text", family, row["rule"], "mentions_text" if points_at_text(reply) else None)
        else:
            yield Outcome("read_tasks", family, row["instructions"], instructions_of(reply))


def instructions_of(reply: str) -> list[str] | None:
    """Return the instructions of a reply of self-instruct; None for one that cannot be read."""
    try:
        return [task["instruction"] if task else "" for task in read_tasks(reply)]
    except ParseError:
        return None


def precision(results: list[Outcome]) -> float:
    """Return the share of right ones of what a rule drops or changes."""
    acted = [one for one in results if one.got is not None]
    return sum(one.got == one.expected for one in acted) / len(acted) if acted else float("nan")


def recall(results: list[Outcome]) -> float:
    """Return the share of what a rule should drop or change that it drops or changes rightly."""
    due = [one for one in results if one.expected is not None]
    return sum(one.got == one.expected for one in due) / len(due) if due else float("nan")


@cache
def good_rows(names: tuple[str, ...]) -> list[Record]:
    """Read the rows of public files."""
    return [row for name in names for row in read_subjects(str(REAL_DATA / name))]


def of_thousand(acts: Callable[[Record], object], names: tuple[str, ...]) -> str:
    """Return how many of a thousand good rows a rule drops or changes."""
    rows = good_rows(names)
    return f"{1000 * sum(bool(acts(row)) for row in rows) / len(rows):.1f}"


def of_prompt(rule: Rule[Step]) -> Callable[[Record], object]:
    """Return a rule of Evol-Instruct that looks at a prompt of a person."""
    return lambda row: rule(Step(PARENT, request_text(row.prompt)))


ON_PROMPTS: dict[str, Callable[[Record], object]] = {
    "unwrap": lambda row: unwrap(request_text(row.prompt)) != request_text(row.prompt).strip(),
    "leaked": of_prompt(leaked),
    "refused": of_prompt(refused),
    "answered": of_prompt(answered),
    "mentions_text": lambda row: points_at_text(request_text(row.prompt)),
}


def rule_table() -> list[str]:
    """Return the table of the rules: both files, and good prompts."""
    parts = {name: list(outcomes(load(name))) for name in (SEEN, HELD_OUT)}
    lines = []
    for rule in (*ON_PROMPTS, "read_tasks"):
        cells: list[object] = [f"`{rule}`"]
        for results in parts.values():
            of_rule = [one for one in results if one.rule == rule]
            cells += [
                sum(one.expected is not None for one in of_rule),
                f"{precision(of_rule):.2f}",
                f"{recall(of_rule):.2f}",
            ]
        lines.append([*cells, of_thousand(ON_PROMPTS[rule], PROMPTS) if rule in ON_PROMPTS else "-"])
    heading = ("rule", "cases", "precision", "recall", "held out", "precision", "recall", "of 1,000 good rows")
    return markdown(heading, *lines)


def family_table() -> list[str]:
    """Return the table of the families: replies with which every rule does what it should."""
    lines = []
    for name in (SEEN, HELD_OUT):
        results = list(outcomes(load(name)))
        for family in dict.fromkeys(one.family for one in results):
            own = [one for one in results if one.family == family]
            right = sum(one.got == one.expected for one in own)
            lines.append((family, "held out" if name == HELD_OUT else "", len(own), f"{100 * right / len(own):.0f} %"))
    return markdown(("family", "", "decisions", "right"), *lines)


def filter_table() -> list[str]:
    """Return the table of the filters on answers that people wrote."""
    cells = [(f"`{name}`", of_thousand(rule, ANSWERED)) for name, rule in FILTERS.items()]
    return markdown(("filter", "of 1,000 good answers"), *cells)


def main() -> None:
    print(*rule_table(), "", *family_table(), "", *filter_table(), sep="\n")


if __name__ == "__main__":
    main()
