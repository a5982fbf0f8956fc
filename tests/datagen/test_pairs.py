"""`datagen pairs`: which answers become a pair, which do not and why, and that a pair stays with its prompt."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from datagen.commands.main import app
from datagen.commands.table import load_methods
from datagen.engine.job import Outcome
from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.layout import pack_meta
from datagen.records.record import Row
from datagen.select.pairs import Options
from tests.jobs import digest, perform, respond, rows

METHODS = load_methods("pairs")


def write(content: list[Row], path: str = "ranked.jsonl") -> Path:
    Path(path).write_bytes(b"".join(map(dump_line, content)))
    return Path(path)


def row(name: str, scores: list[float | None], **fields: Any) -> Row:
    """Make a ranked row; each answer names its prompt and its index."""
    words = ["alpha beta", "gamma delta epsilon", "zeta", "eta theta iota kappa", "lambda", "mu nu xi"]
    responses = [f"{name}: {words[at]} {at}" for at in range(len(scores))]
    return {"prompt": f"Prompt {name}", "responses": responses, "scores": scores, **fields}


def pairs(content: list[Row], variant: str = "best_worst", output: str = "out.jsonl", **options: Any) -> Outcome:
    return perform(METHODS[variant], write(content), "sim", output, Options(**options), overwrite=True)


def places(path: str = "out.jsonl") -> list[tuple[int, int]]:
    return [(int(pair["chosen"][-1]), int(pair["rejected"][-1])) for pair in rows(path)]


def reasons() -> Counter[str]:
    return Counter(pair["reason"] for pair in rows("out.rejected.jsonl"))


def test_the_best_stands_against_the_worst() -> None:
    pairs([row("a", [2.0, 5.0, 1.0, 3.0])])
    assert places() == [(1, 2)]
    assert rows("out.jsonl")[0]["margin"] == 4.0


def test_the_best_stands_against_any_other_and_each_gets_its_turn() -> None:
    pairs([row(f"{n}", [2.0, 5.0, 1.0, 3.0]) for n in range(40)], "best_random")
    assert {chosen for chosen, _ in places()} == {1}
    assert {other for _, other in places()} == {0, 2, 3}


def test_all_pairs_of_a_prompt_stay_together() -> None:
    pairs([row("a", [3.0, 2.0, 1.0]), row("b", [1.0, 2.0, 2.0])], "all")
    assert [pair["prompt"][-1] for pair in rows("out.jsonl")] == list("aaabb")
    assert places() == [(0, 1), (0, 2), (1, 2), (1, 0), (2, 0)]
    assert reasons() == {"tie": 1}


def test_a_right_answer_stands_against_a_wrong_one_each_once() -> None:
    responses = [{"verified": verdict} for verdict in (False, True, None, True, False, True)]
    verdicts = {"meta": pack_meta({"responses": responses}), "id": "0" * 16}
    pairs([row("a", [1.0] * 6) | verdicts], "verified")
    assert places() == []  # equal ranks are a tie, whatever a verifier says
    unranked = {name: value for name, value in (row("a", [1.0] * 6) | verdicts).items() if name != "scores"}
    pairs([unranked], "verified")
    assert places() == [(1, 0), (3, 4)]


def test_the_teacher_stands_against_each_of_the_policys_own() -> None:
    write([{"prompt": "Prompt a", "response": "what the teacher says"}], "teacher.jsonl")
    pairs([row("a", [1.0, 2.0]), row("b", [1.0, 2.0])], "spin", teacher=Path("teacher.jsonl"))
    assert {pair["chosen"] for pair in rows("out.jsonl")} == {"what the teacher says"}
    assert [pair["rejected"] for pair in rows("out.jsonl")] == row("a", [1.0, 2.0])["responses"]
    assert reasons() == {"no_pair": 1}
    with pytest.raises(InputError, match="--teacher FILE"):
        pairs([row("a", [1.0, 2.0])], "spin")


@pytest.mark.parametrize(
    ("scores", "options", "reason"),
    [
        ([1.0, 1.1], {}, "tie"),
        ([1.0, 1.2], {}, None),
        ([1.0, 1.2], {"tie": 0.5}, "tie"),
        ([1.0, 2.0], {"margin": 1.5}, "small_margin"),
        ([1.0, 2.5], {"margin": 1.5}, None),
        ([1.0, None], {}, "unjudged"),
        ([None, None], {}, "unjudged"),
        ([1.0, 2.0], {"length_ratio": 1.2}, "unlike_lengths"),
        ([1.0, 2.0], {"length_ratio": 2.0}, None),
    ],
)
def test_a_pair_that_says_little_is_dropped_with_its_reason(
    scores: list[float | None], options: dict[str, Any], reason: str | None
) -> None:
    outcome = pairs([row("a", scores)], **options)
    assert len(rows("out.jsonl")) == (reason is None)
    assert outcome.result["funnel"]["rejected"] == ({reason: 1} if reason else {})


def test_an_answer_that_says_nothing_is_in_no_pair() -> None:
    outcome = pairs([{"prompt": "Why?", "responses": ["Because.", " "], "scores": [5, 1], "ranks": [1, 2]}])
    assert outcome.result["funnel"]["rejected"] == {"empty": 1}


def test_nearly_the_same_is_no_pair_unless_the_results_differ() -> None:
    text = "First we add the two numbers that are given, then we look at what it comes to. "
    same = {"prompt": "P", "responses": [text + "Done!", text + "Done."], "ranks": [1, 2]}
    other = {"prompt": "Q", "responses": [text + "Answer: 5", text + "Answer: 6"], "ranks": [1, 2]}
    pairs([same, other])
    assert [pair["prompt"] for pair in rows("out.jsonl")] == ["Q"]
    assert reasons() == {"near_identical": 1}


def test_ranks_without_scores_are_enough_and_equal_ones_are_a_tie() -> None:
    bare = {name: value for name, value in row("a", [0, 0, 0]).items() if name != "scores"}
    pairs([bare | {"ranks": [2, 1, 2]}], "all")
    assert places() == [(1, 0), (1, 2)] and reasons() == {"tie": 1}
    assert all("margin" not in pair for pair in rows("out.jsonl"))


def test_samples_that_nobody_ranked_say_what_to_do() -> None:
    outcome = pairs([{"prompt": "P", "responses": ["a", "b"]}])
    assert outcome.result["funnel"]["asked"] == 0
    assert "datagen judge" in rows("out.rejected.jsonl")[0]["reason"]


def test_whether_the_chosen_is_the_longer_one_is_measured_and_printed() -> None:
    content = [
        {"prompt": f"P{n}", "responses": ["a much longer answer than that", "short one"], "scores": scores}
        for n, scores in enumerate(([2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 2.0]))
    ]
    figures = pairs(content).result["table"]
    lengths = {"pairs": 4, "chosen_longer": 0.75, "chosen_length": 24.8, "rejected_length": 14.2}
    assert figures == figures | lengths
    ran = CliRunner().invoke(app, ["pairs", "ranked.jsonl", "-o", "override.jsonl"], catch_exceptions=False)
    assert "chosen is the longer" in ran.stderr and "75.0 %" in ran.stderr


RANKED = st.lists(st.lists(st.sampled_from([None, 1.0, 2.0, 3.0]), min_size=1, max_size=4), min_size=2, max_size=6)


@pytest.mark.parametrize("variant", ["best_worst", "best_random", "all"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(RANKED, st.data())
def test_a_row_dropped_in_the_middle_shifts_no_pair_to_another_prompt(
    variant: str, scores: list[list[float | None]], data: st.DataObject
) -> None:
    content = [row(f"{n}", values) for n, values in enumerate(scores) if len(values) > 1]
    spoilt = data.draw(st.sets(st.integers(0, max(len(content) - 1, 0))))
    bad = [ranked | {"scores": ["?"]} if at in spoilt else ranked for at, ranked in enumerate(content)]
    if not set(range(len(content))) - spoilt:
        return
    pairs(content, variant, "whole.jsonl")
    pairs(bad, variant)
    for pair in rows("out.jsonl"):
        name = pair["prompt"].removeprefix("Prompt ")
        assert pair["chosen"].startswith(f"{name}:") and pair["rejected"].startswith(f"{name}:")
    gone = {content[at]["prompt"] for at in spoilt}
    assert rows("out.jsonl") == [pair for pair in rows("whole.jsonl") if pair["prompt"] not in gone]


def test_rows_do_not_depend_on_concurrency() -> None:
    path = write([row(f"{n}", [2.0, 5.0, 1.0, None]) for n in range(50)])
    for concurrency in ("1", "64"):
        perform(METHODS["all"], path, "sim", f"{concurrency}/out.jsonl", Options(), concurrency=concurrency)
    assert digest("1/out.jsonl") == digest("64/out.jsonl")


def by_models(name: str, *models: str | None) -> Row:
    meta = pack_meta({"method": "respond", "responses": [{"model": model} for model in models]})
    return {"id": f"{int(name):016x}", **row(name, [1.0 for _ in models]), "meta": meta}


def test_a_stronger_model_stands_against_a_weaker_one_without_a_judge() -> None:
    content = [by_models("1", "weak", "strong"), by_models("2", "strong-2026-01-02", "weak", "weak", "strong", None)]
    pairs([*content, by_models("3", "weak", "weak"), by_models("4", "strong", None)], "delta", strong="strong")
    assert places() == [(1, 0), (0, 1), (3, 2)]
    metas = [pair["meta"] for pair in rows("out.jsonl")]
    assert [meta["models"] for meta in metas] == [["strong", "weak"], ["strong-2026-01-02", "weak"], ["strong", "weak"]]
    assert {meta["judging"] for meta in metas} == {None}
    assert reasons() == {"no_pair": 2}


def test_a_stronger_model_that_wrote_nothing_is_told_before_the_first_row() -> None:
    with pytest.raises(InputError, match="no answer is by --strong big; the answers are by small, tiny"):
        pairs([by_models("1", "small", "tiny")], "delta", strong="big")
    with pytest.raises(InputError, match="--by delta needs --strong MODEL"):
        pairs([by_models("1", "small", "tiny")], "delta")


def test_two_teachers_and_one_command_more_make_delta_pairs() -> None:
    models = ["sim:skill=0.9", "sim:skill=0.2"]
    prompts = write([{"prompt": f"Compute {n} * 7 + {n + 2}."} for n in range(20)], "prompts.jsonl")
    respond(prompts, models, "samples.jsonl", strategy="cot", k=2)
    perform(METHODS["delta"], Path("samples.jsonl"), "sim", "out.jsonl", Options(strong=models[0]))
    written = rows("out.jsonl")
    assert len(written) > 10
    assert {tuple(pair["meta"]["models"]) for pair in written} == {(f"{models[0]}/1", f"{models[1]}/1")}
