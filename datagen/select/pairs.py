"""`datagen pairs`: preferences (chosen, rejected) from ranked or verified samples, without calls.

    best_worst     the best answer against the worst
    best_random    the best against a random other one (Zephyr, arXiv 2310.16944, section 3)
    all            every pair of different ranks, a prompt's pairs one after another (InstructGPT, arXiv 2203.02155)
    verified       a right answer against a wrong one, according to verifiers
    spin           the teacher's answer against each of the policy's (SPIN, arXiv 2401.01335)
    delta          an answer of a stronger model against one of a weaker (delta learning, arXiv 2507.06187)

A pair is made within one row, so both answers have the same prompt. Scores that differ by at most `--tie` are no
preference (MT-bench calls 0.1 a tie), nor are nearly identical answers, and an answer without a score is never in a
pair. Whether the chosen answers are simply the longer ones is measured on the resulting pairs.

A judge's check (`datagen judge --check`, kept in the working folder) is used: a judge without one is named in the
table, and rows of a judge whose accuracy may be chance are dropped unless `--weak-judge`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from rapidfuzz.distance import Indel

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.judges.agreement import is_weak, judge_key, read_checks
from datagen.judges.preferences import PreferenceTable
from datagen.llm.model import Roles
from datagen.llm.names import is_same_model
from datagen.llm.sim import VERSION as SIM_VERSION
from datagen.records.files import open_input
from datagen.records.ranked import SAMPLES
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Candidate, Record, Row, canonical, digest, keep, reasoning_field, reject, row_id
from datagen.verify.answers import final_answer
from datagen.verify.equality import same_answer

TIE = 0.1
"""Scores closer than this are equal (MT-bench, arXiv 2306.05685)."""
NEAR = 0.95
"""Indel similarity from which two answers are nearly identical; our choice. Where they state different results, one
digit may be the whole difference, and they are a pair."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen pairs`."""

    margin: float = option(0.0, "Minimum score difference between chosen and rejected.", least=0)
    tie: float = option(TIE, "Maximum score difference of a tie; a tie makes no pair.", least=0)
    near: float = option(NEAR, "Minimum similarity of near-duplicates, which make no pair.", least=0, most=1)
    length_ratio: float | None = option(
        None, "Length matching: maximum ratio of the longer answer to the shorter one.", least=1
    )
    weak_judge: bool = option(False, "Make pairs even if the judge's accuracy is not significantly above chance.")
    teacher: Path | None = option(None, "spin: file of prompts with the teacher's responses, which become chosen.")
    strong: str | None = option(None, "delta: model whose answers become chosen; those of other models are rejected.")


class PairCandidate(NamedTuple):
    """A chosen and a rejected answer."""

    chosen: str
    rejected: str
    scores: tuple[float, float] | None
    """Of the chosen and the rejected answer; None where there are none."""
    models: tuple[str | None, str | None]
    """The models that wrote them, where known."""
    reasonings: tuple[str | None, str | None]
    """What was thought before them, where known."""
    extra: Row
    """Further fields of the preference: the judge's soft label."""


class Pairs(Method):
    """The best answer against the worst one."""

    name, variant = "pairs", "best_worst"
    options_type = Options
    options: Options
    unique = ("prompt", "chosen", "rejected")
    candidates = 6
    kind = SAMPLES
    reasons = {
        "tie": "The ranks are equal, or the scores differ by at most --tie.",
        "small_margin": "The scores differ by less than --margin.",
        "empty": "One of the two answers is empty.",
        "near_identical": "The two answers are nearly the same (--near).",
        "unlike_lengths": "One answer is more than --length-ratio times as long as the other.",
        "no_pair": "The row has no two answers of the kind that --by needs.",
        "unjudged": "Fewer than two answers have a score: the judge's replies could not be read.",
        "weak_judge": "By the judge's check, its accuracy may be chance. Use another, or --weak-judge.",
    }
    rank_based: ClassVar[bool] = True
    """Whether pairs follow ranks, which may be a judge's: then its check counts, and its soft labels are kept."""
    checks: Mapping[str, Row]
    """The judges' checks of the working folder."""
    teacher_rows: Mapping[bytes, Record]
    """The rows of `--teacher`, by prompt."""

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the preferences of one row, and each pair that is none with its reason."""
        stage = f"pairs {self.variant}"
        source, judging = record.meta, None  # the judge whose ranks the pairs follow
        if self.rank_based and source.get("method") == "judge" and source.get("judging"):
            judging = judge_key(source["judges"], source["op"], source["judging"])
        unscored = record.scores.count(None) if self.rank_based else 0
        meta = self.row_meta(
            record,
            judges=list(record.meta.get("judges") or []),
            judging=judging,
            unscored=unscored,
            models=None,
        )
        del meta["pass"]  # the input is read once

        # 1. Leave out a row whose judge may be guessing.
        check = self.checks.get(str(judging))
        if check is not None and is_weak(check) and not self.options.weak_judge:
            yield reject("weak_judge", stage=stage, record=record.row, reply=None, meta=meta)
            return

        # 2. Choose the pairs.
        pairs = self.pair_candidates(record)
        if not pairs:
            unjudged = unscored and len(record.scores) - unscored < 2
            yield reject("unjudged" if unjudged else "no_pair", stage=stage, record=record.row, reply=None, meta=meta)

        # 3. Keep those that are preferences.
        for place, pair in enumerate(pairs):
            if reason := rejection_reason(pair, self.options):
                subject = record.row | {"chosen": pair.chosen, "rejected": pair.rejected}
                yield reject(reason, stage=stage, record=subject, reply=pair.rejected, meta=meta)
                continue
            content = [record.prompt, pair.chosen, pair.rejected]
            yield keep(
                {
                    "id": row_id(stage, [record.id], [record.pass_no, place], content),
                    "prompt": record.prompt,
                    "chosen": pair.chosen,
                    "rejected": pair.rejected,
                    **reasoning_field(pair.reasonings[0], "chosen_reasoning"),
                    **reasoning_field(pair.reasonings[1], "rejected_reasoning"),
                    "margin": round(pair.scores[0] - pair.scores[1], 4) if pair.scores else None,
                    "meta": meta | {"models": list(pair.models)},
                    **pair.extra,
                    **record.carried,
                }
            )

    def choose(self, record: Record) -> list[tuple[int, int]]:
        """Return the pairs of a row, as the places of the chosen and the rejected answer."""
        order = ranked_places(record)
        return [(order[0], order[-1])] if len(order) > 1 else []

    def pair_candidates(self, record: Record) -> list[PairCandidate]:
        """Return the pairs of a row."""
        comparisons = record.meta.get("comparisons") or [] if self.rank_based else []
        soft = {(c["first"], c["second"]): c["soft_label"] for c in comparisons if c.get("soft_label") is not None}
        soft |= {(second, first): round(1 - label, 4) for (first, second), label in soft.items()}
        pairs = []
        for chosen, rejected in self.choose(record):
            scores = None
            if record.ranks and record.ranks[chosen] == record.ranks[rejected]:
                scores = (0.0, 0.0)
            elif record.scores:
                scores = (float(record.scores[chosen] or 0.0), float(record.scores[rejected] or 0.0))
            answers = record.responses[chosen], record.responses[rejected]
            models = author(record, chosen), author(record, rejected)
            reasonings = reasoning_of(record, chosen), reasoning_of(record, rejected)
            extra = {"soft_label": soft.get((chosen, rejected))} if soft else {}
            pairs.append(PairCandidate(*answers, scores, models, reasonings, extra))
        return pairs

    def check(self) -> None:
        self.checks, self.teacher_rows = read_checks(), {}
        if self.options.teacher:
            with open_input(str(self.options.teacher)) as file:
                rows = Reader(str(self.options.teacher), file, PROMPTS).read()
                answered = (row for row in rows if isinstance(row, Record) and row.response)
                self.teacher_rows = {canonical(row.prompt): row for row in answered}

    def identity(self) -> dict[str, Any]:
        return {"checks": digest(self.checks)}

    def table(self) -> PreferenceTable:
        return PreferenceTable(self.checks, unscored=0)


class PairsBestRandom(Pairs):
    """The best answer against a random other one (Zephyr)."""

    variant = "best_random"

    def choose(self, record: Record) -> list[tuple[int, int]]:
        order = ranked_places(record)
        return [(order[0], record.random("rejected").choice(order[1:]))] if len(order) > 1 else []


class PairsAll(Pairs):
    """Every pair of different ranks (InstructGPT)."""

    variant = "all"

    def choose(self, record: Record) -> list[tuple[int, int]]:
        return list(combinations(ranked_places(record), 2))


class PairsVerified(Pairs):
    """A right answer against a wrong one, each used once."""

    variant = "verified"
    rank_based = False

    def choose(self, record: Record) -> list[tuple[int, int]]:
        verified = [answer.get("verified") for answer in record.meta.get("responses") or []]
        right = [place for place, verdict in enumerate(verified) if verdict is True]
        wrong = [place for place, verdict in enumerate(verified) if verdict is False]
        return list(zip(right, wrong, strict=False))


class PairsSpin(Pairs):
    """The teacher's answer against each of the policy's (SPIN)."""

    variant = "spin"
    rank_based = False

    def pair_candidates(self, record: Record) -> list[PairCandidate]:
        teacher = self.teacher_rows.get(canonical(record.prompt))
        if teacher is None:
            return []
        model = teacher.meta.get("model")
        return [
            PairCandidate(
                teacher.response or "",
                response,
                None,
                (model, author(record, place)),
                (teacher.reasoning, reasoning_of(record, place)),
                {},
            )
            for place, response in enumerate(record.responses)
        ]

    def check(self) -> None:
        if self.options.teacher is None:
            raise InputError("--by spin needs --teacher FILE: prompts with the teacher's responses")
        super().check()


class PairsDelta(Pairs):
    """An answer of a stronger model against one of a weaker model, each used once (delta learning).

    No judge looks at them: what is learned is the difference between the models, which both may be weak.
    """

    variant = "delta"
    rank_based = False

    def conflict(self, record: Record, llm: Roles) -> str | None:
        models = sorted({str(author(record, place)) for place in range(len(record.responses))} - {"None"})
        if any(map(self.is_strong, models)):
            return None
        return (
            f"no answer is by --strong {self.options.strong}; the answers are by {', '.join(models) or 'nobody named'}"
        )

    def pair_candidates(self, record: Record) -> list[PairCandidate]:
        return super().pair_candidates(replace(record, ranks=(), scores=()))

    def choose(self, record: Record) -> list[tuple[int, int]]:
        authors = [(place, author(record, place)) for place in range(len(record.responses))]
        known = [(place, self.is_strong(model)) for place, model in authors if model]
        strong, weak = ([place for place, is_strong in known if is_strong is side] for side in (True, False))
        return list(zip(strong, weak, strict=False))

    def is_strong(self, model: str) -> bool:
        """Return whether a model that a row names is that of `--strong`; `sim` adds a version to its name."""
        strong = str(self.options.strong)
        return model in (strong, f"{strong}/{SIM_VERSION}") or is_same_model(strong, model)

    def check(self) -> None:
        if not self.options.strong:
            raise InputError("--by delta needs --strong MODEL: the model whose answers become chosen")
        super().check()


def ranked_places(record: Record) -> list[int]:
    """Return the places of the ranked answers, the best first; an answer whose score is null has no rank."""
    if not record.ranks:
        raise InputError(
            f"row {record.id}: no ranks: rank the answers first with 'datagen judge', or use --by verified"
        )
    scored = [place for place in range(len(record.ranks)) if not record.scores or record.scores[place] is not None]
    return sorted(scored, key=lambda place: (record.ranks[place], place))


def author(record: Record, place: int) -> str | None:
    """Return the model that wrote an answer of a row, where the row names it."""
    answers = record.meta.get("responses") or []
    return answers[place].get("model") if place < len(answers) else None


def reasoning_of(record: Record, place: int) -> str | None:
    """Return what was thought before an answer of a row, where that is known."""
    return record.reasonings[place] if record.reasonings else None


def rejection_reason(pair: PairCandidate, options: Options) -> str | None:
    """Return why two answers are no preference, or None."""
    chosen, rejected = pair.chosen, pair.rejected
    if not chosen.strip() or not rejected.strip():
        return "empty"
    similar = Indel.normalized_similarity(chosen, rejected) >= options.near
    if similar and same_answer(final_answer(chosen), final_answer(rejected)) is not False:
        return "near_identical"
    if pair.scores is not None:
        difference = round(pair.scores[0] - pair.scores[1], 4)  # in floats 1.1 - 1.0 is more than 0.1
        if difference <= options.tie:
            return "tie"
        if difference < options.margin:
            return "small_margin"
    shorter, longer = sorted((len(chosen), len(rejected)))
    return "unlike_lengths" if options.length_ratio and longer > options.length_ratio * max(shorter, 1) else None
