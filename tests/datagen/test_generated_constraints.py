"""`datagen constraints`: a kept answer meets all constraints, a rejected answer breaks the one that was left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.engine.job import Outcome
from datagen.generators.constraints import Constraints, Options
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.verify.constraints.spec import Constraint, constraint, constraint_sentence, is_met
from tests.jobs import digest, perform, rows, write_seeds


def run(model: str = "sim", output: str = "out.jsonl", seeds: int = 40, **options: Any) -> Outcome:
    method_options = {name: options.pop(name) for name in list(options) if name in Options.__dataclass_fields__}
    return perform(Constraints, write_seeds(seeds), model, output, Options(**method_options), **options)


def of(row: Row) -> list[Constraint]:
    return [constraint(item["id"], item["kwargs"]) for item in json.loads(row["constraints"])]


def test_every_kept_answer_meets_everything_that_its_prompt_states() -> None:
    run(most=2)
    output = rows("out.jsonl")
    assert len(output) > 5
    for row in output:
        assert all(is_met(item, row["response"]) for item in of(row))
        assert all(constraint_sentence(item) in row["prompt"] for item in of(row))
    assert {row["reason"] for row in rows("out.rejected.jsonl")} <= {"unmet", "undecided"}


def test_a_rejected_answer_breaks_the_constraint_that_was_left_out_and_no_pair_is_made_of_one() -> None:
    run(pairs=True, most=2, n=4, seeds=150)
    for row in rows("out.jsonl"):
        constraints = of(row)
        (left_out,) = [item for item in constraints if item.id == row["meta"]["left_out"]]
        assert len(constraints) == 2
        assert all(is_met(item, row["chosen"]) for item in constraints) and is_met(left_out, row["rejected"]) is False


def test_a_forgetful_teacher_keeps_fewer_rows() -> None:
    good, bad = run(output="good.jsonl", most=1), run("sim:skill=0.2", "bad.jsonl", most=1)
    assert good.result["funnel"]["kept"] > bad.result["funnel"]["kept"]


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_do_not_depend_on_concurrency(pairs: bool) -> None:
    for concurrency in ("1", "64"):
        run("sim:skill=0.9,malformed=0.05", f"{concurrency}/out.jsonl", pairs=pairs, concurrency=concurrency)
    assert digest("1/out.jsonl") == digest("64/out.jsonl")


def test_earlier_constraints_of_a_row_make_room_for_its_own() -> None:
    seeds = Path("seeds.jsonl")
    seeds.write_bytes(
        dump_line({"prompt": "Name a bird.", "constraints": [{"id": "x", "kwargs": {}}], "licence": "CC0"})
    )
    perform(Constraints, seeds, "sim", "out.jsonl", Options(most=1))
    (row,) = rows("out.jsonl") or [row["record"] for row in rows("out.rejected.jsonl")]
    assert json.loads(row["constraints"])[0]["id"] != "x"
