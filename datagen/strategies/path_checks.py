"""What rejection sampling (rft.py) asks of a path, and which paths are the same: chains of thought, or code."""

from collections.abc import Sequence
from typing import Protocol

from datagen.records.record import Record
from datagen.strategies.strategy import Answer, rejection_reason
from datagen.verify import pick_verifier, reference_answer, verify_all
from datagen.verify.answers import split_answer
from datagen.verify.code import row_tests
from datagen.verify.equations import equation_key
from datagen.verify.programs import program_key

TESTS = "tests"
"""The verifier of code."""


class PathCheck(Protocol):
    """What makes a path right, and what tells it from others."""

    def missing(self, record: Record) -> str | None:
        """Return the reason to ask nothing: the row lacks what a path is checked with."""

    def gold(self, record: Record) -> list[Answer]:
        """Return the input's own path, if it has one."""

    async def reasons(self, record: Record, gold: Sequence[Answer], chains: Sequence[Answer]) -> list[str | None]:
        """Return why the gold path and the sampled ones are not known to be right; None where they are."""

    def key(self, path: str) -> str:
        """Return a key that the same paths share; "" for a path without one."""


class ByAnswer:
    """The paper's check: the known answer, and equations that hold. Paths with the same equations are one."""

    def missing(self, record: Record) -> str | None:
        return "no_gold" if reference_answer(record) is None else None

    def gold(self, record: Record) -> list[Answer]:
        """An answer without a rationale is no path."""
        if record.response is None or record.label is False:
            return []
        rationale, answer = split_answer(record.response)
        if answer is None or not rationale.strip():
            return []
        return [Answer(record.response, None, rationale, answer, reasoning=record.reasoning)]

    async def reasons(self, record: Record, gold: Sequence[Answer], chains: Sequence[Answer]) -> list[str | None]:
        """The gold path is right by definition."""
        reference = reference_answer(record)
        assert reference is not None
        return [*(None for _ in gold), *(rejection_reason(chain, reference) for chain in chains)]

    def key(self, path: str) -> str:
        return equation_key(path)


class ByTests:
    """Code: the tests of the row pass. Programs that differ in layout, words and names alone are one path."""

    def missing(self, record: Record) -> str | None:
        return "no_tests" if row_tests(record) is None else None

    def gold(self, record: Record) -> list[Answer]:
        if record.label is False or not (record.response or "").strip():
            return []
        return [Answer(record.response or "", None, reasoning=record.reasoning)]

    async def reasons(self, record: Record, gold: Sequence[Answer], chains: Sequence[Answer]) -> list[str | None]:
        """The input's program is run, too: unlike an answer, tests can say that it is wrong."""
        verdicts = await verify_all(record, [path.response for path in (*gold, *chains)], [pick_verifier(TESTS)])
        words = {True: None, False: "wrong_answer", None: "unverified_answer"}
        return [words[verdict] for verdict in verdicts]

    def key(self, path: str) -> str:
        return program_key(path)
