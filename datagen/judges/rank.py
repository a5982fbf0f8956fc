"""Ranking many answers: all at once to screen them, two by two where it matters.

One call puts all answers in order (listwise); then the first `--top` of that order are compared in both orders, two
by two (compare.py), since listwise judging is cheap and pairwise judging agrees best with people. The rest keep the
order of the screening, and so do those of which no comparison could be read. A screening that cannot be read leaves all
answers to be compared; what was never compared has no score then. Equal answers are shown once and share their rank.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from datagen.engine.options import option
from datagen.errors import ParseError
from datagen.judges import compare
from datagen.judges.compare import COMPARE, Compare
from datagen.judges.judge_method import DIGITS, Judgement
from datagen.judges.judges import REMINDER, Judges, draw_labels, first_equals, label_texts
from datagen.llm.model import Roles
from datagen.records.record import Record

SCREEN = "judge/screen"
TOP = 3


@dataclass(frozen=True)
class Options(compare.Options):
    """Options of `datagen judge --by rank`."""

    top: int = option(TOP, "rank: number of top-ranked answers that are compared pairwise.", least=0)


class Rank(Compare):
    """Order all answers in one call, then compare the first of them two by two."""

    variant = "rank"
    options_type = Options
    options: Options
    templates = (SCREEN, COMPARE, REMINDER)

    async def judge(self, judges: Judges) -> Judgement:
        """Screen all answers, and compare the best of them; scores are ranks counted from the last."""
        # 1. Listwise: one call orders all different answers.
        equal_to = first_equals(judges.answers)
        different = sorted(set(equal_to))
        order = await self.screen(judges, different) if len(different) > 1 else different

        # 2. Pairwise: the first of that order against each other, in both orders.
        top = different if order is None else sorted(order[: self.options.top])
        judgement = await self.tournament(judges, top)

        # 3. The compared ones stand first, by strength; the rest follows in the order of the screening.
        strength = {place: round(score, DIGITS) for place, score in enumerate(judgement.scores) if score is not None}
        ranks = merge_ranks(strength, [place for place in order or [] if place not in strength])
        last = max(ranks.values(), default=0)
        scores = [float(last - ranks[place]) if place in ranks else None for place in equal_to]
        return replace(judgement, scores=scores)

    async def screen(self, judges: Judges, different: Sequence[int]) -> list[int] | None:
        """Ask a judge for the order of different answers, by their places.

        Returns:
            The places, the best first; None if the reply cannot be read.
        """
        places = list(different)
        random = judges.record.random("screen")
        random.shuffle(places)
        labels = draw_labels(random, judges.answers)[: len(places)]
        form = " > ".join(sorted(labels))
        prompt = self.prompts[SCREEN].render(
            criteria=self.criteria,
            form=form,
            prompt=judges.request,
            reference=judges.reference,
            answers=label_texts(labels, [judges.answers[place] for place in places]),
        )
        reminder = self.prompts[REMINDER].render(form=f"Order: {form}")
        parse = partial(read_order, labels=labels)
        completion = await judges.ask(prompt, judges.members[0], parse, reminder=reminder)
        return None if completion is None else [places[labels.index(label)] for label in completion.value]

    def bound(self, record: Record, llm: Roles) -> int:
        """Return the calls where the screening cannot be read, so that all answers are compared."""
        return 1 + super().bound(record, llm)

    def usual_calls(self, record: Record, llm: Roles) -> int:
        top = min(self.options.top, len(record.responses))
        return 1 + top * (top - 1) * len(self.judges(record, llm).members)


def read_order(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels as the last `Order: ...` line has them, each once."""
    known = {label.lower(): label for label in labels}
    for line in reversed(text.splitlines()):
        match = re.fullmatch(r"[\s*_#>`]*order[\s*_`]*[:：](.+)", line, re.IGNORECASE)
        order = [known.get(word.lower(), "") for word in re.findall(r"[^\W_]+", match[1])] if match else []
        if sorted(order) == sorted(labels):
            return order
    raise ParseError(f"no line 'Order: ...' that names each of {', '.join(labels)} once")


def merge_ranks(strength: Mapping[int, float], rest: Sequence[int]) -> dict[int, int]:
    """Rank the compared answers by their strength, equals alike, and the rest after them in their order.

    Args:
        strength: The strength of each compared answer, by its place.
        rest: The places of the others, the best first.

    Returns:
        Place to rank, 1 the best.
    """
    order = sorted(set(strength.values()), reverse=True)
    ranks = {place: 1 + order.index(value) for place, value in strength.items()}
    return ranks | {place: len(order) + number for number, place in enumerate(rest, 1)}
