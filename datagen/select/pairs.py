"""`datagen pairs`: preferences (chosen, rejected) from ranked or verified samples. No model is asked.

    best_worst     the best answer against the worst
    best_random    the best against one of the others, drawn (Zephyr, arXiv 2310.16944, section 3)
    all            every pair of different ranks, a prompt's pairs one after another (InstructGPT, arXiv 2203.02155)
    verified       a right answer against a wrong one, as verifiers say
    spin           the teacher's answer against the policy's own (SPIN, arXiv 2401.01335)

A pair is made within one row, so it cannot end up at another prompt. Scores that lie closer than `--tie` are no
preference (MT-bench calls 0.1 a tie), answers that are nearly the same are none either, and an answer without a score
is never in a pair. Whether the chosen answers are simply the longer ones is measured on the pairs that come out.

A judge's check (`datagen judge --check`, kept in the working folder) goes along: a judge without one is named, and rows
of a judge whose accuracy may be chance are dropped unless `--weak-judge`.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rapidfuzz.distance import Indel

from datagen.engine.method import Memory, Method, Table, Unique
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.judge.agreement import is_weak, key_of, read_checks, shown_judge
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.files import open_input
from datagen.records.ranked import SAMPLES
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Candidate, Record, Row, canonical, digest, keep, reject, row_id
from datagen.verify.answers import final_answer, same_answer

TIE = 0.1
"""Scores closer than this are equal (MT-bench, arXiv 2306.05685)."""
NEAR = 0.95
"""Indel similarity from which two answers are nearly the same; our choice. Where they state different results, a
single digit is all the difference, and counts."""


@dataclass(frozen=True)
class Options:
    """What making pairs can be told."""

    margin: float = option(0.0, "The least difference of scores.", least=0)
    tie: float = option(TIE, "Scores that lie closer are a tie, and no pair.", least=0)
    near: float = option(NEAR, "The similarity from which two answers are the same, and no pair.", least=0, most=1)
    length_ratio: float | None = option(
        None, "The most that one answer may be longer than the other, as a ratio: matched lengths.", least=1
    )
    weak_judge: bool = option(False, "Make pairs even if the judge's check leaves open that it guesses.")
    teacher: Path | None = option(None, "spin: a file of prompts with the teacher's responses.")


class Pair(NamedTuple):
    """Two answers, by their places in the row."""

    chosen: int
    rejected: int


Choose = Callable[[Record], list[Pair]]


def ranked(record: Record) -> list[int]:
    """Return the places of the answers that have a rank, the best first; one whose score is null has none."""
    if not record.ranks:
        raise InputError(
            f"row {record.id}: no ranks: rank the answers first with 'datagen judge', or use --by verified"
        )
    scored = [at for at in range(len(record.ranks)) if not record.scores or record.scores[at] is not None]
    return sorted(scored, key=lambda at: (record.ranks[at], at))


def best_worst(record: Record) -> list[Pair]:
    order = ranked(record)
    return [Pair(order[0], order[-1])] if len(order) > 1 else []


def best_random(record: Record) -> list[Pair]:
    order = ranked(record)
    return [Pair(order[0], record.random("rejected").choice(order[1:]))] if len(order) > 1 else []


def every(record: Record) -> list[Pair]:
    return [Pair(*pair) for pair in combinations(ranked(record), 2)]


def verified(record: Record) -> list[Pair]:
    """Pair right and wrong answers, each once, as far as there are enough of both."""
    about = record.meta.get("responses") or []
    right = [at for at, each in enumerate(about) if each.get("verified") is True]
    wrong = [at for at, each in enumerate(about) if each.get("verified") is False]
    return [Pair(*pair) for pair in zip(right, wrong, strict=False)]


WAYS: dict[str, Choose] = {
    "best_worst": best_worst,
    "best_random": best_random,
    "all": every,
    "verified": verified,
}


JUDGED = ("best_worst", "best_random", "all")
"""Ways that go by ranks, which a judge may have made."""


@cache
def checks() -> dict[str, Row]:
    """Return the checks of judges that were made in the working folder."""
    return read_checks()


def is_guess(record: Record) -> bool:
    """Was a row judged by a judge whose check leaves open that it guesses?"""
    check = checks().get(str(key_of(record.meta)))
    return check is not None and is_weak(check)


@cache
def teacher_answers(path: Path) -> dict[bytes, Record]:
    """Read the teacher's row with a response to every prompt of a file."""
    with open_input(str(path)) as file:
        rows = [row for row in Reader(str(path), file, PROMPTS).read() if isinstance(row, Record) and row.response]
    return {canonical(row.prompt): row for row in rows}


def make_pairs(way: str) -> Any:
    """Return the generator of one way."""

    async def pairs(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
        if way in JUDGED and is_guess(record) and not options.weak_judge:
            yield dropped(record, way, "weak_judge", None)
            return
        found = list(spin(record, options) if way == "spin" else of_row(record, WAYS[way]))
        if not found:
            yield dropped(record, way, "no_pair", None)
        for place, pair in enumerate(found):
            if reason := fault(pair, options):
                yield dropped(record, way, reason, pair.answers[1])
            else:
                yield preference(record, way, place, pair)

    return pairs


class Found(NamedTuple):
    """A chosen and a rejected answer, in this order, and what is known of them."""

    answers: tuple[str, str]
    scores: tuple[float, float] | None
    models: tuple[str | None, str | None]
    """Who wrote them."""
    more: Row


def of_row(record: Record, choose: Choose) -> Iterator[Found]:
    """Yield the answers of each pair of a row."""
    for chosen, other in choose(record):
        scores = None
        if record.ranks and record.ranks[chosen] == record.ranks[other]:
            scores = (0.0, 0.0)
        elif record.scores:
            scores = (float(record.scores[chosen] or 0.0), float(record.scores[other] or 0.0))
        more = {} if choose is verified else soft_label(record, chosen, other)
        models = writer(record, chosen), writer(record, other)
        yield Found((record.responses[chosen], record.responses[other]), scores, models, more)


def writer(record: Record, place: int) -> str | None:
    """Return who wrote an answer of a row, as far as it says so."""
    told = record.meta.get("responses") or []
    return told[place].get("model") if place < len(told) else None


def soft_label(record: Record, chosen: int, other: int) -> Row:
    """Return the label that a judge asked for probabilities gave to a pair; nothing if no judge was."""
    told = [each for each in record.meta.get("comparisons") or [] if each.get("soft_label") is not None]
    labels = {(each["first"], each["second"]): each["soft_label"] for each in told}
    labels |= {(second, first): round(1 - label, 4) for (first, second), label in labels.items()}
    return {"soft_label": labels.get((chosen, other))} if told else {}


def spin(record: Record, options: Options) -> Iterator[Found]:
    """Yield the teacher's answer against each of the policy's."""
    assert options.teacher is not None
    best = teacher_answers(options.teacher).get(canonical(record.prompt))
    if best is not None:
        teacher = best.meta.get("model")
        for place, own in enumerate(record.responses):
            yield Found((best.response or "", own), None, (teacher, writer(record, place)), {})


def fault(pair: Found, options: Options) -> str | None:
    """Say why two answers are no preference, if they are none."""
    (chosen, other), scores = pair.answers, pair.scores
    if not chosen.strip() or not other.strip():
        return "empty"
    alike = Indel.normalized_similarity(chosen, other) >= options.near
    if alike and same_answer(final_answer(chosen), final_answer(other)) is not False:
        return "near_identical"
    gap = None if scores is None else round(scores[0] - scores[1], 4)  # 1.1 - 1.0 is more than 0.1 in floats
    if gap is not None and gap <= options.tie:
        return "tie"
    if gap is not None and gap < options.margin:
        return "small_margin"
    longer, shorter = sorted((len(chosen), len(other)), reverse=True)
    return "unlike_lengths" if options.length_ratio and longer > options.length_ratio * max(shorter, 1) else None


def preference(record: Record, way: str, place: int, pair: Found) -> Candidate:
    (chosen, other), scores = pair.answers, pair.scores
    meta = meta_of(record, way) | {"models": list(pair.models)}
    name = row_id(f"pairs {way}", [record.id], [record.pass_no, place], [record.prompt, chosen, other])
    margin = round(scores[0] - scores[1], 4) if scores else None
    row = {"id": name, "prompt": record.prompt, "chosen": chosen, "rejected": other, "margin": margin, "meta": meta}
    return keep(row | pair.more | record.extra)


def meta_of(record: Record, way: str) -> Row:
    return {
        "method": "pairs",
        "op": way,
        **record.lineage,
        "judges": list(record.meta.get("judges") or []),
        "judging": key_of(record.meta) if way in JUDGED else None,
        "models": None,
    }


def dropped(record: Record, way: str, reason: str, reply: str | None) -> Candidate:
    about = {"id": record.id, "prompt": record.prompt}
    return reject(reason, stage=f"pairs {way}", record=about, reply=reply, meta=meta_of(record, way))


class PairTable:
    """Are the chosen answers simply the longer ones (lengths in characters), and how good are the judges?"""

    def __init__(self) -> None:
        self.lengths: list[tuple[int, int]] = []
        self.judged = Counter[str]()

    def add(self, candidate: Candidate) -> None:
        if candidate.status == "kept":
            self.lengths.append((len(candidate.row["chosen"]), len(candidate.row["rejected"])))
        if judging := candidate.row["meta"]["judging"]:
            self.judged[judging] += 1

    def as_dict(self) -> dict[str, Any]:
        if not self.lengths:
            return {}
        longer = [0.5 if chosen == other else float(chosen > other) for chosen, other in self.lengths]
        return {
            "pairs": len(self.lengths),
            "chosen_longer": round(fmean(longer), 4),
            "chosen_length": round(fmean(chosen for chosen, _ in self.lengths), 1),
            "rejected_length": round(fmean(other for _, other in self.lengths), 1),
            "judges": {judging: checks().get(judging) for judging in self.judged},
        }

    def tables(self) -> list[list[list[str]]]:
        told = self.as_dict()
        if not told:
            return []
        heading = ["pairs", "chosen is the longer", "mean length chosen", "rejected"]
        share, lengths = f"{100 * told['chosen_longer']:.1f} %", (told["chosen_length"], told["rejected_length"])
        return [[heading, [str(told["pairs"]), share, *(f"{length:.0f}" for length in lengths)]], self._judges()]

    def _judges(self) -> list[list[str]]:
        return [["judge", "accuracy against people"], *([*shown_judge(judging)] for judging in self.judged)]


def prepare(options: Options) -> None:
    checks.cache_clear()
    if options.teacher:
        teacher_answers(options.teacher)


def prepare_spin(options: Options) -> None:
    if options.teacher is None:
        raise InputError("--by spin needs --teacher FILE: prompts with the teacher's responses")
    prepare(options)


class Pairs(Method):
    """Best against worst."""

    name, variant = "pairs", "best_worst"
    options_type = Options
    options: Options
    kind = SAMPLES

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        generate: AsyncIterator[Candidate] = make_pairs(self.variant)(record, llm, self.prompts, self.options)
        return generate

    def check(self) -> None:
        prepare(self.options)

    def identity(self) -> dict[str, Any]:
        return {"checks": digest(read_checks())}

    def candidates(self) -> int:
        return 6

    def memory(self) -> Sequence[Memory]:
        return [Unique("prompt", "chosen", "rejected")]

    def table(self) -> Table:
        return PairTable()

    def next_command(self) -> str:
        return "datagen train dpo {}"


class PairsBestRandom(Pairs):
    """Best against a random other one."""

    variant = "best_random"


class PairsAll(Pairs):
    """Every pair of different rank."""

    variant = "all"


class PairsVerified(Pairs):
    """Right against wrong answers."""

    variant = "verified"


class PairsSpin(Pairs):
    """The teacher's answer against each of the policy's (SPIN)."""

    variant = "spin"

    def check(self) -> None:
        prepare_spin(self.options)
