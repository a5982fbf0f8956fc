"""Magpie: the generated user turns, the dropped rows, and rows that do not depend on the order of the calls.

With a real model, and its template: tests/train/test_magpie.py.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from datagen.engine.forecast import dry_run
from datagen.engine.job import Outcome, open_job, run_job
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.generators.magpie import SAMPLING_MIX, Magpie, Options
from datagen.select.novelty import Pool
from tests.jobs import Quiet, digest, perform, rows
from tests.server import Server, running

FAULTY = "sim:refuse=0.1,malformed=0.05"


def run(
    output: str = "out.jsonl", model: str = FAULTY, *, options: dict[str, Any] | None = None, **settings: Any
) -> Outcome:
    return perform(Magpie, None, model, output, Options(**options or {}), **{"n": 60, "max_failed": 1000, **settings})


def test_rows_do_not_depend_on_concurrency() -> None:
    for concurrency in ("1", "16", "256"):
        run(f"{concurrency}/out.jsonl", concurrency=concurrency)
    assert len({digest(f"{concurrency}/out.jsonl") for concurrency in ("1", "16", "256")}) == 1
    assert len(rows("1/out.jsonl")) == 60


def test_more_rows_begin_with_the_same_rows_and_pay_for_the_new_ones_alone() -> None:
    run("grown/out.jsonl", n=30)
    first = Path("grown/out.jsonl").read_bytes()
    again, undisturbed = run("grown/out.jsonl", n=90), run("whole/out.jsonl", n=90)
    assert digest("grown/out.jsonl") == digest("whole/out.jsonl")
    assert Path("grown/out.jsonl").read_bytes().startswith(first)
    assert again.run["requests"] < undisturbed.run["requests"]


def test_another_seed_asks_for_other_things() -> None:
    run("0.jsonl", seed=0)
    run("1.jsonl", seed=1)
    one, other = ({row["prompt"] for row in rows(name)} for name in ("0.jsonl", "1.jsonl"))
    assert len(one & other) < 5


def test_no_prompt_is_like_another_and_none_is_the_assistants() -> None:
    funnel = run(n=200).result["funnel"]
    pool = Pool(0.7)
    for row in rows("out.jsonl"):
        assert pool.is_novel(row["prompt"]), row["prompt"]
        assert "sorry" not in row["prompt"]
        pool.add(row["prompt"])
    assert {"answers", "similar"} <= funnel["rejected"].keys()


def test_what_is_dropped_at_the_turn_is_not_answered() -> None:
    outcome = run(model="sim:refuse=1", n=5)
    assert (outcome.reason, outcome.result["funnel"]["rejected"]) == ("stall", {"answers": 50})
    assert outcome.result["usage"]["calls"] == 50


def test_a_conversation_goes_on_as_it_began() -> None:
    run(model="sim", options={"turns": 3}, n=20)
    for row in rows("out.jsonl"):
        assert [message["role"] for message in row["prompt"]] == ["user", "assistant"] * 2 + ["user"]
        assert all(message["content"] for message in row["prompt"]) and row["response"]
    firsts = {row["prompt"][0]["content"] for row in rows("out.jsonl")}
    assert len(firsts) == 20, "later turns may be alike, first ones may not"
    later = {row["prompt"][-1]["content"] for row in rows("out.jsonl")}
    assert len(later) < 20 and "Why is that?" in later


def test_the_first_request_is_an_empty_turn_after_the_system_message() -> None:
    with open_job(Magpie, None, Options(system="Ask about bees."), RunOptions(model=["sim"], n=1), {}) as job:
        request = dry_run(job).request
    assert request is not None
    assert request["messages"] == [{"role": "system", "content": "Ask about bees."}, {"role": "user", "content": ""}]
    assert (request["temperature"], request["top_p"]) in SAMPLING_MIX
    assert request["stop"] == ["\n"]


def test_the_system_message_is_no_part_of_the_row() -> None:
    run(model="sim", options={"system": "Ask about bees."}, n=3)
    assert "bees" not in Path("out.jsonl").read_text()


def test_an_endpoint_cannot_speak_as_the_user_and_is_not_asked_to() -> None:
    with running(Server()) as server:
        with pytest.raises(InputError, match=r"an endpoint only answers; use local weights: --asker hf:PATH"):
            run(model=f"m@{server.url}")
        assert server.requests == 0
    assert not list(Path().iterdir())


def test_an_endpoint_may_answer() -> None:
    run_options = RunOptions(output="out.jsonl", model=["sim"], n=3, timeout=1.0)
    with running(Server()) as server:
        with open_job(Magpie, None, Options(), run_options, {"teacher": [f"m@{server.url}"]}) as job:
            asyncio.run(run_job(job, Quiet()))
        assert server.requests
    assert {(row["meta"]["asker"], row["meta"]["model"]) for row in rows("out.jsonl")} == {("sim/1", "m")}


def test_every_row_has_the_same_keys_dropped_or_not() -> None:
    run()
    metas = [row["meta"] for row in [*rows("out.jsonl"), *rows("out.rejected.jsonl")]]
    assert len({json.dumps(list(meta)) for meta in metas}) == 1
    assert json.loads(Path("out.meta.json").read_text())["run"]["input"] == "nothing"
