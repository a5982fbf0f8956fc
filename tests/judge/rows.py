"""Rows and judges for tests: answers with a known quality, and judges scripted by a test."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from datagen.commands.table import load_methods
from datagen.engine.job import Outcome
from datagen.records.files import dump_line
from datagen.records.record import Row
from tests.jobs import perform, rows
from tests.server import Message, Server, running

METHODS = load_methods("judge")

ANSWER = re.compile(r"Answer (\w{3}):\n<<<\n(.*?)\n>>>", re.DOTALL)


def write(samples: list[Row], path: str = "samples.jsonl") -> Path:
    Path(path).write_bytes(b"".join(map(dump_line, samples)))
    return Path(path)


def sample(*responses: str, **fields: Any) -> Row:
    return {"prompt": "Say something.", "responses": list(responses), **fields}


def judge(
    inputs: list[Row], variant: str, model: str | list[str] = "sim", output: str = "out.jsonl", **settings: Any
) -> Outcome:
    """Run `datagen judge`; `settings` holds the method's options and those of every run."""
    method = METHODS[variant]
    names = {field.name for field in fields(method.options_type)}
    options = {name: settings.pop(name) for name in list(settings) if name in names}
    settings = {"overwrite": True, **settings}
    return perform(method, write(inputs), model, output, method.options_type(**options), **settings)


def answers_by_label(messages: list[Message]) -> dict[str, str]:
    """Return the answers that a request shows to a judge, by label, in the order they stand in."""
    return dict(ANSWER.findall(messages[-1]["content"]))


def judge_with(say: Callable[[dict[str, str]], str], inputs: list[Row], variant: str, **settings: Any) -> list[Row]:
    """Judge samples with `say`, which writes a reply from the answers by label; return the ranked rows."""
    with running(Server(answer=lambda model, messages, sample, task: say(answers_by_label(messages)))) as server:
        judge(inputs, variant, f"judge@{server.url}", **settings)
    return rows("out.jsonl")
