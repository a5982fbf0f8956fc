"""The parameters of a request: those of the method, the model and the user, and which of them a judge gets."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.table import load_methods
from datagen.errors import InputError
from datagen.generators.evolve import VERDICT_SAMPLING, Evolve
from datagen.llm.model import merge_judge_params
from datagen.llm.parameters import LENGTHS
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.strategies.direct import Direct
from tests.jobs import perform, write_seeds
from tests.server import Server, running

PARAMS = st.dictionaries(
    st.sampled_from((*LENGTHS, "temperature", "top_p", "chat_template_kwargs")), st.integers(1, 9999), max_size=4
)


def requests_of(**run: Any) -> list[Row]:
    """Run one round of `evolve`; return its requests."""
    requests: list[Row] = []

    def note(request: Row) -> None:
        requests.append(request)

    with running(Server(refuse=note)) as server:
        perform(Evolve, write_seeds(2), f"m@{server.url}", "out.jsonl", Evolve.options_type(rounds=1), **run)
    return requests


def is_judging(request: Row) -> bool:
    return "Verdict" in str(request["messages"])


@pytest.mark.parametrize(
    ("run", "sent"),
    [
        ({}, {}),
        ({"max_tokens": 16000, "temperature": 0.9, "top_p": 0.5}, {"max_tokens": 16000}),
        ({"max_tokens": 16000, "param": ["max_completion_tokens=20000"]}, {"max_tokens": 20000}),
        ({"max_tokens": 8}, {}),
        ({"judge_param": ["temperature=1", "seed=7"]}, {"temperature": 1, "seed": 7}),
        ({"max_tokens": 16000, "judge_param": ["max_tokens=99"]}, {"max_tokens": 99}),
    ],
)
def test_a_judge_gets_a_longer_limit_and_what_is_meant_for_it_alone(run: dict[str, Any], sent: dict[str, Any]) -> None:
    request = next(filter(is_judging, requests_of(**run)))
    assert {name: request[name] for name in request.keys() - {"model", "messages"}} == VERDICT_SAMPLING | sent


def test_parameters_of_the_judge_go_to_no_other_role() -> None:
    requests = requests_of(judge_param=["seed=7"])
    assert {("seed" in request, is_judging(request)) for request in requests} == {(True, True), (False, False)}


def test_a_method_without_a_judge_takes_no_parameters_for_one() -> None:
    with pytest.raises(InputError, match=r"^--judge-param: respond direct has no judge$"):
        perform(Direct, write_seeds(1), "sim", "out.jsonl", Direct.options_type(), judge_param=["seed=7"])


@pytest.mark.parametrize("run", [{"temperature": 0.5}, {"top_p": 0.5}, {"param": ["seed=7"]}])
def test_parameters_that_a_judge_would_not_get_are_refused_with_the_way_out(run: dict[str, Any]) -> None:
    Path("in.jsonl").write_bytes(dump_line({"prompt": "A?", "responses": ["one", "two"]}))
    method = load_methods("judge")["score"]
    with pytest.raises(InputError, match="To set it all the same: --judge-param"):
        perform(method, Path("in.jsonl"), "sim", "out.jsonl", method.options_type(), **run)
    perform(method, Path("in.jsonl"), "sim", "out.jsonl", method.options_type(), max_tokens=9, judge_param=["seed=7"])


@given(PARAMS, PARAMS, PARAMS, PARAMS)
def test_what_a_judge_gets(method: Row, model: Row, user: Row, judge: Row) -> None:
    merged = merge_judge_params(method, model, user, judge)
    assert merged.items() >= judge.items()
    lengths = [params[name] for params in (method, model, user) for name in LENGTHS if name in params]
    if lengths and not judge.keys() & set(LENGTHS):
        assert [merged[name] for name in LENGTHS if name in merged] == [max(lengths)]
    for name in {"temperature", "top_p"} - judge.keys():
        assert merged.get(name) == method.get(name, model.get(name))
