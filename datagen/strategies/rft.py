"""Rejection sampling fine-tuning (RFT, arXiv 2308.01825): every different right chain for a question is kept.

A chain is kept if its answer is the known one (`answer` or the response of the input row) and every equation in it
holds. Chains with the same list of equations, in order and without spaces, form one path. Of two chains of a path,
the one with the larger summed Levenshtein distance to the chains of the other paths is kept (section 3.3). The gold
path, if the input has one, is always kept. Several `--teacher` pool their chains before that, which is where the
paper's gain comes from.

Departures: the paper samples 100 chains; the default here is 8 (`-k`). Chains without an equation are one path if their
words are the same (the public code keeps one such chain per question). Equations are parsed, never evaluated as code; a
percent sign or a unit does not fail a chain (verify/equations.py).
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from datagen.engine.method import Table
from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.engine.unobtained import ask
from datagen.llm.model import Roles
from datagen.records.record import SAMPLES_PER_PASS, Candidate, Record, Row, fail
from datagen.strategies.strategy import (
    EXAMPLES,
    NO_ANSWER,
    NO_GOLD,
    NO_RESULT,
    NO_RESULT_WHY,
    REASON,
    WRONG,
    WRONG_REASONS,
    Answer,
    Cut,
    Strategy,
    rejection_reason,
    with_verdict,
)
from datagen.verify import UNVERIFIED, reference_answer
from datagen.verify.answers import split_answer
from datagen.verify.equations import equation_key

CHAINS = 8
COMPARED = 20_000
"""Characters of a chain whose distance to the others is measured; the time grows with their square."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy rft`."""

    k: int = option(CHAINS, "Chains per prompt.", least=1, most=SAMPLES_PER_PASS)
    examples: Path | None = option(None, EXAMPLES)
    reasoning: str = reasoning_option()


@dataclass
class PathTable(Table):
    """How many chains are right, and how many different paths a question has: these grow slower than the chains."""

    questions: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    """For each question: chains, right ones, different paths."""

    def add(self, candidate: Candidate) -> None:
        meta = candidate.row["meta"]
        counts = self.questions[meta["parents"][0]]
        if candidate.status == "failed" or meta["model"] is None:
            return
        counts[0] += 1
        counts[1] += candidate.reason not in WRONG
        counts[2] += candidate.status == "kept"

    def as_dict(self) -> dict[str, Any]:
        chains, right, paths = (sum(counts[at] for counts in self.questions.values()) for at in range(3))
        return {"questions": len(self.questions), "chains": chains, "right": right, "paths": paths}

    def tables(self) -> list[list[list[str]]]:
        questions, chains, right, paths = self.as_dict().values()
        if not chains:
            return []
        heading = ["questions", "chains", "right", "different paths", "paths a question"]
        cells = [str(questions), str(chains), f"{100 * right / chains:.1f} %", str(paths), f"{paths / questions:.2f}"]
        return [[heading, cells]]


class RejectionSampling(Strategy):
    """RFT: every different right chain of thought for a question with a known answer."""

    variant = "rft"
    options_type = Options
    options: Options
    table_type = PathTable
    reasons = {
        **WRONG_REASONS,
        **NO_GOLD,
        "same_path": "Another right chain for the question has the same equations.",
    }
    asks = {**Strategy.asks, **NO_RESULT_WHY}
    templates = (REASON,)
    details = {"equations": None}

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Augment one question by rejection sampling (section 3.3): the gold path, and a candidate for each chain."""
        reference = reference_answer(record)
        if reference is None:
            return [self.reject(record, details, "no_gold")]

        # 1. Sample k chains, from all teachers in turn.
        chains = await self.answers(record, llm)

        # 2. The input's own chain is the gold path. It stands first; an answer without a rationale is no path.
        gold: list[Answer] = []
        if record.response is not None and record.label is not False:
            rationale, answer = split_answer(record.response)
            if answer is not None and rationale.strip():
                gold = [Answer(record.response, None, rationale, answer, reasoning=record.reasoning)]
        whole = [NO_ANSWER if isinstance(chain, Cut) else chain for chain in chains]
        paths = [*gold, *whole]

        # 3. Reject chains with a wrong answer or a wrong equation. The gold path is right by definition.
        reasons = [None] * len(gold) + [rejection_reason(chain, reference) for chain in whole]

        # 4. Of the chains with the same equations keep the one that differs most from the other paths.
        right = [place for place, reason in enumerate(reasons) if reason is None]
        selected = {right[at] for at in select_diverse([paths[place].response for place in right], len(gold))}

        # 5. Each path is a row, or a rejected row; a chain that is cut fails alone.
        candidates = []
        cut = {place: chain for place, chain in enumerate(chains, len(gold)) if isinstance(chain, Cut)}
        for place, (path, reason) in enumerate(zip(paths, reasons, strict=True)):
            details["equations"] = equation_key(path.response)
            path = with_verdict(path, reason)
            if place in cut:
                candidates.append(
                    fail(cut[place].failure, record=record.row, meta=self.meta(record, details, [NO_ANSWER]))
                )
            elif reason is None and place in selected:
                candidates.append(self.accept(record, details, [path], place))
            else:
                candidates.append(self.reject(record, details, reason or "same_path", path.response, path))
            ask(candidates[-1], NO_RESULT, int(place >= len(gold)), int(reason == "no_answer"))
            stated = int(place >= len(gold) and reason != "no_answer")
            ask(candidates[-1], UNVERIFIED, stated, int(reason == "unverified_answer"))
        return candidates

    @property
    def candidates(self) -> int:
        return self.options.k + 1


def select_diverse(chains: list[str], gold: int) -> set[int]:
    """Select one chain of each path: of two, the one farther from the chains of the other paths (section 3.3).

    Chains with the same equations are one path; of those without an equation, chains with the same words.

    Args:
        chains: Right chains of thought, in the order in which they were sampled.
        gold: How many of the first chains stay in any case.

    Returns:
        Places in `chains`.
    """
    selected: dict[str, int] = {}
    for place, chain in enumerate(chains):
        key = equation_key(chain) or " ".join(chain.split())
        if key not in selected:
            selected[key] = place
        elif selected[key] >= gold:
            others = [chains[other] for path, other in selected.items() if path != key]
            distances = {at: sum(distance(chains[at], other) for other in others) for at in (selected[key], place)}
            selected[key] = max(distances, key=distances.__getitem__)
    return set(selected.values())


def distance(one: str, other: str) -> int:
    """Return the edit distance of two chains, of their first COMPARED characters."""
    return Levenshtein.distance(one[:COMPARED], other[:COMPARED])
