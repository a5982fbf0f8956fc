"""Names of the libraries that are not public, and that training needs.

A method of the library that a new version no longer calls has an override that does nothing: prompts would be
tokenised again, or a resumed run would count from 0, without a message. So each name is looked for when the classes are
made, or the trainer is; tests/train/test_trl_names.py holds the signatures.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar

from datagen.errors import InputError
from datagen.installation import installer

TESTED = {"trl": "1.16.0", "transformers": "5.24.0"}
"""Versions that the tests run with: those of constraints.txt."""
Class = TypeVar("Class", bound=type)


def overrides(*names: str) -> Callable[[Class], Class]:
    """Decorate a trainer that replaces methods of the library which are not public.

    Raises:
        InputError: The library has no such method; the message says which version has it.
    """

    def check(trainer: Class) -> Class:
        bases = [base for base in trainer.__mro__ if library_of(base) in TESTED]
        for name in names:
            if not any(name in vars(base) for base in bases):
                refuse_version(bases[0], name)
        return trainer

    return check


def require_attributes(trainer: Any, *names: str) -> None:
    """Raise InputError if a trainer of the library has not set attributes that are not public."""
    base = next(base for base in type(trainer).__mro__ if library_of(base) in TESTED)
    for name in names:
        if name not in vars(trainer):
            refuse_version(base, name)


def refuse_version(base: type, name: str) -> None:
    """Raise InputError for a name that a class of a library does not have."""
    library = library_of(base)
    raise InputError(
        f"{library} {version(library)} has no {base.__name__}.{name}, which training needs. To install a version that "
        f"has it: {installer()} {library}=={TESTED[library]}"
    )


def library_of(base: type) -> str:
    """Return the package that a class comes from."""
    return base.__module__.partition(".")[0]
