"""What a method sends beside its messages: a sampling parameter only where the result depends on it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.engine.job import open_job, run_job
from datagen.engine.options import RunOptions
from datagen.records.files import dump_line
from tests.jobs import Quiet
from tests.server import Message, Server, running

CORPUS = Path(__file__).resolve().parents[2] / "examples/corpus/sourdough.md"
ROW = {"prompt": "Describe a canal.", "response": "A canal is dug."}
REPLIES = {
    "evolve/equal": "Verdict: not equal",
    "self_instruct/classification": "No",
    "backtranslate/rate": "Score: 5",
    "judge/compare": "Verdict: tie",
}
TASK = '{"instruction": "Name a lake that has no outlet.", "input": "", "output": "The Dead Sea."}'
NO_SAMPLING = ("model", "messages", "max_tokens", "response_format")
METHODS = [
    load_methods(command)[variant]
    for command, variant in (
        ("evolve", "general"),
        ("self-instruct", "paper"),
        ("self-instruct", "alpaca"),
        ("constraints", ""),
        ("improve", "edit"),
        ("improve", "critique"),
        ("backtranslate", ""),
    )
]


def reply(model: str, messages: list[Message], sample: int, task: str) -> str:
    return REPLIES.get(
        task, TASK if task.startswith("self_instruct") else "Explain how a lively starter is kept for months."
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name} {method.variant}".strip())
def test_texts_are_sampled_as_the_server_likes_and_verdicts_at_0(method: Any) -> None:
    Path("input.jsonl").write_bytes(dump_line(ROW))
    source = CORPUS if method.name == "backtranslate" else "input.jsonl"
    options = method.options_type(**({"rewrite": True} if method.name == "backtranslate" else {}))
    requests: list[dict[str, Any]] = []
    with running(Server(answer=reply)) as server:
        server.refuse = lambda body: requests.append(body)
        roles = {role: [f"{role}@{server.url}"] for role in method.roles}
        run_options = RunOptions(output="out.jsonl", n=1 if method.endless else None)
        with open_job(method, str(source), options, run_options, roles) as job:
            asyncio.run(run_job(job, Quiet()))
    assert {body["model"] for body in requests} == set(roles)
    for body in requests:
        sampling = {name: value for name, value in body.items() if name not in NO_SAMPLING}
        if body["model"] == "judge":
            assert sampling == {"temperature": 1 if method.name == "backtranslate" else 0}
        elif body["max_tokens"] == 16:  # a word is asked for: Yes or No
            assert sampling == {"temperature": 0}
        else:
            assert sampling == {}
