"""Verifiers: checks of an answer that need no model.

A verifier returns True, False, or None if it cannot decide: no answer is stated, there is nothing to compare with, or
one of both is not understood.
Used as a filter, as the check of rejection sampling (RFT, arXiv 2308.01825) and as a reward.

    answer        the final answer equals the reference answer                                   answers.py
    constraints   each verifiable constraint of the row is met (IFEval)                          constraints/
    equations     every equation in the text is right                                            equations.py
    tests         the code passes the tests of the row; run in a sandbox, only where asked for   code.py, sandbox/
    game24        the expression uses each of the given numbers once and makes 24                expressions.py
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

from datagen.errors import InputError, unknown_value
from datagen.plugins import FILE_NAME, OutsideFunction, find_function, kind_of, registered
from datagen.reasoning import split_thinking
from datagen.records.columns import REFERENCES, normal_name
from datagen.records.record import Record, request_text
from datagen.verify.answers import final_answer
from datagen.verify.choices import option_letter, yes_no
from datagen.verify.code import verify_tests
from datagen.verify.constraints.spec import verify_constraints
from datagen.verify.equality import same_answer
from datagen.verify.equations import equations_hold
from datagen.verify.expressions import game24, puzzle_numbers
from datagen.verify.numbers import parse_number
from datagen.verify.sandbox import sandbox_problem, sandbox_threads

UNVERIFIED = "unverified answers"
UNVERIFIED_WHY = (
    "The verifier cannot tell whether these are right: --verify answer needs a known answer in the row (a field "
    '"answer") and a result in the response, --verify tests needs tests in the row and Python in the response. Give it '
    "these, or name another verifier."
)
"""Why a verifier has no verdict on an answer, and the way out."""
Verifier = Callable[[Record, str], bool | None]
"""A function from a record and a response to a verdict.

Args:
    record: The input row: its prompt, its own response, and its other fields in `record.extra`.
    response: The text to check; a verifier sees the answer, never the reasoning.

Returns:
    True or False, or None if it cannot decide: no answer is stated, or there is nothing to compare with.
"""


def reference_answer(record: Record) -> str | None:
    """Return the reference answer: the field "answer" or one of its synonyms (records/columns.py), else the answer that
    the record's own response states, unless that is labelled as a bad one.

    A text without a marker (such as "####") counts if it is the field, or only a number, a letter, yes or no.
    """
    fields = {normal_name(name): value for name, value in record.extra.items()}
    answer = next((fields[name] for name in REFERENCES if isinstance(fields.get(name), str | int | float)), None)
    if answer is not None:
        return final_answer(str(answer)) or str(answer)
    response = record.response if record.response and record.label is not False else ""
    bare = len(response) <= 100 and is_answer(response)
    return final_answer(response) or (response if bare else None)


def is_answer(text: str) -> bool:
    """Return whether a text is a number, an option letter, or yes or no."""
    return bool(parse_number(text) is not None or option_letter(text) or yes_no(text))


def verify_answer(record: Record, response: str) -> bool | None:
    """Return whether the final answer of a response, or its only word, equals the reference answer."""
    text = split_thinking(response)[1]
    bare = text if len(text.split()) == 1 and is_answer(text) else None
    return same_answer(final_answer(text) or bare, reference_answer(record))


def verify_game24(record: Record, response: str) -> bool | None:
    """Return whether a response solves the record's Game of 24 (the field "numbers", or the prompt's numbers)."""
    field = record.extra.get("numbers")
    text = " ".join(map(str, field)) if isinstance(field, list) else field
    numbers = puzzle_numbers(text if isinstance(text, str) else request_text(record.prompt))
    return game24(numbers, split_thinking(response)[1]) if numbers else None


VERIFIERS: dict[str, Verifier] = {
    "answer": verify_answer,
    "constraints": verify_constraints,
    "equations": lambda record, response: equations_hold(split_thinking(response)[1]),
    "game24": verify_game24,
    "tests": verify_tests,
}


class OutsideVerifier(OutsideFunction):
    """A verifier of others. One that raises, or returns something else than a verdict, does not know."""

    def __call__(self, record: Record, response: str) -> bool | None:
        try:
            verdict = self.function(record, response)
            if verdict is not None and not isinstance(verdict, bool):
                raise TypeError(f"returned {kind_of(verdict)}; a verdict is True, False or None")
        except (Exception, SystemExit) as error:
            self.faults.add(error)
            return None
        return verdict


async def verify_all(record: Record, responses: Iterable[str], verifiers: Collection[Verifier]) -> list[bool | None]:
    """Return the verdict of several verifiers on each response, in order: False if one returns False, else None if one
    returns None, else True."""

    async def verify(response: str) -> bool | None:
        verdicts = [await verdict_of(verifier, record, response) for verifier in verifiers]
        return False if False in verdicts else None if None in verdicts else True

    return await asyncio.gather(*map(verify, responses))


async def verdict_of(verifier: Verifier, record: Record, response: str) -> bool | None:
    """Return the verdict of a verifier. One that runs a program waits for it in a thread: requests go on meanwhile."""
    if verifier is not verify_tests:
        return verifier(record, response)
    return await asyncio.get_running_loop().run_in_executor(sandbox_threads(), verifier, record, response)


def pick_verifier(name: str) -> Verifier:
    """Return a verifier by its name, which may be FILE.py:NAME or registered by a package.

    Raises:
        InputError: There is none of that name, or it cannot run here.
    """
    if name not in VERIFIERS:
        if outside := find_function("verifier", name):
            return OutsideVerifier(outside.plugin, outside.function)
        raise unknown_value("verifier", name, (*VERIFIERS, *registered("verifier"), FILE_NAME))
    if VERIFIERS[name] is verify_tests and (problem := sandbox_problem()):
        raise InputError(f"verifier tests: {problem}")
    return VERIFIERS[name]


def outside_verifiers(verifiers: Iterable[object]) -> list[OutsideFunction]:
    """Return those verifiers that are code of others."""
    return [verifier for verifier in verifiers if isinstance(verifier, OutsideVerifier)]
