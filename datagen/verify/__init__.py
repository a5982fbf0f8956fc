"""Verifiers: what can be said about an answer without a model.

A verifier says true, false, or None where it does not know: no answer is stated, or there is nothing to compare with.
Used as a filter, as the check of rejection sampling (RFT, arXiv 2308.01825) and as a reward.

    answer        the final answer equals the reference answer                                   answers.py
    constraints   each verifiable constraint of the row is met (IFEval)                          constraints.py
    equations     every equation in the text is right                                            equations.py
    game24        the expression uses each of the given numbers once and makes 24                expressions.py
"""

from collections.abc import Callable

from datagen.errors import InputError
from datagen.parse import split_thinking
from datagen.records.record import Record, request_text
from datagen.verify.answers import final_answer, same_answer
from datagen.verify.choices import letter, yes_no
from datagen.verify.constraints.spec import verify_constraints
from datagen.verify.equations import equations_hold
from datagen.verify.expressions import game24, puzzle_numbers
from datagen.verify.numbers import parse_number

Verifier = Callable[[Record, str], bool | None]
"""From a record and a response to true, false or don't know."""


def reference_answer(record: Record) -> str | None:
    """Return the answer that is known to be right: the field "answer", else what the record's own response states.

    A text without a marker counts where it is a field's, or is nothing but a number, a letter, or yes or no.
    """
    given = record.extra.get("answer")
    if isinstance(given, str | int | float):
        return final_answer(str(given)) or str(given)
    response = record.response or ""
    bare = len(response) <= 100 and is_answer(response)
    return final_answer(response) or (response if bare else None)


def is_answer(text: str) -> bool:
    """Can this be read as a number, a letter, or yes or no?"""
    return bool(parse_number(text) is not None or letter(text) or yes_no(text))


def verify_answer(record: Record, response: str) -> bool | None:
    """Say whether the final answer of a response, or the one word that it consists of, equals the reference answer."""
    said = split_thinking(response)[1]
    bare = said if len(said.split()) == 1 and is_answer(said) else None
    return same_answer(final_answer(said) or bare, reference_answer(record))


def verify_equations(record: Record, response: str) -> bool | None:
    """Say whether the equations in a response hold; None where there are none, or some cannot be read."""
    return equations_hold(split_thinking(response)[1])


def verify_game24(record: Record, response: str) -> bool | None:
    """Say whether a response solves the record's Game of 24; its numbers are the field "numbers" or in the prompt."""
    given = record.extra.get("numbers")
    text = " ".join(map(str, given)) if isinstance(given, list) else given
    numbers = puzzle_numbers(text if isinstance(text, str) else request_text(record.prompt))
    return game24(numbers, split_thinking(response)[1]) if numbers else None


VERIFIERS: dict[str, Verifier] = {
    "answer": verify_answer,
    "constraints": verify_constraints,
    "equations": verify_equations,
    "game24": verify_game24,
}


def pick_verifier(name: str) -> Verifier:
    """Return a verifier by its name; InputError lists the known ones."""
    if name not in VERIFIERS:
        raise InputError(f"no verifier {name!r}: expected one of {', '.join(VERIFIERS)}")
    return VERIFIERS[name]
