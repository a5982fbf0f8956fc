"""A server that answers as `sim` does: for the model names of the documents.

`sim` needs the values in the template that asks. A server sees messages only, so the values are read back from them.
"""

import re
from functools import cache
from pathlib import Path

from datagen.llm.sim import SimRandom
from datagen.llm.sim.model import HANDLERS
from datagen.prompts import ROLE_LINE, SHIPPED
from datagen.records.record import request_text
from tests.server import Message, request_key

PIECE = re.compile(r"\{\{ (\w+) \}\}|\{% (?:if \w+|else) %\}\n|\{% endif %\}\n?")


def play_sim(model: str, messages: list[Message], sample: int, task: str) -> str:
    """Answer a request as `sim` does; raise ValueError for one that no template of the task has made."""
    fields = {"prompt": request_text(messages)} if task == "answer" else read_fields(task, messages)
    return HANDLERS[task](fields, SimRandom(request_key(model, messages, sample)))


def read_fields(task: str, messages: list[Message]) -> dict[str, str]:
    """Return the values in the messages, by the template of the task in any language."""
    for path in sorted(SHIPPED.glob(f"{task}.*.md")):
        patterns = inverse(path)
        roles = [(message["role"], message["content"]) for message in messages]
        if [role for role, _ in patterns] != [role for role, _ in roles]:
            continue
        matches = [pattern.fullmatch(text) for (_, pattern), (_, text) in zip(patterns, roles, strict=True)]
        if all(matches):
            return {name: value or "" for match in matches if match for name, value in match.groupdict().items()}
    raise ValueError(f"no template {task} made this request: {messages}")


@cache
def inverse(path: Path) -> list[tuple[str, re.Pattern[str]]]:
    """Return, for each message of a template, a pattern whose groups are the values."""
    body = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    _, *pieces = ROLE_LINE.split(body)
    seen: set[str] = set()
    return [(role, pattern_of(text.strip(), seen)) for role, text in zip(pieces[::2], pieces[1::2], strict=True)]


def pattern_of(text: str, seen: set[str]) -> re.Pattern[str]:
    """Turn the source of one message into a pattern. Only the first place of a value is a group."""
    pattern, at, end = "", 0, ")?"
    for piece in PIECE.finditer(text):
        pattern += re.escape(text[at : piece.start()])
        at = piece.end()
        if name := piece[1]:
            pattern += ".*?" if name in seen else f"(?P<{name}>.*?)"
            seen.add(name)
        elif "if" in piece[0].split():
            pattern, end = pattern + "(?:", ")?"
        elif "else" in piece[0].split():
            pattern, end = pattern + "|", ")"
        else:
            pattern += end
    return re.compile(pattern + re.escape(text[at:]), re.DOTALL)
