"""Evolution styles: their operators and rounds, alternating evolvers, and multi-turn conversations."""

import asyncio
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from datagen.commands.table import load_methods
from datagen.engine.job import Outcome, open_job, run_job
from datagen.engine.options import RunOptions
from datagen.generators.evolve import CODE_OPERATORS, DOWNWARD, UPWARD, Evolve
from datagen.prompts import Prompts
from tests.jobs import Quiet, digest, evolve, rows, write_seeds
from tests.server import Message, Server, running

METHODS = load_methods("evolve")


def styles() -> dict[str, type[Evolve]]:
    return {name: method for name, method in METHODS.items() if issubclass(method, Evolve)}


def test_a_style_has_as_many_rounds_as_its_paper() -> None:
    assert {name: method.options_type().rounds for name, method in METHODS.items()} == {
        "general": 4,
        "code": 3,
        "math": 5,
    }


def test_code_is_made_harder_in_five_ways_and_no_other() -> None:
    evolve(write_seeds(60), "sim", style="code", rounds=3)
    counts = Counter(row["meta"]["op"] for row in [*rows("out.jsonl"), *rows("out.rejected.jsonl")])
    assert counts.keys() == set(CODE_OPERATORS)
    assert max(counts.values()) < 2 * min(counts.values()), counts


def test_math_goes_down_for_two_rounds_and_then_up() -> None:
    evolve(write_seeds(30), "sim", style="math", rounds=5)
    operators: dict[int, set[str]] = {}
    for row in [*rows("out.jsonl"), *rows("out.rejected.jsonl")]:
        operators.setdefault(row["meta"]["round"], set()).add(row["meta"]["op"])
    assert operators == {1: set(DOWNWARD), 2: set(DOWNWARD), 3: set(UPWARD), 4: set(UPWARD), 5: set(UPWARD)}


@pytest.mark.parametrize("style", ["code", "math"])
def test_the_drawn_operator_is_in_the_prompt_of_the_evolver(style: str) -> None:
    requests: list[list[Message]] = []

    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        if task == styles()[style].frame:
            requests.append(messages)
        return "Verdict: not equal" if task == "evolve/equal" else f"{messages[-1]['content']} More {sample}."

    with running(Server(answer=answer)) as server:
        evolve(write_seeds(12), f"m@{server.url}", style=style, rounds=3, concurrency="1")
    prompts, folder = Prompts(), styles()[style].folder
    output = [*rows("out.jsonl"), *rows("out.rejected.jsonl")]
    instructions = Counter(prompts[f"{folder}/{row['meta']['op']}"].render().messages[0]["content"] for row in output)
    assert len(requests) == len(output) and len(instructions) > 2
    for instruction, count in instructions.items():
        assert sum(instruction in messages[0]["content"] for messages in requests) == count


def play(server: Server, seeds: Path, output: str = "out.jsonl", concurrency: str = "16") -> Outcome:
    """Evolve with two evolvers and three teachers."""
    names = {"evolver": ["e1", "e2"], "teacher": ["t1", "t2", "t3"], "judge": ["j"]}
    chosen = {role: [f"{name}@{server.url}" for name in models] for role, models in names.items()}
    Path(output).parent.mkdir(exist_ok=True)
    run_options = RunOptions(output=output, concurrency=concurrency)
    with open_job(
        METHODS["general"], str(seeds), METHODS["general"].options_type(rounds=4), run_options, chosen
    ) as job:
        return asyncio.run(run_job(job, Quiet()))


def test_evolvers_and_teachers_take_turns_by_seed_and_round() -> None:
    with running(Server()) as server:
        play(server, write_seeds(60))
    output = [*rows("out.jsonl"), *rows("out.rejected.jsonl")]
    chains: dict[str, dict[int, str]] = {}
    for row in output:
        chains.setdefault(row["meta"]["seed_id"], {})[row["meta"]["round"]] = row["meta"]["evolver"]
    for chain in chains.values():
        assert all(chain[one] != chain[next_one] for one, next_one in pairwise(sorted(chain)) if next_one == one + 1)
    firsts = Counter(chain[1] for chain in chains.values())
    assert firsts.keys() == {"e1", "e2"} and min(firsts.values()) > 15
    answered = Counter(row["meta"]["model"] for row in rows("out.jsonl"))
    assert answered.keys() == {"t1", "t2", "t3"} and max(answered.values()) < 2 * min(answered.values())


def test_who_plays_a_turn_does_not_depend_on_concurrency() -> None:
    with running(Server(latency=0.002)) as server:
        for concurrency in ("1", "64"):
            play(server, write_seeds(20), f"{concurrency}/out.jsonl", concurrency)
    assert digest("1/out.jsonl") == digest("64/out.jsonl")


@pytest.mark.parametrize("style", METHODS)
def test_the_last_turn_of_a_conversation_evolves_and_the_others_stay(style: str) -> None:
    before = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello, I have 3 apples."},
        {"role": "assistant", "content": "Hello! What about them?"},
    ]
    last = {"role": "user", "content": "Compute 3 * 4 + 2."}
    Path("seeds.jsonl").write_text(json.dumps({"messages": [*before, last]}) + "\n")
    evolve(Path("seeds.jsonl"), "sim", style=style, rounds=3)
    output = rows("out.jsonl")
    assert len(output) >= 2
    for row in output:
        assert row["prompt"][:3] == before
        assert [message["role"] for message in row["prompt"][3:]] == ["user"]
    requests = [row["prompt"][3]["content"] for row in output]
    assert len({last["content"], *requests}) == len(requests) + 1
