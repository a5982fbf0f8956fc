"""No text stops a run: every pattern and every function that reads text takes time linear in its length.

Patterns are found by import, and functions by their annotations, so new ones are tested without a further line here.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import datagen
from tests.growth import FRAMES, MOST, Killer, cost, growth, killers
from tests.pumps import killers_of
from tests.readers import Call, quietly, readers, unlisted

Measure = Callable[[Call, Killer], str | None]
WHOLE = {"match", "fullmatch"}
"""Uses that try a pattern at one place of a text."""
METHODS = {*WHOLE, "search", "finditer", "findall", "sub", "subn", "split"}


@cache
def modules(package: ModuleType) -> list[ModuleType]:
    """Import all modules of a package."""
    names = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [importlib.import_module(one.name) for one in names if not one.name.endswith("__main__")]


def patterns_in(value: Any, depth: int = 3) -> Iterator[re.Pattern[str]]:
    """Yield the patterns that a value of a module is or holds."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, dict):
        yield from patterns_in([*value.values()], depth)
    elif depth and isinstance(value, list | tuple | frozenset):
        yield from chain.from_iterable(patterns_in(one, depth - 1) for one in value)
    elif depth and hasattr(value, "pattern"):
        yield from patterns_in(value.pattern, depth - 1)


@cache
def syntax(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text())


def uses_of_patterns(package: ModuleType) -> dict[re.Pattern[str], set[str]]:
    """Return the methods that are used of each pattern with a name: SCORE_LINE to {"finditer"}."""
    uses: dict[re.Pattern[str], set[str]] = {}
    for module in modules(package):
        for node in ast.walk(syntax(module)):
            match node:
                case ast.Attribute(ast.Name(name), method) if method in METHODS:
                    if isinstance(pattern := vars(module).get(name), re.Pattern):
                        uses.setdefault(pattern, set()).add(method)
    return uses


class Pattern(NamedTuple):
    """A pattern of the code, and how it is used."""

    pattern: re.Pattern[str]
    place: str
    uses: set[str]

    def work(self, text: str) -> None:
        """Search a whole text, or match it where the code does only that."""
        if self.uses and self.uses <= WHOLE:
            self.pattern.match(text)
            self.pattern.fullmatch(text)
            return
        for _ in self.pattern.finditer(text):
            pass


def inline_patterns(module: ModuleType) -> Iterator[Pattern]:
    """Yield the constant patterns in calls such as re.sub("...", ...)."""
    for node in ast.walk(syntax(module)):
        match node:
            case ast.Call(ast.Attribute(ast.Name("re"), method), [ast.Constant(str(text)), *_], keywords):
                if method in METHODS:
                    flags = "".join(ast.unparse(word.value) for word in keywords if word.arg == "flags") or "0"
                    yield Pattern(re.compile(text, eval(flags)), f"{module.__name__}:{node.lineno}", {method})


def all_patterns(package: ModuleType) -> list[Pattern]:
    """Return every pattern of a package once."""
    uses = uses_of_patterns(package)
    named = (
        Pattern(pattern, f"{module.__name__}.{name}", uses.get(pattern, set()))
        for module in modules(package)
        for name, value in vars(module).items()
        for pattern in patterns_in(value)
    )
    return list({one.pattern: one for one in chain(*map(inline_patterns, modules(package)), named)}.values())


def first_problem(measure: Measure, work: Call, texts: Iterable[Killer]) -> list[str]:
    """Return the first text on which a function is slow, if there is one."""
    return next(([problem] for killer in texts if (problem := measure(work, killer))), [])


BOUNDED = {"datagen.verify.equations.AT_END"}
"""Patterns that never see more than a few hundred characters; the functions that use them are tested."""


def growth_of_units(work: Call, killer: Killer) -> str | None:
    """Measure texts that hold a unit of many characters often enough."""
    return growth(work, killer, 2048 * min(len(killer.unit), 8))


def slow_patterns(package: ModuleType) -> list[str]:
    """Return a line for each pattern that is not linear."""
    return [
        f"{one.place}: {problem}"
        for one in all_patterns(package)
        if one.place not in BOUNDED
        for problem in first_problem(growth, one.work, killers())
        or first_problem(growth_of_units, one.work, killers_of(one.pattern))
    ]


def slow_readers(modules: Iterable[ModuleType]) -> Iterator[str]:
    """Yield a line for each function that is not linear, or takes long for a long text."""
    for name, function in readers(modules).items():
        read = quietly(function)
        if problem := first_problem(partial(growth, screen=512), read, killers()):
            yield f"{name}: {problem[0]}"
            continue
        worst = max(killers(), key=lambda killer: cost(read, killer.text(512)))
        seconds = cost(read, worst.text(MOST), 2)
        if seconds > (SECONDS if name.startswith(PROMPT) else SECONDS_OF_DOCUMENT):
            yield f"{name}: {worst}: {MOST:,} characters take {seconds:.1f} s"


PROMPT = ("judges", "parse", "strategies", "verify")
"""Verifiers, and what reads the replies of a model."""
SECONDS, SECONDS_OF_DOCUMENT = 6.0, 30.0
"""For MOST characters on a busy machine; a document is parsed as Markdown, once, before the first call."""
KNOWN: dict[str, str] = {
    "judges.points.read_points": "_",
    "judges.replies.read_verdict": ",:",
    "parse.find_verdict": "Verdict: the ",
    "select.instructions.needs_media": "\n",
    "select.elimination.refused": " ",
    "select.elimination.leaked": "\n",
    "select.heuristics.repetition": "1",
    "strategies.mcr.read_turn": "\n",
    "generators.backtranslate.read_points": "\n",
    "sources.segments.clean": " ",
    "sources.markup.links": "[",
    "sources.markup.without_markup": "{{",
    "sources.markup.split_code": "```x\n",
    "sources.corpus.make_source": "<a ",
    "verify.constraints.detectable_format:number_bullet_lists": "- ",
    "commands.trace.word_diff": "a b ",
}
"""Functions that one such text once stopped, by the unit of the text."""


@pytest.mark.parametrize("name", KNOWN)
def test_a_text_that_stopped_a_reader_is_read_in_linear_time(name: str) -> None:
    read = quietly(readers(modules(datagen))[name])
    for prefix, suffix in (*FRAMES, ("I", "!"), ("- ", "x")):
        assert growth(read, Killer(prefix, KNOWN[name], suffix)) is None, (prefix, suffix)


def test_every_reader_of_text_is_tested() -> None:
    assert unlisted(modules(datagen)) == []
    assert len(readers(modules(datagen))) > 150


def test_a_pattern_of_more_than_linear_time_is_found() -> None:
    for slow in (r"^[\s*_]*(\w+)[\s*_]+$", r"better in terms of[^.]*but", r"(a|b|ab)*c", r"#+\s*new", r"\[[^\]]*\]\("):
        pattern = re.compile(slow, re.MULTILINE)
        assert first_problem(growth_of_units, Pattern(pattern, "", set()).work, killers_of(pattern)), slow


@pytest.mark.slow
def test_every_pattern_takes_linear_time() -> None:
    assert len(all_patterns(datagen)) > 100
    assert not (slow := slow_patterns(datagen)), "\n".join(slow)


@pytest.mark.slow
def test_every_pattern_of_the_trainers_takes_linear_time() -> None:
    pytest.importorskip("torch")
    import datagen_train

    assert len(all_patterns(datagen_train)) > 5
    assert not (slow := slow_patterns(datagen_train)), "\n".join(slow)


@pytest.mark.slow
def test_every_reader_of_text_takes_linear_time_and_little_of_it() -> None:
    assert not (slow := list(slow_readers(modules(datagen)))), "\n".join(slow)
