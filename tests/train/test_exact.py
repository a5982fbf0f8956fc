"""A loss is that of the whole: of all held-out rows, and of a batch, however either is split. A curve has no seams."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from datagen_train import dpo, pretrain, reward, sft
from datagen_train.options import DpoOptions
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.runs import Notes, metrics, train, train_line
from tests.train.tasks import problems, write_rows

MODULES = {"sft": sft, "pretrain": pretrain, "dpo": dpo, "reward": reward}
HELD_OUT, LIMIT = 0.35, 25


def words(number: int) -> str:
    """A text of 1 to 9 words."""
    return " ".join(f"w{(number * 7 + i) % 30}" for i in range(1 + number % 9))


@pytest.fixture
def files() -> dict[str, str]:
    """A file for each trainer, whose texts are short and long."""
    prompts = [prompt for prompt, _ in problems(0)[:37]]
    Random(0).shuffle(prompts)
    write_rows("rows.jsonl", [{"prompt": p, "response": words(i)} for i, p in enumerate(prompts)])
    write_rows("texts.jsonl", [{"text": f"{p} {words(i)}"} for i, p in enumerate(prompts)])
    pairs = [{"prompt": p, "chosen": words(i), "rejected": words(5 * i + 3)} for i, p in enumerate(prompts)]
    write_rows("pairs.jsonl", pairs)
    return {"sft": "rows.jsonl", "pretrain": "texts.jsonl", "dpo": "pairs.jsonl", "reward": "pairs.jsonl"}


def evals(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith("eval_")}


def cases(*fast: str, only: tuple[str, ...] = tuple(MODULES)) -> list[Any]:
    """The trainers; all but the named ones run with the slow tests."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in only]


LOSSES = {"dpo": DpoOptions(loss="sigmoid+sft")}


@pytest.mark.parametrize("name", cases("sft", "dpo"))
def test_a_measurement_does_not_depend_on_the_batch_size(name: str, files: dict[str, str], base: str) -> None:
    measured = []
    for size in (1, 3, 8):
        common: dict[str, Any] = {"model": base, "steps": 1, "held_out": HELD_OUT, "batch_size": size}
        result = train(MODULES[name], files[name], LOSSES.get(name), output=f"out{size}", **common)
        measured.append(evals(result["start"]))
        if name in ("sft", "pretrain"):
            options = EvalOptions(held_out=HELD_OUT, documents=name == "pretrain", batch_size=5, all=True)
            assert evaluate.run(f"out{size}", files[name], options)["loss"] == pytest.approx(
                result["end"]["eval_loss"], abs=1e-5
            )
    assert len(measured[0]) >= 3
    assert measured[1] == pytest.approx(measured[0], abs=1e-5)
    assert measured[2] == pytest.approx(measured[0], abs=1e-5)


@pytest.mark.parametrize("name", cases("dpo", only=("sft", "dpo", "reward")))
def test_a_step_does_not_depend_on_how_its_batch_is_split(name: str, files: dict[str, str], base: str) -> None:
    """11 rows in batches of 8: a step of 8 rows, and one of 3 in parts of 2 and 1."""
    for accumulate in (1, 4):
        common: dict[str, Any] = {"model": base, "steps": 4, "held_out": 0, "limit": 11, "batch_size": 8}
        common |= {"log_every": 1, "learning_rate": 1e-4, "accumulate": accumulate}
        train(MODULES[name], files[name], LOSSES.get(name), output=f"by{accumulate}", **common)
    one, four = (
        [{name: line[name] for name in ("step", "loss", "grad_norm")} for line in metrics(f"by{n}")] for n in (1, 4)
    )
    assert len(one) == 4
    for line, other in zip(one, four, strict=True):
        assert other == pytest.approx(line, rel=1e-4)
    assert four[0] == pytest.approx(one[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dpo", "reward"])
def test_two_processes_measure_and_learn_as_one(name: str, files: dict[str, str], base: str) -> None:
    """9 rows are held out, no multiple of the batch; the 16 others are two whole batches."""
    common: dict[str, Any] = {"model": base, "steps": 2, "held_out": HELD_OUT, "limit": LIMIT, "log_every": 1}
    train(MODULES[name], files[name], LOSSES.get(name), output="one", batch_size=8, learning_rate=1e-4, **common)
    options = " ".join(f"--{key.replace('_', '-')}={value}" for key, value in common.items())
    options += " --loss=sigmoid+sft" if name == "dpo" else ""
    train_line(f"{name} {files[name]} -o two --batch-size=4 --learning-rate=1e-4 {options}", 2)
    one, two = metrics("one"), metrics("two")
    assert len(one) == len(two) > 4
    for line, other in zip(one, two, strict=True):
        same = {name for name in line if name.startswith("eval_") or name in ("step", "loss", "grad_norm")}
        assert {name: other[name] for name in same} == pytest.approx({name: line[name] for name in same}, rel=1e-4)


class Crash(RuntimeError):
    """Ends a run as a kill does: nothing is saved."""


class CrashingNotes(Notes):
    def step(self, state: Any) -> None:
        if state.global_step == 9:
            raise Crash


@pytest.mark.parametrize("name", cases("sft"))
def test_a_run_killed_between_two_logs_writes_the_curve_of_an_undisturbed_one(
    name: str, files: dict[str, str], base: str
) -> None:
    """Checkpoints at 4, 8, 12 and logs at 5, 10: at 8 there are three steps that no log knows."""
    common: dict[str, Any] = {"model": base, "steps": 12, "held_out": HELD_OUT, "batch_size": 4}
    common |= {"log_every": 5, "eval_every": 4, "save_every": 4, "accumulate": 2}
    train(MODULES[name], files[name], output="whole", **common)
    with pytest.raises(Crash):
        train(MODULES[name], files[name], output="killed", notes=CrashingNotes(), **common)
    notes = Notes()
    train(MODULES[name], files[name], output="killed", notes=notes, **common)
    assert "Going on from step 8" in notes.messages
    curves = [Path(folder, "run", "metrics.jsonl").read_bytes() for folder in ("whole", "killed")]
    assert curves[0] == curves[1]
