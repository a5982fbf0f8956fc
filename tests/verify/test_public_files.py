"""Verifiers against public files: flags that their authors recorded, gold solutions, answers of every kind."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, Row
from datagen.verify import VERIFIERS, reference_answer
from datagen.verify.answers import answer_key, final_answer
from datagen.verify.equality import same_answer
from datagen.verify.equations import equations, holds
from datagen.verify.expressions import evaluate
from datagen.verify.numbers import parse_number
from tests.conftest import REAL_DATA

BBH = {
    "boolean_expressions": ["False", "False", "True"],
    "date_understanding": ["(D)", "(B)", "(B)"],
    "logical_deduction_three_objects": ["(B)", "(A)", "(C)"],
    "multistep_arithmetic_two": ["123", "3929", "-219"],
    "navigate": ["No", "No", "Yes"],
    "object_counting": ["6", "11", "8"],
    "penguins_in_a_table": ["(B)", "(B)", "(D)"],
    "word_sorting": [
        "costume counterpart oven",
        "credulity hypochlorite phone ponderosa",
        "arson aspect census mugho newt parthia seismography",
    ],
}
"""What the three worked examples of each task answer."""


def here(name: str) -> Path:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"the real data are not here: ../shared/data/{name}")
    return path


def json_lines(name: str) -> list[Row]:
    return [json.loads(line) for line in here(name).read_text(encoding="utf-8").splitlines()]


def test_1200_model_solutions_of_gsm8k_get_the_verdict_that_was_recorded() -> None:
    verdicts: Counter[tuple[bool | None, bool]] = Counter()
    for row in json_lines("gsm8k/test_300_model_solutions.jsonl"):
        record = Record("0", row["question"], response=row["ground_truth"])
        for solution in (value for value in row.values() if isinstance(value, dict)):
            verdicts[VERIFIERS["answer"](record, solution["solution"]), solution["is_correct"]] += 1
    assert verdicts == {(True, True): 430, (False, False): 767, (None, False): 3}


def test_2000_gold_solutions_of_gsm8k_state_a_number_and_compute_right() -> None:
    verdicts: Counter[bool | None] = Counter()
    for row in json_lines("gsm8k/train_2000.jsonl"):
        stated = final_answer(row["answer"])
        figures = row["answer"].rpartition("####")[2].replace(",", "").strip()
        assert stated is not None and parse_number(stated) == int(figures)
        verdicts[VERIFIERS["equations"](Record("0", row["question"]), row["answer"])] += 1
    assert verdicts == {True: 1984, None: 16}


def test_gold_solutions_without_a_verdict_are_algebra_or_beyond_the_notation() -> None:
    unread = [
        equation
        for row in json_lines("gsm8k/train_2000.jsonl")
        for equation in equations(row["answer"])
        if holds(equation) is None
    ]
    assert ["=".join(equation) for equation in unread] == ["180//3=60"]


def test_5000_samples_of_game24_get_the_reward_that_was_recorded() -> None:
    """A mean of 5.08 % of the samples, and any of 100 for 28 of the 50 puzzles (ToT's CoT baseline)."""
    rows = json_lines("game24/gpt4_cot_samples_50x100.jsonl")
    verdicts = [
        [
            VERIFIERS["game24"](Record("0", f"Input: {row['puzzle']}"), sample["text"]) is True
            for sample in row["samples"]
        ]
        for row in rows
    ]
    assert verdicts == [[sample["r"] == 1 for sample in row["samples"]] for row in rows]
    assert (sum(map(sum, verdicts)), sum(map(len, verdicts)), sum(map(any, verdicts))) == (254, 5000, 28)


@pytest.mark.parametrize("task", BBH)
def test_answers_of_every_kind_are_found_and_reported_apart(task: str) -> None:
    targets = {example["target"] for example in json.loads(here(f"bbh/{task}.json").read_text())["examples"]}
    assert len({answer_key(target) for target in targets}) == len(targets)
    for target in targets:
        forms = ("So the answer is {}.", "#### {}", "\\boxed{{{}}}", "**Answer:** {}", "The answer is: **{}**.\nDone.")
        texts = [form.format(target) for form in forms] + [f"Answer: {', '.join(target.split())}"]
        assert all(same_answer(final_answer(f"Let us think.\n{text}"), target) for text in texts)
        others = [other for other in targets if other != target]
        assert not any(same_answer(final_answer(texts[0]), other) for other in others)


@pytest.mark.parametrize("task", BBH)
def test_worked_examples_state_their_answers(task: str) -> None:
    examples = here(f"bbh/cot-prompts/{task}.txt").read_text().split("\n\nQ: ")[1:]
    assert [final_answer(example) for example in examples] == BBH[task]


def test_nested_arithmetic_is_worked_out_to_the_target() -> None:
    examples: list[Any] = json.loads(here("bbh/multistep_arithmetic_two.json").read_text())["examples"]
    assert all(evaluate(example["input"].removesuffix("=")) == int(example["target"]) for example in examples)


def test_700_equations_of_svamp_are_worked_out_to_their_answers() -> None:
    rows = json.loads(here("svamp/svamp_700.json").read_text())
    assert len(rows) == 700
    assert all(evaluate(row["Equation"]) == parse_number(str(row["Answer"])) for row in rows)


def test_bare_answers_are_references() -> None:
    with here("formats/medicalgpt_grpo.jsonl").open("rb") as file:
        records = [record for record in Reader("grpo", file, PROMPTS).read() if isinstance(record, Record)]
    assert len(records) == 200
    assert all(reference_answer(record) == record.response for record in records)
    assert all(VERIFIERS["answer"](record, f"So the answer is {record.response}.0 in all.") for record in records)
