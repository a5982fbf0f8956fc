"""How difficult prompts are, from 1 to 10 in a judge's opinion, as WizardLM measures it (2304.12244, section 4.3).

The paper shows its mean for the seeds and for each round of Evol-Instruct. So rows keep the number of their round, and
the table has a line for each. Answers are neither needed nor looked at; a response stays as it is.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

from datagen.engine.method import Method, Table
from datagen.errors import CallFailed, ParseError
from datagen.judges.judges import ASKS, REMINDER, UNREAD, Judges, draw_labels, label_texts
from datagen.judges.points import read_points
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Record, Row, fail, keep, reject, request_text, row_id

DIFFICULTY = "judge/difficulty"
ASPECT = "difficulty"
LOWEST, HIGHEST = 1, 10
NORMAL = 1.96
"""Standard errors on each side of a mean that an interval of 95 % takes."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen judge --by difficulty`."""


class Interval(NamedTuple):
    """A mean, and its interval of 95 % (normal); None with fewer than two values."""

    mean: float
    low: float | None
    high: float | None


@dataclass
class DifficultyTable(Table):
    """How many prompts have each difficulty, by the round of Evol-Instruct that made them."""

    rounds: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """By the number of the round as text; "" for rows without one."""
    unread: int = 0

    def add(self, candidate: Candidate) -> None:
        meta = candidate.row["meta"]
        if candidate.status == "kept":
            number = meta.get("round")
            self.rounds["" if number is None else str(number)][meta[ASPECT]] += 1
        elif candidate.reason == "judge_unparsed":
            self.unread += 1

    def as_dict(self) -> dict[str, Any]:
        rounds = {name: {str(n): counts[n] for n in sorted(counts)} for name, counts in sorted_rounds(self.rounds)}
        return {ASPECT: rounds, "unread": self.unread}

    def tables(self) -> list[list[list[str]]]:
        if not self.rounds:
            return []
        lines = [["round", "prompts", "difficulty", "95 %"]]
        for name, counts in sorted_rounds(self.rounds):
            mean, low, high = interval_of(counts)
            interval = "-" if low is None else f"{low:.2f} to {high:.2f}"
            lines.append([name or "-", str(counts.total()), f"{mean:.2f}", interval])
        return [lines]


def sorted_rounds(rounds: Mapping[str, Counter[int]]) -> list[tuple[str, Counter[int]]]:
    """Return the rounds in their order, rows without a round first."""
    return sorted(rounds.items(), key=lambda item: (len(item[0]), item[0]))


def interval_of(counts: Mapping[int, int]) -> Interval:
    """Return the mean of values that are counted, with its interval."""
    values = [value for value, number in counts.items() for _ in range(number)]
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    half = NORMAL * stdev(values) / sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


class Difficulty(Method):
    """Rate how difficult each prompt is."""

    name, variant = "judge", "difficulty"
    options_type = Options
    options: Options
    roles = {"judge": "judges the answers"}
    templates = (DIFFICULTY, REMINDER)
    table_type = DifficultyTable
    reasons = {"judge_unparsed": "The judge's reply could not be read, so the prompt has no difficulty."}
    asks = {UNREAD: ASKS[UNREAD]}

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the row, with its difficulty."""
        # 1. Show the request alone, under a label that it cannot know.
        judges = Judges(record, llm, allow_self=True)
        request = request_text(record.prompt)
        labels = draw_labels(record.random("label"), [request])
        form = f"{labels[0]} {ASPECT}: ({LOWEST} to {HIGHEST})"
        prompt = self.prompts[DIFFICULTY].render(form=form, request=label_texts(labels, [request], "Request"))
        (member,) = judges.members
        meta = self.row_meta(
            record,
            details={"round": record.meta.get("round")},
            model=record.meta.get("model"),
            judges=[llm.identities("judge")[member]],
            difficulty=None,
        )

        # 2. Ask. A reply that cannot be read is no difficulty.
        reminder = self.prompts[REMINDER].render(form=form)
        try:
            reply = await judges.ask(prompt, member, partial(read_difficulty, label=labels[0]), reminder=reminder)
        except CallFailed as error:
            yield fail(error, record=record.row, meta=meta)
            return
        if reply is None:
            dropped = reject(
                "judge_unparsed", stage=self.variant, record=record.row, reply=judges.unread_reply, meta=meta
            )
            yield judges.note_replies(dropped)
            return
        meta[ASPECT] = reply.value
        yield judges.note_replies(keep(self.row(record, meta)))

    def row(self, record: Record, meta: Row) -> Row:
        """Return the row of a prompt, with its response if it has one."""
        texts: Row = {"prompt": record.prompt}
        if record.response is not None:
            texts |= {"response": record.response, **record.beside_response}
        name = row_id(f"judge {self.variant}", [record.id], record.pass_no, [*texts.values(), meta[ASPECT]])
        return {"id": name, **texts, "meta": meta, **record.carried}

    def bound(self, record: Record, llm: Roles) -> int:
        return 1


def read_difficulty(text: str, label: str) -> int:
    """Read the difficulty of a request.

    Args:
        text: The judge's reply.
        label: The label of the request.

    Raises:
        ParseError: There is none, or it is no whole number from 1 to 10.
    """
    value = read_points(text, [label], {ASPECT: HIGHEST})[label, ASPECT]
    if value < LOWEST or value != int(value):
        raise ParseError(f"no whole number from {LOWEST} to {HIGHEST}: {value:g}")
    return int(value)
