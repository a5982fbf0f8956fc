"""Rejection sampling fine-tuning (RFT, arXiv 2308.01825): every different right chain for a question is kept.

A chain is kept if its answer is the known one (`answer` or the response of the input row) and every equation in it
holds. Chains with the same list of equations, in order and without spaces, form one path. Of two chains of a path,
the one with the larger summed Levenshtein distance to the chains of the other paths so far is kept (section 3.3; so the
order of the samples counts, as in the public code). The gold path, if the input has one, is always kept. Several
`--teacher` pool their chains before that, which is where the paper's gain comes from.

Code, with `--verify tests`: the prompt is asked as it is, and an answer is right if the tests of the row pass. What the
equations are to a chain the program is to such an answer: what is left without the words. So two programs are one path
if they differ in layout, comments and the names that they give themselves alone (verify/programs.py).

Departures: the paper samples 100 chains; the default here is 8 (`-k`). Chains without an equation are one path if their
words are the same (the public code keeps one such chain per question). Equations are parsed, never evaluated as code; a
percent sign or a unit does not fail a chain (verify/equations.py). The paper has no code.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from datagen.engine.method import Table
from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.engine.unobtained import ask
from datagen.errors import InputError
from datagen.llm.model import Roles
from datagen.records.record import SAMPLES_PER_PASS, Candidate, Prompt, Record, Row, as_messages, fail
from datagen.strategies.path_checks import TESTS, ByAnswer, ByTests, PathCheck
from datagen.strategies.strategy import (
    EXAMPLES,
    NO_ANSWER,
    NO_GOLD,
    NO_RESULT,
    NO_RESULT_WHY,
    REASON,
    VERIFY,
    WRONG,
    WRONG_REASONS,
    Answer,
    Cut,
    Strategy,
    prompt_fields,
    with_verdict,
)
from datagen.verify import UNVERIFIED
from datagen.verify.equations import equation_key

CHAINS = 8
COMPARED = 20_000
"""Characters of a chain whose distance to the others is measured; the time grows with their square."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy rft`."""

    k: int = option(CHAINS, "Chains per prompt.", least=1, most=SAMPLES_PER_PASS)
    verify: list[str] = option([], VERIFY, file=True)
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
    """RFT: every different right chain of thought for a question with a known answer, or program for one with tests."""

    variant = "rft"
    options_type = Options
    options: Options
    table_type = PathTable
    reasons = {
        **WRONG_REASONS,
        **NO_GOLD,
        "no_tests": "--verify tests: the row holds no tests (docs/verifiers.md#code).",
        "same_path": "Another right chain has the same equations; of code, another right program has the same syntax "
        "tree.",
    }
    asks = {**Strategy.asks, **NO_RESULT_WHY}
    templates = (REASON,)
    details = {"equations": None}

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Augment one question by rejection sampling (section 3.3): the gold path, and a candidate for each chain."""
        check = self.path_check
        if reason := check.missing(record):
            return [self.reject(record, details, reason)]

        # 1. Sample k chains, from all teachers in turn.
        chains = await self.answers(record, llm)

        # 2. The input's own chain is the gold path. It stands first.
        gold = check.gold(record)
        whole = [NO_ANSWER if isinstance(chain, Cut) else chain for chain in chains]
        paths = [*gold, *whole]

        # 3. Reject chains with a wrong answer or a wrong equation, or programs that fail a test.
        reasons = await check.reasons(record, gold, whole)

        # 4. Of the chains with the same equations keep the one that differs most from the other paths.
        right = [place for place, reason in enumerate(reasons) if reason is None]
        texts = [paths[place].response for place in right]
        golden = sum(place < len(gold) for place in right)
        selected = {right[at] for at in select_diverse(texts, list(map(check.key, texts)), golden)}

        # 5. Each path is a row, or a rejected row; a chain that is cut fails alone.
        candidates = []
        cut = {place: chain for place, chain in enumerate(chains, len(gold)) if isinstance(chain, Cut)}
        for place, (path, reason) in enumerate(zip(paths, reasons, strict=True)):
            details["equations"] = None if self.of_code else equation_key(path.response)
            path = with_verdict(path, reason)
            if place in cut:
                candidates.append(
                    fail(cut[place].failure, record=record.row, meta=self.meta(record, details, [NO_ANSWER]))
                )
            elif reason is None and place in selected:
                candidates.append(self.accept(record, details, [path], place))
            else:
                candidates.append(self.reject(record, details, reason or "same_path", path.response, path))
            self.note(candidates[-1], reason, sampled=place >= len(gold), cut=place in cut)
        return candidates

    def note(self, candidate: Candidate, reason: str | None, *, sampled: bool, cut: bool) -> None:
        """Note on the candidate of a chain whether it has a result, and whether that was verified."""
        if self.of_code and candidate.status == "kept":
            return  # `accept` has counted its verdict
        chains = int(sampled and not self.of_code)
        ask(candidate, NO_RESULT, chains, int(reason == "no_answer"))
        results = int(sampled and not cut and reason != "no_answer")
        ask(candidate, UNVERIFIED, results, int(reason == "unverified_answer"))

    @property
    def of_code(self) -> bool:
        """Whether the answers are programs, checked by tests."""
        return bool(self.options.verify)

    @cached_property
    def path_check(self) -> PathCheck:
        """What makes a path right."""
        return ByTests() if self.of_code else ByAnswer()

    @property
    def row_templates(self) -> tuple[str, ...]:
        return () if self.of_code else self.templates

    def prompt(self, record: Record, template: str = REASON, **fields: str) -> Prompt:
        """Return the request for a chain of thought; for a program the worked examples and the turns as they are."""
        if not self.of_code:
            return super().prompt(record, template, **fields)
        messages = as_messages(record.prompt)
        at = int(messages[0]["role"] == "system")
        return Prompt([*messages[:at], *self.examples, *messages[at:]], "answer", prompt_fields(record, **fields))

    async def answer(self, record: Record, llm: Roles, prompt: Prompt, number: int) -> Answer:
        if not self.of_code:
            return await super().answer(record, llm, prompt, number)
        completion = await self.ask(record, llm, prompt, number)
        return Answer(completion.text, completion)

    def check(self) -> None:
        super().check()
        if set(self.options.verify) - {TESTS}:
            raise InputError(
                "--verify: rft checks the known answer and the equations by itself; --verify tests is for rows with "
                "tests, and there is no other"
            )

    @property
    def candidates(self) -> int:
        return self.options.k + 1


def select_diverse(paths: Sequence[str], keys: Sequence[str], gold: int) -> set[int]:
    """Select one of the paths with the same key: of two, the one farther from the other paths so far (section 3.3).

    Args:
        paths: Right answers, in the order in which they were sampled.
        keys: Of each, what it shares with the same path; those with "" are the same if their words are.
        gold: How many of the first paths stay in any case.

    Returns:
        Places in `paths`.
    """
    selected: dict[str, int] = {}
    for place, (path, key) in enumerate(zip(paths, keys, strict=True)):
        key = key or " ".join(path.split())
        if key not in selected:
            selected[key] = place
        elif selected[key] >= gold:
            others = [paths[other] for name, other in selected.items() if name != key]
            distances = {at: sum(distance(paths[at], other) for other in others) for at in (selected[key], place)}
            selected[key] = max(distances, key=distances.__getitem__)
    return set(selected.values())


def distance(one: str, other: str) -> int:
    """Return the edit distance of two chains, of their first COMPARED characters."""
    return Levenshtein.distance(one[:COMPARED], other[:COMPARED])
