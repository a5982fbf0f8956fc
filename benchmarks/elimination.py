"""Precision and recall of each elimination rule over the hand-written cases.

    python -m benchmarks.elimination

A case names the first rule that drops it, or none. No model is called: the judge's reply is part of the case, so
`no_gain` shows whether verdicts are parsed correctly, not whether they are right. A hard negative of a rule is a case
that it must keep although a simpler rule would drop it (LURES).

The rules were written with these cases in view, so the first table shows that they work as intended, not how well they
generalise. The second table counts the human-written answers that the rules on answers drop.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datagen.errors import ParseError
from datagen.generators.evolve import read_verdict
from datagen.reasoning import split_thinking
from datagen.records.files import open_input
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, request_text
from datagen.select import first_reason
from datagen.select.elimination import BEFORE_ANSWER, MAX_GROWTH, ON_ANSWER, ON_VERDICT, Step
from datagen.text import count_words
from tests.conftest import REAL_DATA

CASES = Path(__file__).resolve().parents[1] / "tests" / "data" / "eliminations.jsonl"
RULES = (*BEFORE_ANSWER, *ON_VERDICT, *ON_ANSWER)
"""In the order in which a candidate meets them."""
ANSWERED = ("self_instruct/seed_tasks.jsonl", "gsm8k/train_2000.jsonl")
"""Real files whose answers were written by people."""
NOT_ASKED = "No answer was asked for."
"""Used for cases without an answer; no rule drops it."""


class Case(NamedTuple):
    """One line of the file."""

    id: str
    rule: str | None
    """The rule that drops it."""
    hard: bool
    says: str
    """The judge's intended verdict: equal, not equal, unparsed; empty without a judge."""
    reply: str
    """The judge's reply, unchanged."""
    step: Step


LURES: dict[str, Callable[[Case], object]] = {
    "unchanged": lambda case: set(case.step.parent.lower().split()) <= set(case.step.child.lower().split()),
    "leaked": lambda case: re.search("prompt", case.step.child, re.IGNORECASE),
    "refused": lambda case: re.search(r"sorry|can't|cannot|apolog|unable|抱歉|不能", case.step.child, re.IGNORECASE),
    "answered": lambda case: re.match(
        r"sure|certainly|the answer|here (?:is|are)|```|好的", case.step.child, re.IGNORECASE
    ),
    "overgrown": lambda case: count_words(case.step.child) - count_words(case.step.parent) > MAX_GROWTH / 2,
    "no_gain": lambda case: re.search(r"(?<!not )\bequal\b", case.reply, re.IGNORECASE),
    "apology": lambda case: re.search("sorry|抱歉|对不起", case.step.response, re.IGNORECASE),
    "stop_words": lambda case: count_words(case.step.response) <= 3,
}
"""The pattern of a simpler, careless rule."""


class Score(NamedTuple):
    """Counts of one rule over all cases."""

    rule: str
    should: int
    """Cases that it should drop."""
    dropped: int
    right: int
    hard_negatives: int

    @property
    def precision(self) -> float:
        return self.right / self.dropped if self.dropped else float("nan")

    @property
    def recall(self) -> float:
        return self.right / self.should


def load_cases() -> list[Case]:
    """Read the cases; a verdict goes through the parser that reads a judge's."""
    rows = map(json.loads, CASES.read_bytes().splitlines())
    return [
        Case(
            row["id"], row["rule"], row["hard"], row["says"] or "", row["verdict"] or "",
            Step(row["parent"], row["child"], read_reply_verdict(row["verdict"]), row["response"] or NOT_ASKED),
        )
        for row in rows
    ]  # fmt: skip


def read_reply_verdict(reply: str | None) -> str:
    """Parse the verdict of a judge's reply as the stack does, without the reasoning."""
    if reply is None:
        return ""
    try:
        return read_verdict(split_thinking(reply)[1])
    except ParseError:
        return "unparsed"


def score(rule: str, cases: Sequence[Case]) -> Score:
    """Count the cases that a rule is the first to drop."""
    dropped = [case for case in cases if first_reason(RULES, case.step) == rule]
    right = sum(case.rule == rule for case in dropped)
    hard = sum(case.hard and case.rule != rule and bool(LURES[rule](case)) for case in cases)
    return Score(rule, sum(case.rule == rule for case in cases), len(dropped), right, hard)


def real_answers(path: Path) -> Counter[str | None]:
    """Count the answers of a file by the rule that drops them; None counts those kept."""
    with open_input(str(path)) as file:
        rows = [row for row in Reader(path.name, file, PROMPTS).read() if isinstance(row, Record) and row.response]
    return Counter(
        first_reason(ON_ANSWER, Step("", request_text(row.prompt), response=row.response or "")) for row in rows
    )


def markdown(*rows: Iterable[object]) -> list[str]:
    """Return the lines of a Markdown table; the first row is the heading."""
    heading, *rest = (list(map(str, row)) for row in rows)
    return [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rest)]


def rule_table(cases: Sequence[Case]) -> list[str]:
    """Return a table of the rules over the cases."""
    scores = [score(rule.__name__, cases) for rule in RULES]
    return markdown(
        ("rule", "cases to drop", "precision", "recall", "hard negatives"),
        *((f"`{s.rule}`", s.should, f"{s.precision:.3f}", f"{s.recall:.3f}", s.hard_negatives) for s in scores),
    )


def answer_table(paths: Iterable[Path]) -> list[str]:
    """Return a table of the human-written answers that each rule drops."""
    counts = [(path.name, real_answers(path)) for path in paths]
    return markdown(
        ("answers written by people", "number", *(f"`{rule.__name__}`" for rule in ON_ANSWER)),
        *((name, reasons.total(), *(reasons[rule.__name__] for rule in ON_ANSWER)) for name, reasons in counts),
    )


def main() -> None:
    cases = load_cases()
    print(f"{len(cases)} cases, {sum(case.rule is None for case in cases)} of them to be kept\n", flush=True)
    print(*rule_table(cases), sep="\n", flush=True)
    if files := [path for name in ANSWERED if (path := REAL_DATA / name).exists()]:
        print("", *answer_table(files), sep="\n")


if __name__ == "__main__":
    main()
