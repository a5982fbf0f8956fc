"""Which programs are the same one, written down differently.

Two programs are one if they differ in layout, comments, docstrings, annotations of functions, and in the names that
they give themselves: variables, arguments, functions, classes, imports. What they call of others (attributes, keywords,
builtins) counts. Nothing is run: a program is parsed, and its syntax trees are compared.
"""

import ast
import warnings
from collections.abc import Iterator

from datagen.verify.code import last_code
from datagen.verify.sandbox import MAX_PROGRAM

NAMES = {
    ast.Name: "id", ast.arg: "arg", ast.FunctionDef: "name", ast.AsyncFunctionDef: "name", ast.ClassDef: "name",
    ast.alias: "asname", ast.ExceptHandler: "name", ast.MatchAs: "name", ast.MatchStar: "name",
    ast.MatchMapping: "rest",
}  # fmt: skip
"""The attribute of a node that holds a name which the program gives, or uses."""
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def program_key(answer: str) -> str:
    """Return a key that the answers with the same program share; "" for an answer without one."""
    program = last_code(answer).text
    if not program.strip() or len(program) > MAX_PROGRAM:
        return ""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(program)
        for node in ast.walk(tree):
            strip_words(node)
        rename(tree)
        return ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def strip_words(node: ast.AST) -> None:
    """Take the docstring and the annotations of its function off a node."""
    if isinstance(node, ast.Module | ast.ClassDef | FUNCTIONS) and ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]
    if isinstance(node, FUNCTIONS):
        node.returns = None
    if isinstance(node, ast.arg):
        node.annotation = None


def rename(tree: ast.AST) -> None:
    """Number the names that a program gives itself, in the order of the tree."""
    numbers: dict[str, str] = {}
    for node, field in named_nodes(tree):
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            numbers.setdefault(getattr(node, field), f"name {len(numbers)}")
    for node, field in named_nodes(tree):
        name = getattr(node, field)
        setattr(node, field, numbers.get(name, name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            node.names = [numbers.get(name, name) for name in node.names]


def named_nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield the nodes that hold a name, with the attribute that holds it."""
    for node in ast.walk(tree):
        field = NAMES.get(type(node))
        if field and getattr(node, field) is not None:
            yield node, field
