"""Rejection sampling fine-tuning (RFT, arXiv 2308.01825): every different right chain for a question is kept.

A chain is kept if its answer is the known one (`answer` or the response of the input row) and every equation in it
holds. Chains with the same list of equations, in order and without spaces, are one path; of two, the one that differs
more from the other kept paths stays (summed Levenshtein distance, section 3.3). The gold path, if the input has one,
is always kept. Several `--teacher` pool their chains before that, which is where the paper's gain comes from.

Departures: the paper samples 100 chains, here 8 unless `-k` says more. A chain without an equation is its own path by
its words (the public code keeps one such chain per question). Equations are parsed, never evaluated as code, and a
percent sign or a unit does not fail a chain (verify/equations.py).
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.record import Candidate, Record
from datagen.strategies.answering import EXAMPLES, TEACHER, Answer, Answering, load_examples, samples_option, together
from datagen.strategies.cot import REASON, reasoning
from datagen.verify import reference_answer
from datagen.verify.answers import same_answer, split_answer
from datagen.verify.equations import equation_key, equations_hold

CHAINS = 8


@dataclass(frozen=True)
class Options:
    """What rejection sampling can be told."""

    k: int = samples_option(CHAINS, "Chains for each prompt.")
    examples: Path | None = option(None, EXAMPLES)


async def rft(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the gold path, if there is one, and a candidate for each chain."""
    answering = Answering(record, llm, prompts, "rft", extra={"equations": None}, templates=(REASON,))
    gold = reference_answer(record)
    if gold is None:
        yield answering.rejected("no_gold", None)
        return
    asked = reasoning(record, prompts, options.examples)

    async def explore() -> list[Candidate]:
        said = await together([answering.ask(asked, number) for number in range(options.k)])
        chains = [Answer(each.text, each, *split_answer(each.text)) for each in said]
        return candidates_of(answering, gold_path(record), chains, gold)

    async for candidate in answering.attempt(explore()):
        yield candidate


def gold_path(record: Record) -> list[Answer]:
    """Return the input's own chain; none if it states the answer alone."""
    if record.response is None:
        return []
    rationale, answer = split_answer(record.response)
    return [Answer(record.response, None, rationale, answer, True)] if answer is not None and rationale.strip() else []


def candidates_of(answering: Answering, gold: list[Answer], chains: list[Answer], answer: str) -> list[Candidate]:
    """Decide about the gold path and every chain, in order."""
    paths = [*gold, *chains]
    reasons = [None] * len(gold) + [fault(chain, answer) for chain in chains]
    right = [place for place, reason in enumerate(reasons) if reason is None]
    stay = spread([paths[place].response for place in right], len(gold))
    kept = {right[at] for at in stay}
    made = []
    for place, (path, reason) in enumerate(zip(paths, reasons, strict=True)):
        answering.extra = {"equations": equation_key(path.response)}
        told = reason or ("" if place in kept else "same_path")
        right_one = Answer(path.response, path.said, path.rationale, path.answer, told not in FAULTS)
        made.append(answering.rejected(told, path.response, right_one) if told else answering.kept([right_one], place))
    return made


FAULTS = ("no_answer", "wrong_answer", "wrong_equation")


def fault(chain: Answer, answer: str) -> str | None:
    """Say why a chain is not right, if it is not."""
    if chain.answer is None:
        return "no_answer"
    if same_answer(chain.answer, answer) is not True:
        return "wrong_answer"
    return "wrong_equation" if equations_hold(chain.response) is False else None


def path_key(text: str) -> str:
    """Name the path of a chain: its equations; without any, its words."""
    return equation_key(text) or " ".join(text.split())


def spread(chains: list[str], gold: int) -> set[int]:
    """Choose one chain of each path: of two, the one that is farther from the chains of the other paths (section
    3.3). The first `gold` ones stay whatever comes. Returns places in `chains`."""
    stays: dict[str, int] = {}
    for place, chain in enumerate(chains):
        key = path_key(chain)
        if key not in stays:
            stays[key] = place
        elif stays[key] >= gold:
            others = [chains[other] for name, other in stays.items() if name != key]
            stays[key] = max(stays[key], place, key=lambda at: distance(chains[at], others))
    return set(stays.values())


def distance(chain: str, others: list[str]) -> int:
    """Sum the Levenshtein distances to other chains."""
    return sum(Levenshtein.distance(chain, other) for other in others)


class PathTable:
    """How many chains were right, and how many different paths a question has: it grows slower than the chains."""

    def __init__(self) -> None:
        self.questions: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])

    def add(self, candidate: Candidate) -> None:
        meta = candidate.row["meta"]
        counts = self.questions[meta["parents"][0]]
        if candidate.status == "failed" or meta["model"] is None:
            return
        counts[0] += 1
        counts[1] += candidate.reason not in FAULTS
        counts[2] += candidate.status == "kept"

    def as_dict(self) -> dict[str, Any]:
        chains, right, paths = (sum(counts[at] for counts in self.questions.values()) for at in range(3))
        return {"questions": len(self.questions), "chains": chains, "right": right, "paths": paths}

    def tables(self) -> list[list[list[str]]]:
        told = self.as_dict()
        if not told["chains"]:
            return []
        share, a_question = told["right"] / told["chains"], told["paths"] / told["questions"]
        heading = ["questions", "chains", "right", "different paths", "paths a question"]
        counts = [str(told["questions"]), str(told["chains"]), f"{100 * share:.1f} %", str(told["paths"])]
        return [[heading, [*counts, f"{a_question:.2f}"]]]


def prepare(options: Options) -> None:
    if options.examples:
        load_examples(options.examples)


class RejectionSampling(Method):
    """rft."""

    name = "respond"
    variant = "rft"
    options_type = Options
    options: Options
    roles = TEACHER
    templates = (REASON,)

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return rft(record, llm, self.prompts, self.options)

    def candidates(self) -> int:
        return self.options.k + 1

    def bound(self, record: Record) -> int:
        return self.options.k

    def check(self) -> None:
        prepare(self.options)

    def table(self) -> Table:
        return PathTable()
