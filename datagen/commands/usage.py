"""A wrong command line as one line: what is wrong, where, and what to write instead."""

from collections.abc import Sequence
from typing import Any

BOUNDS = {
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "greater_than": "more than {gt:g}",
    "less_than": "less than {lt:g}",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
}
"""What is said for each error of pydantic, which checks the values of options for typer."""


def usage_message(error: Any) -> str:
    """Return the line for a usage error of typer, whose classes are told by attributes: typer exports only one."""
    message, hint = lower_first(error.format_message().rstrip(".")), ""
    if error.ctx is None:  # the parser stopped at an option without its value
        return message
    if not message.endswith("?"):
        hint = f"See: {error.ctx.command_path} --help"
    if hasattr(error, "possibilities"):
        message, hint = f"no such option {error.option_name}", did_you_mean(error.possibilities) or hint
    elif hasattr(error, "param_type"):
        message = f"{error.param.name.upper()} is missing"
        command = error.ctx.parent.command.table.get(error.ctx.info_name)
        hint = f"For example: {command.example}" if command else hint
    elif message.startswith("got unexpected extra argument"):
        hint = f"To read several files, name their folder. {hint}"
    elif error.__cause__ is not None:
        message = value_message(error)
    return f"{error.ctx.command_path}: {message}{'. ' if hint else ''}{hint}"


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def value_message(error: Any) -> str:
    """Return what is wrong with the value of an option or an argument, from the error of pydantic behind it."""
    fault = error.__cause__.errors()[0]
    says = BOUNDS.get(fault["type"], fault["msg"]).format_map(fault.get("ctx", {}))
    return f"{error.param.opts[-1]} {fault['input']}: {says}"


def did_you_mean(names: Sequence[str] | None) -> str:
    """Return a question that names the nearest of some names, which comes first; empty if there is none."""
    return f"Did you mean {names[0]}?" if names else ""
