"""`datagen improve`: a new answer is accepted only if it is better, not longer, and not less correct."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.engine.job import Outcome
from datagen.errors import InputError
from datagen.generators.improve import Options, rejection_reason
from datagen.records.files import dump_line
from datagen.records.record import Record, Row
from tests.jobs import digest, perform, respond, rows

METHODS = load_methods("improve")


def sums(count: int, path: str = "sums.jsonl", **fields: Any) -> Path:
    content = (
        {"prompt": f"Compute {n} * 7 + {n + 2}. Use the word 'harbor' in the answer.", **fields}
        for n in range(2, count + 2)
    )
    Path(path).write_bytes(b"".join(map(dump_line, content)))
    return Path(path)


def answers(count: int, skill: float) -> Path:
    respond(sums(count), f"sim:skill={skill}", "answers.jsonl", strategy="cot")
    return Path("answers.jsonl")


def improve(
    path: Path, variant: str = "edit", model: str = "sim", output: str = "out.jsonl", **settings: Any
) -> Outcome:
    method = METHODS[variant]
    names = {field.name for field in fields(method.options_type)} & settings.keys()
    method_options = {name: settings.pop(name) for name in names}
    return perform(method, path, model, output, method.options_type(**method_options), **settings)


def record(response: str, **extra: Any) -> Record:
    return Record("0" * 16, "Compute 2 + 3.", response, extra=extra)


OPTIONS = Options()


def test_what_is_the_same_or_much_longer_needs_no_judge() -> None:
    assert rejection_reason(record("a"), "a ", "a", OPTIONS) == "unchanged"
    old = "word " * 200
    assert rejection_reason(record(old), old, "word " * 338 + "x" * 10, OPTIONS) is None
    assert rejection_reason(record(old), old, "word " * 338 + "x" * 11, OPTIONS) == "much_longer"


def test_a_right_result_may_not_become_wrong_and_an_unknown_one_may_not_change() -> None:
    known, unknown = record("Answer: 5", answer="5"), record("Answer: 5")
    assert rejection_reason(known, "Answer: 5", "Answer: 6", OPTIONS) == "flipped"
    assert rejection_reason(known, "Answer: 5", "I would say so.", OPTIONS) == "flipped"
    assert rejection_reason(known, "Answer: 6", "Answer: 5", OPTIONS) is None
    assert rejection_reason(unknown, "Answer: 5", "Answer: 6", OPTIONS) == "answer_changed"
    assert rejection_reason(unknown, "Answer: 5", "It is 5.0.\nAnswer: 5.0", OPTIONS) is None
    assert rejection_reason(unknown, "Ships.", "Ships and boats.", OPTIONS) is None


@pytest.mark.parametrize("variant", METHODS)
def test_rows_do_not_depend_on_concurrency(variant: str) -> None:
    path = answers(10, 0.5)
    for concurrency in ("1", "64"):
        improve(path, variant, "sim:skill=0.8,malformed=0.05", f"{concurrency}/out.jsonl", concurrency=concurrency)
    assert digest("1/out.jsonl") == digest("64/out.jsonl")


@pytest.mark.parametrize("variant", METHODS)
def test_what_is_accepted_is_better_and_what_is_not_keeps_the_old_answer(variant: str) -> None:
    improve(answers(20, 1.0), variant, "sim:skill=0.8")
    output = rows("out.jsonl")
    assert len(output) == 20
    accepted = [row for row in output if row["meta"]["accepted"]]
    assert len(accepted) > 5
    for row in output:
        if row["meta"]["accepted"]:
            assert "harbor" in row["response"] and "harbor" not in row["meta"]["original"]
            assert row["meta"]["kept_because"] is None
        else:
            assert row["response"] == row["meta"]["original"] and row["meta"]["kept_because"]


def test_a_judge_that_likes_the_first_place_decides_nothing() -> None:
    path = answers(12, 1.0)
    improve(path, model="sim:position_bias=1", output="biased.jsonl")
    assert {row["meta"]["kept_because"] for row in rows("biased.jsonl")} == {"no_better"}


def test_preferences_hold_the_new_over_the_old_and_cost_nothing_more() -> None:
    path = answers(12, 1.0)
    improve(path, output="rows.jsonl")
    outcome = improve(path, output="pairs.jsonl", pairs=True)
    assert outcome.run["requests"] == 0
    better = [row for row in rows("rows.jsonl") if row["meta"]["accepted"]]
    assert [(row["chosen"], row["rejected"]) for row in rows("pairs.jsonl")] == [
        (row["response"], row["meta"]["original"]) for row in better
    ]


def test_rows_that_did_not_get_better_are_dropped_on_demand() -> None:
    improve(answers(12, 0.5), only_better=True)
    dropped: list[Row] = rows("out.rejected.jsonl")
    assert all(row["meta"]["accepted"] for row in rows("out.jsonl"))
    assert dropped and all(row["reason"] == row["meta"]["kept_because"] for row in dropped)


def test_every_step_of_a_constitution_is_kept() -> None:
    improve(answers(3, 0.5), "constitution", revisions=3)
    for row in rows("out.jsonl"):
        assert [step["template"] for step in row["meta"]["steps"]] == ["improve/critique", "improve/revise"] * 3


def test_a_model_does_not_judge_its_own_rewrite() -> None:
    Path("one.jsonl").write_bytes(dump_line({"prompt": "Hi?", "response": "Well, hello there."}))
    replies = [
        {"task": "improve/edit", "fields": {}, "responses": ["Hello, and welcome."]},
        {"task": "judge/compare", "fields": {}, "responses": ["Verdict: tie"] * 2},
    ]
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, replies)))
    with pytest.raises(InputError, match="name another one with --judge, or add --allow-self"):
        improve(Path("one.jsonl"), model="replay:replies.jsonl")
    assert not Path("out.jsonl").exists()
    improve(Path("one.jsonl"), model="replay:replies.jsonl", output="override.jsonl", allow_self=True)
    assert rows("override.jsonl")[0]["meta"]["kept_because"] == "no_better"


def test_a_row_without_a_response_is_rejected() -> None:
    improve(sums(2))
    assert [row["reason"] for row in rows("out.rejected.jsonl")] == ["no_response"] * 2


def test_an_aspect_is_drawn_from_those_that_are_named() -> None:
    path = answers(12, 0.5)
    improve(path, aspect=["helpful", "creative"], output="two.jsonl")
    assert {row["meta"]["aspect"] for row in rows("two.jsonl")} == {"helpful", "creative"}
    improve(path, output="all.jsonl")
    assert len({row["meta"]["aspect"] for row in rows("all.jsonl")}) > 3
    for row in rows("two.jsonl"):
        names = [entry["name"] for entry in row["meta"]["templates"]]
        assert names == ["improve/edit", f"aspects/{row['meta']['aspect']}", "judge/compare", "judge/reminder"]
    with pytest.raises(InputError, match="--aspect better: expected deeper"):
        improve(path, aspect=["better"])


def test_a_chinese_answer_is_edited_in_chinese() -> None:
    Path("zh.jsonl").write_bytes(dump_line({"prompt": "写一首关于大海的短诗。", "response": "大海很蓝，也很宽。"}))
    for lang, template in (("auto", "improve/edit.zh"), ("en", "improve/edit")):
        improve(Path("zh.jsonl"), output=f"{lang}.jsonl", lang=lang)
        assert rows(f"{lang}.jsonl")[0]["meta"]["templates"][0]["name"] == template


def test_preferences_come_with_the_table_of_pairs() -> None:
    outcome = improve(answers(12, 1.0), pairs=True)
    table, written = outcome.result["table"], rows("out.jsonl")
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in written]
    assert (table["pairs"], table["chosen_longer"]) == (len(written), round(sum(longer) / len(longer), 4))
    (judging,) = table["judges"]
    assert {row["meta"]["judging"] for row in written} == {judging} and " compare " in judging
