"""Every reason is explained: no method drops a row for a reason that it does not declare.

`tests/jobs.py` checks the same of every run that a test makes.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from datagen.commands.table import COMMANDS, load_methods
from datagen.engine.method import Method
from datagen.engine.reasons import COMMON_REASONS, reason_sentence
from datagen.llm.vectors import NO_VECTOR
from datagen.select.diversity import NOT_DIVERSE
from datagen.select.meaning import SIMILAR
from datagen_train.tools.score import RewardRanking

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("datagen/engine", "datagen/judges", "datagen/select", "datagen/sources", "datagen/strategies",
           "datagen/generators", "datagen/llm", "train/datagen_train/tools")  # fmt: skip
METHODS: list[type[Method]] = [
    *(method for name in COMMANDS if COMMANDS[name].methods for method in load_methods(name).values()),
    RewardRanking,
]
NAME = re.compile(r"[a-z]+(?:[_ ][a-z]+)*\Z")
NO_REASONS = {
    "datagen/select/pairs.py": {"model"},
    "datagen/llm/endpoint.py": {"unsupported"},
    "datagen/judges/judge_method.py": {"no statement in it"},
}
"""What such functions return, or such variables hold, that is no reason."""


def literals(node: ast.AST | None) -> Iterator[str]:
    """Yield the texts that an expression may have as its value; those in a condition are none."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*literals(body), *literals(orelse))
        case ast.BoolOp(values=values):
            for value in values:
                yield from literals(value)
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, default]):
            yield from literals(default)


def reason_literals(tree: ast.AST) -> Iterator[str]:
    """Yield the texts that stand where a file names a reason."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="reject" | "CallFailed" | "BadAnswer" | "PatternRule"), args=[first, *_]):
                yield from literals(first)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="reasons"), attr="append"), args=[reason]):
                yield from literals(reason)
            case ast.Call(func=ast.Attribute(attr="reject"), args=[_, _, reason, *_]):
                yield from literals(reason)
            case ast.Assign(targets=[ast.Name(id="reason" | "problem")], value=value):
                yield from literals(value)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="reasons"))], value=value):
                yield from literals(value)
            case ast.AnnAssign(target=ast.Name(id="reason"), value=value):
                yield from literals(value)
            case ast.FunctionDef(returns=ast.BinOp() as returns) if ast.unparse(returns) == "str | None":
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return):
                        yield from literals(inner.value)


def test_every_reason_in_the_code_is_declared_by_a_method() -> None:
    declared = set(COMMON_REASONS).union(*(method.reasons for method in METHODS))
    reasons: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            file = str(path.relative_to(ROOT))
            if "/sim/" not in file:
                texts = {text for text in reason_literals(ast.parse(path.read_text())) if NAME.match(text)}
                reasons[file] = texts - NO_REASONS.get(file, set())
    assert sum(map(len, reasons.values())) > 60, "the scan reads the code"
    assert {file: texts - declared for file, texts in reasons.items() if texts - declared} == {}
    # And none is explained that nothing drops a row for.
    plain = {name for name in declared if "NAME" not in name and "HTTP" not in name}
    assert plain - set[str]().union(*reasons.values()) - COMPUTED == set()


COMPUTED = {"unparsed answer", "cut answer", "parser error", "worse", "boilerplate"} | {SIMILAR, NOT_DIVERSE, NO_VECTOR}
"""Reasons that no literal in these places names."""


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name} {method.variant}")
def test_every_sentence_is_one(method: type[Method]) -> None:
    for name, text in method.reasons.items():
        assert text[0] in text[0].upper() + "-" and text.endswith(".") and len(text) < 130, name


def test_what_varies_in_a_reason_does_not_hide_its_sentence() -> None:
    evolve, keep = load_methods("evolve")["general"], load_methods("filter")[""]
    assert reason_sentence(evolve, "refused (HTTP 400)") == COMMON_REASONS["refused (HTTP N)"]
    assert reason_sentence(evolve, "refused") == evolve.reasons["refused"]
    assert reason_sentence(keep, "contaminated:a:b.jsonl") == keep.reasons["contaminated:NAME"]
    assert reason_sentence(keep, "no_such_reason") is None
