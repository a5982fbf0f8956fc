"""Ranking many answers: all at once to screen them, two by two where it matters.

One call puts all answers in order (listwise); then the first `--top` of that order are compared in both orders, two
by two (compare.py), since listwise judging is cheap and pairwise judging agrees best with people. The rest keep the
order of the screening, and so do those of which no comparison could be read. A screening that cannot be read leaves all
answers to be compared; what was never compared has no score then.
"""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.errors import ParseError
from datagen.judge.agreement import keep_checks, next_command, table
from datagen.judge.bradley_terry import strengths
from datagen.judge.compare import COMPARE, UNKNOWN, most_calls, prepare, tell, tournament
from datagen.judge.judging import (
    DIGITS,
    ROLES,
    ByRubric,
    Judging,
    allow_self_option,
    check_option,
    logprobs_option,
    panel_option,
    rubric_identity,
    rubric_option,
    shown_answers,
)
from datagen.judge.labels import draw_labels
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.ranked import SAMPLES
from datagen.records.record import Candidate, Record, Row

SCREEN = "judge/screen"
TOP = 3


@dataclass(frozen=True)
class Options(ByRubric):
    """What ranking can be told."""

    rubric: list[str] = rubric_option()
    panel: bool = panel_option()
    allow_self: bool = allow_self_option()
    logprobs: bool = logprobs_option()
    check: bool = check_option()
    top: int = option(TOP, "rank: how many of the first are compared two by two.", least=0)


def read_order(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels as the last `Order: ...` line has them, each once."""
    known = {label.lower(): label for label in labels}
    for line in reversed(text.splitlines()):
        match = re.fullmatch(r"[\s*_#>`]*order[\s*_`]*[:：](.+)", line, re.IGNORECASE)
        named = [known.get(word.lower(), "") for word in re.findall(r"[^\W_]+", match[1])] if match else []
        if sorted(named) == sorted(labels):
            return named
    raise ParseError(f"no line 'Order: ...' that names each of {', '.join(labels)} once")


async def screen(judging: Judging) -> list[int] | None:
    """Ask a judge for the order of all answers, the best first; None if it cannot be read."""
    shown = list(range(len(judging.answers)))
    random = judging.record.random("screen")
    random.shuffle(shown)
    labels = draw_labels(random, judging.answers)
    prompt = judging.prompts[SCREEN].render(
        criteria=judging.criteria,
        form=" > ".join(sorted(labels)),
        prompt=judging.request,
        reference=judging.reference,
        answers=shown_answers(labels, [judging.answers[at] for at in shown]),
    )
    said = await judging.ask(prompt, judging.judges[0], lambda text: read_order(text, labels))
    return None if said is None else [shown[labels.index(label)] for label in said.value]


async def by_rank(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the ranked row of a record."""
    judging = Judging(record, llm, prompts, "rank", options, templates=(SCREEN, COMPARE), extra=dict(UNKNOWN))

    async def judge() -> Candidate:
        order = await screen(judging)
        top = list(range(len(judging.answers))) if order is None else order[: options.top]
        decided = tell(judging, await tournament(judging, sorted(top)))
        met = {at for game in decided for at in (game.first, game.second)}
        found = [round(float(each), DIGITS) for each in strengths(len(judging.answers), decided)]
        ranks = placed(found, sorted(met), [at for at in order or [] if at not in met])
        last = max(ranks.values(), default=0)
        return judging.ranked([float(last - ranks[at]) if at in ranks else None for at in range(len(found))])

    yield await judging.concluded(judge)


def placed(strength: Sequence[float], met: Sequence[int], rest: Sequence[int]) -> dict[int, int]:
    """Rank the compared by their strength, equals alike, and the rest after them in their order."""
    order = sorted({strength[at] for at in met}, reverse=True)
    ranks = {at: 1 + order.index(strength[at]) for at in met}
    return ranks | {at: len(order) + place for place, at in enumerate(rest, 1)}


class Rank(Method):
    """rank."""

    name = "judge"
    variant = "rank"
    options_type = Options
    options: Options
    unique = ("prompt", "responses")
    roles = ROLES
    templates = (SCREEN, COMPARE)
    kind = SAMPLES

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return by_rank(record, llm, self.prompts, self.options)

    def identity(self) -> dict[str, Any]:
        return rubric_identity(self.options.rubric, self.prompts)

    def bound(self, record: Record) -> int:
        return 1 + most_calls(self.options.top)

    @property
    def next_command(self) -> str:
        return next_command(self.options)

    def check(self) -> None:
        prepare(self.options)

    def table(self) -> Table:
        return table(self.options)

    def finish(self, result: Row) -> None:
        keep_checks(self.options, result)
