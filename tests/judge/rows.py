"""Rows and judges for tests: answers whose worth is written in them, and judges that a test makes up."""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from datagen.commands.main import load_methods
from datagen.engine.job import Outcome
from datagen.records.files import dump_line
from datagen.records.record import Row
from tests.jobs import perform, rows
from tests.server import Message, Server, running

METHODS = load_methods("judge")

ANSWER = re.compile(r"Answer (\w{3}):\n<<<\n(.*?)\n>>>", re.DOTALL)


def write(made: list[Row], path: str = "samples.jsonl") -> Path:
    Path(path).write_bytes(b"".join(map(dump_line, made)))
    return Path(path)


def sample(*responses: str, **more: Any) -> Row:
    return {"prompt": "Say something.", "responses": list(responses), **more}


def judge(
    made: list[Row], way: str, model: str | list[str] = "sim", output: str = "out.jsonl", **given: Any
) -> Outcome:
    """Run `datagen judge`; `given` holds the way's options and those of every run."""
    method = METHODS[way]
    known = {each.name for each in fields(method.options_type)}
    own = {name: given.pop(name) for name in list(given) if name in known}
    return perform(method, write(made), model, output, method.options_type(**own), **{"overwrite": True, **given})


def shown(messages: list[Message]) -> dict[str, str]:
    """Return the answers that a judge is shown by their labels, in the order they stand in."""
    return dict(ANSWER.findall(messages[-1]["content"]))


def asked_of(say: Callable[[dict[str, str]], str], made: list[Row], way: str, **given: Any) -> list[Row]:
    """Have a judge of a test's own judge, who says something about the answers shown; return the ranked rows."""
    with running(Server(answer=lambda model, messages, sample, task: say(shown(messages)))) as server:
        judge(made, way, f"judge@{server.url}", **given)
    return rows("out.jsonl")


def replied(entries: list[tuple[str, list[str]]], made: list[Row], way: str, **given: Any) -> list[Row]:
    """Have recorded replies judge."""
    lines = [{"task": task, "fields": {}, "responses": said} for task, said in entries]
    Path("replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge(made, way, "replay:replies.jsonl", **given)
    return rows("out.jsonl")
