"""`--dry-run` tells an upper bound: no run of any method uses more answers, whatever they are."""

import json
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.engine.forecast import DryRun, dry_run
from datagen.engine.job import open_job
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.llm import stack
from datagen.llm.sim.model import parse_sim
from datagen.records.files import dump_line
from datagen.records.record import Row
from tests.datagen.test_meta import METHODS, OPTIONS, ROW, TEXT
from tests.jobs import perform, write_seeds
from tests.server import WORDS, Server, running

CORPUS = Path(__file__).resolve().parents[2] / "examples" / "corpus"
FAULTY = "sim:skill=0.3,malformed=0.45,refuse=0.1,leak=0.1,noop=0.1"
MODEL_METHODS = [method for method in METHODS if method.roles]
EIGHT: Row = {"prompt": "", "responses": [f"Answer: {n}" for n in range(8)], "answer": "5"}
JUDGE_OPTIONS: list[tuple[str, Row]] = [
    ("compare", {"panel": True, "allow_self": True}),
    ("score", {"panel": True, "samples": 3, "allow_self": True}),
    ("rank", {"top": 2, "panel": True}),
    ("rank", {"top": 8}),
    ("rank", {"top": 0}),
]
MORE_OPTIONS: list[tuple[str, str, Row]] = [
    *(("judge", by, options) for by, options in JUDGE_OPTIONS),
    *(("respond", strategy, {"k": 5}) for strategy in ("direct", "cot", "vote", "rft")),
    ("respond", "tree", {"task": "text", "search": "dfs", "budget": 40}),
    ("respond", "star", {"no_hint": True}),
    ("respond", "cot", {"turns": 3}),
    ("respond", "vote", {"turns": 2, "k": 3}),
    ("improve", "constitution", {"revisions": 3}),
    ("constraints", "", {"pairs": True}),
    ("backtranslate", "", {"samples": 4, "rewrite": True}),
    ("magpie", "", {"turns": 3}),
]
CASES: list[tuple[type[Method], Row]] = [
    *((method, {}) for method in MODEL_METHODS),
    *((load_methods(command)[variant], options) for command, variant, options in MORE_OPTIONS),
]


def write_input(method: type[Method], count: int = 3) -> Path:
    """Write rows that a method reads; several, so that a bound is a sum."""
    path, texts = Path("input.jsonl"), [f"# Canal {n}\n\n{TEXT.replace('nine', str(n))}" for n in range(count)]
    row = EIGHT if method.name == "judge" else ROW
    rows = [row | {"prompt": f"What is {n} + 3?"} for n in range(count)]
    if method.name == "backtranslate":
        return CORPUS
    if method.variant == "mcr":
        rows = [row | {"text": text} for row, text in zip(rows, texts, strict=True)]
    path.write_bytes(b"".join(map(dump_line, rows)))
    return path


def forecast(
    method: type[Method], path: Path | None, models: list[str], options: Any, n: int | None, **settings: Any
) -> DryRun:
    run = RunOptions(output="out.jsonl", model=models, n=n, **settings)
    with open_job(method, str(path) if path else None, options, run, {}) as job:
        return dry_run(job)


RUNS = [
    pytest.param(method, options, n, id=f"{method.name} {method.variant} {options} -n {n}")
    for method, options in CASES
    for n in ((4,) if method.endless else (None,) if options else (None, 4))
]


@pytest.mark.parametrize(("method", "options", "n"), RUNS)
def test_no_run_uses_more_answers_than_the_dry_run_allows(
    method: type[Method], options: dict[str, Any], n: int | None
) -> None:
    path = write_input(method) if method.reads_input else None
    models = [FAULTY, FAULTY.replace("0.45", "0.4"), FAULTY.replace("0.45", "0.35")]
    chosen = method.options_type(**OPTIONS.get(method.variant, {}) | options)
    dry = forecast(method, path, models, chosen, n)
    outcome = perform(method, path, models, "out.jsonl", chosen, n=n, max_failed=10_000)
    assert 0 < dry.calls <= dry.most_calls
    assert outcome.run["usage"]["calls"] <= dry.most_calls
    good = perform(method, path, "sim", "good.jsonl", chosen, max_failed=10_000, n=n)
    assert good.run["usage"]["calls"] <= dry.most_calls


@pytest.mark.parametrize("by", ["compare", "rank", "score"])
def test_a_judge_without_a_fault_makes_the_calls_that_are_expected(by: str) -> None:
    method = load_methods("judge")[by]
    path, options = write_input(method), method.options_type(panel=True, allow_self=True)
    models = ["sim", "sim:skill=0.9"]
    dry = forecast(method, path, models, options, None)
    assert perform(method, path, models, "out.jsonl", options).run["usage"]["calls"] == dry.calls
    assert dry.calls == 3 * {"compare": 8 * 7 * 2, "rank": 1 + 3 * 2 * 2, "score": 2}[by]


def test_a_cap_bounds_the_forecast() -> None:
    method = load_methods("respond")["direct"]
    with open_job(
        method, str(write_input(method, 20)), method.options_type(), RunOptions(model=["sim"], max_calls=7), {}
    ) as job:
        dry = dry_run(job)
    assert (dry.calls, dry.most_calls) == (7, 7)


def test_a_reply_with_more_tasks_than_wanted_costs_no_more_calls() -> None:
    """Self-Instruct asks for seven; the tasks after them are rejected."""

    def answer(model: str, messages: list[dict[str, str]], sample: int, task: str) -> str:
        words = Random(f"{sample} {messages}")
        lines = [" ".join(words.choices(WORDS, k=9)) for _ in range(30)]
        if task == "self_instruct/tasks":
            return "\n".join(json.dumps({"instruction": line}) for line in lines)
        return "No" if task == "self_instruct/classification" else json.dumps({"input": "", "output": lines[0]})

    method = load_methods("self-instruct")["paper"]
    seeds, options = write_seeds(10), method.options_type()
    with running(Server(answer=answer)) as server:
        models = [f"m@{server.url}"]
        dry = forecast(method, seeds, models, options, 20)
        outcome = perform(method, seeds, models, "out.jsonl", options, n=20, concurrency="1")
    assert outcome.run["usage"]["calls"] <= outcome.run["records"] * (1 + 2 * 7)
    assert outcome.run["usage"]["calls"] <= dry.most_calls
    assert outcome.result["funnel"]["rejected"]["unasked_task"] % 23 == 0


FAST = ("respond direct", "evolve general", "judge compare")
PRICED = [
    pytest.param(
        method, options, id=f"{method.name} {method.variant} {options}",
        marks=() if f"{method.name} {method.variant}" in FAST and not options else pytest.mark.slow,
    )
    for method, options in CASES
    if not method.speaks_as_user
]  # fmt: skip


@pytest.mark.parametrize(("method", "options"), PRICED)
def test_the_cost_of_a_run_is_in_the_range_of_the_dry_run(
    method: type[Method], options: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "open_backend", lambda *_: parse_sim("sim"))  # in the place of a server
    path = write_input(method) if method.reads_input else None
    names = {field.name for field in fields(method.options_type)}
    alone = {"allow_self": True} if "allow_self" in names else {}
    chosen = method.options_type(**OPTIONS.get(method.variant, {}) | alone | options)
    n = 4 if method.endless else None
    models, price = [f"{name}@http://127.0.0.1:9/v1" for name in ("a", "b")], ["a=0.5/2", "b=3/15/0.3"]
    dry = forecast(method, path, models, chosen, n, price=price)
    outcome = perform(method, path, models, "out.jsonl", chosen, n=n, max_failed=10_000, price=price)
    usage = outcome.result["usage"]
    assert dry.cost is not None and dry.sources == ["--price"]
    assert dry.cost.least <= usage["cost"] <= dry.cost.usual <= dry.cost.most
    assert dry.tokens.least <= usage["prompt_tokens"] + usage["completion_tokens"] <= dry.tokens.most


def test_a_dry_run_without_a_price_says_so() -> None:
    method = load_methods("respond")["direct"]
    dry = forecast(method, write_input(method), ["m@http://127.0.0.1:9/v1"], method.options_type(), None)
    assert dry.cost is None and dry.unpriced == ["m"] and dry.tokens.least > 0
