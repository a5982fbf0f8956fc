"""Ablations: the interval, the steps of both arms, equal tokens, what is found, and that a stop changes nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import DatagenError, InputError
from datagen.llm.spec import with_tag
from datagen.recipes.ablation.arms import Study, lay_out, load_arms, parse_switch
from datagen.recipes.ablation.command import Options, run
from datagen.recipes.ablation.paired import difference, t_point
from datagen.recipes.ablation.table import Arm, check_tokens
from tests.jobs import write_seeds

DATA = """
inputs: {seeds: seeds.jsonl}
models: {model: "sim:noop=0.3"}
steps:
  evolved: {run: evolve, input: "${seeds}", rounds: 2}
results:
  kept: {file: evolved.meta.json, value: result.funnel.kept}
"""
TRAINED = """
inputs: {seeds: seeds.jsonl}
models: {model: "sim:refuse=0.8"}
settings: {tokens: 3000}
steps:
  test: {run: evolve, input: "${seeds}", model: sim, rounds: 2, seed: 0}
  base: {run: train sft, data: test.jsonl, model: tiny, steps: 1, held-out: 0, seed: 0}
  evolved: {run: evolve, input: "${seeds}", rounds: 2}
  sft: {run: train sft, data: evolved.jsonl, model: base, tokens: "${tokens}", batch-size: 16, eval-data: test.jsonl,
    eval-every: 1000, best: last, accept: 3}
  eval: {run: train eval, model: hf:sft, data: test.jsonl, generate: 0, all: true}
results:
  loss: {file: sft/run/report.json, value: result.end.eval_loss}
  kept: {file: evolved.meta.json, value: result.funnel.kept}
  test rows: {file: test.meta.json, value: result.funnel.kept}
"""
EVAL = "  eval: {run: train eval, model: hf:sft, data: test.jsonl, generate: 0, all: true}\n"
T_POINTS = {1: 12.706204736, 2: 4.302652730, 4: 2.776445105, 9: 2.262157163, 30: 2.042272456, 99: 1.984216952}
"""scipy.stats.t.ppf(0.975, degrees of freedom)."""


def write_recipe(text: str = DATA) -> str:
    write_seeds(12)
    Path("try.yaml").write_text(text)
    return "try.yaml"


def study(switch: str, seeds: int = 2, text: str = TRAINED, **changes: Any) -> Study:
    path = Path(write_recipe(text))
    return lay_out(load_arms(path, changes, parse_switch(switch), Path("out")), seeds)


def report(folder: str = "out") -> dict[str, Any]:
    return dict(json.loads(Path(folder, "ablation.json").read_text()))


# The interval


@pytest.mark.parametrize(("freedom", "point"), T_POINTS.items())
def test_the_points_of_student_t(freedom: int, point: float) -> None:
    assert t_point(freedom) == pytest.approx(point, rel=1e-8)


def test_the_interval_is_that_of_paired_differences() -> None:
    # scipy.stats.ttest_rel([1.1, 1.3, 1.2, 1.25, 1.15], [1, 1, 1, 1, 1]).confidence_interval(0.95)
    gap = difference([1.1, 1.3, 1.2, 1.25, 1.15], [1.0] * 5)
    assert [gap.mean, gap.deviation] == pytest.approx([0.2, 0.0790569415])
    assert [gap.low, gap.high] == pytest.approx([0.10183784192612, 0.29816215807387])
    assert gap.is_shown and gap.needed == 3  # t(2) s / sqrt(3) = 0.196


def test_an_interval_with_0_says_how_many_seeds_would_show_the_difference() -> None:
    gap = difference([0.3, -0.1, 0.1], [0.0, 0.0, 0.0])
    assert not gap.is_shown and gap.low < 0 < gap.high
    assert gap.needed == 18  # t(17) 0.2 / sqrt(18) = 0.0995, t(16) 0.2 / sqrt(17) = 0.1028
    assert difference([1.0, 1.0], [1.0, 1.0]).needed is None


# The steps of both arms


def test_what_does_not_depend_on_the_switch_or_the_seed_is_there_once() -> None:
    names = [step.name for step in study("sft.reasoning=train,drop").recipe.steps]
    first = ["test", "base", "evolved-0", "sft-a-0", "sft-b-0", "eval-a-0", "eval-b-0"]
    assert names == [*first, "evolved-1", "sft-a-1", "sft-b-1", "eval-a-1", "eval-b-1"]
    switched = [step.name for step in study("evolved.rule=all,none").recipe.steps]
    assert switched[2:4] == ["evolved-a-0", "evolved-b-0"]


def test_each_copy_reads_what_its_own_arm_and_seed_have_written() -> None:
    laid_out = study("evolved.rule=all,[leaked, apology]")
    steps = {step.name: step for step in laid_out.recipe.steps}
    assert steps["evolved-a-1"].values["rule"] == "all" and steps["evolved-b-1"].values["rule"] == ["leaked", "apology"]
    assert steps["sft-b-1"].values["data"] == "evolved-b-1.jsonl" and steps["sft-b-1"].output == "sft-b-1"
    assert steps["eval-b-1"].values["model"] == "hf:sft-b-1" and steps["eval-b-1"].output == "eval-b-1.json"
    assert steps["sft-b-1"].values["eval_data"] == "test.jsonl"


def test_the_seed_reaches_the_draws_the_answers_and_the_training_but_not_what_names_its_own() -> None:
    laid_out = study("evolved.rule=all,none")
    steps = {step.name: step for step in laid_out.recipe.steps}
    assert laid_out.vary == ("evolved", "sft")
    assert [steps[f"sft-a-{seed}"].values["seed"] for seed in (0, 1)] == [0, 1]
    assert steps["evolved-a-1"].values["model"] == steps["evolved-b-1"].values["model"] == ["sim:refuse=0.8#1"]
    assert steps["test"].values["seed"] == 0 and steps["test"].values["model"] == ["sim"]


@pytest.mark.parametrize(
    ("spec", "tagged"),
    [
        ("sim", "sim:#3"), ("sim:skill=0.5", "sim:skill=0.5#3"), ("gpt-4o-mini", "gpt-4o-mini#3"),
        ("qwen3:8b@http://127.0.0.1:1/v1", "qwen3:8b#3@http://127.0.0.1:1/v1"), ("m#x@host:80/v1", "m#x-3@http://host:80/v1"),
        ("hf:sft", "hf:sft"), ("replay:r.jsonl", "replay:r.jsonl"),
    ],
)  # fmt: skip
def test_a_tag_asks_the_same_model_anew(spec: str, tagged: str) -> None:
    assert with_tag(spec, "3") == tagged


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("evolvd.rule=all,none", "evolvd.rule: step evolvd: expected one of test, base, evolved"),
        ("evolved.rul=all,none", "`evolve` takes no `rul`; did you mean `rule`?"),
        ("evolved.rounds=2,many", "--rounds many: expected a whole number"),
        ("token=10,20", "token: expected one of seeds, model, tokens. Did you mean tokens?"),
        ("evolved.rule=all", "with two values"),
        ("evolved.rule=all,all", "with two values"),
        ("evolved.rule", "with two values"),
        ("sft.tokens=100,200", "step sft: both arms must train equally long: --set sft.tokens=NUMBER"),
    ],
)
def test_a_bad_switch_is_one_line_with_what_is_near(switch: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        study(switch)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "--set evolv" not in str(caught.value)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (None, "name one of the results of the recipe: loss, kept, test rows"),
        ("los", "--measure los: expected one of loss, kept, test rows. Did you mean loss?"),
        ("test rows", "test.meta.json does not depend on the switch"),
    ],
)
def test_a_measure_is_a_result_that_the_switch_can_change(measure: str | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        run(write_recipe(TRAINED), Options(switch="evolved.rule=all,none", measure=measure))
    assert message in str(caught.value)


def test_arms_that_trained_on_other_numbers_of_tokens_are_not_compared() -> None:
    arms = [Arm("x", [1.0, 1.0], [9, 9], [1000, tokens], 0, 0.0) for tokens in (1000, 985)]
    with pytest.raises(DatagenError, match="the arms trained on 1,000 and 985 tokens"):
        check_tokens(arms)
    check_tokens([arms[0], Arm("y", [1.0, 1.0], [9, 9], [995, 1000], 0, 0.0)])


# What is found


@pytest.mark.slow
def test_a_fault_that_costs_rows_is_found_and_what_only_looks_different_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe()
    harm = Options(switch="model=sim,sim:noop=0.8", seeds=3, output="out", quiet=True)
    assert run(recipe, harm) == 0
    assert "model=sim helps:" in report()["verdict"] and report()["difference"]["low"] > 0
    assert report()["verdict"] in capsys.readouterr().out
    assert [len(arm["values"]) for arm in report()["arms"]] == [3, 3]

    nothing = Options(switch="model=sim:noop=0.3#r,sim:noop=0.3#s", seeds=3, output="same", quiet=True)
    assert run(recipe, nothing) == 0
    gap = report("same")["difference"]
    assert gap["low"] < 0 < gap["high"] and gap["deviation"] > 0
    assert report("same")["verdict"].startswith("No difference shown: the interval includes 0")


@pytest.mark.slow
def test_a_killed_ablation_goes_on_and_ends_with_the_same_table() -> None:
    words = ["ablate", write_recipe(), "--switch", "evolved.rule=all,none", "--seeds", "2"]
    command = [sys.executable, "-m", "datagen", *words]
    whole = subprocess.run([*command, "-o", "whole"], capture_output=True, text=True, check=True)
    with subprocess.Popen([*command, "-o", "killed"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        next(line for line in process.stderr if line.startswith("step 3/"))
        process.send_signal(signal.SIGKILL)
    time.sleep(0.5)  # the step hears of it by its standard input
    again = subprocess.run([*command, "-o", "killed"], capture_output=True, text=True, check=True)
    assert "step 1/4 evolved-a-0: done before" in again.stderr
    assert again.stdout == whole.stdout
    for name in ("ablation.json", "ablation.md"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes()


def test_a_request_that_both_arms_make_is_sent_once() -> None:
    assert run(write_recipe(), Options(switch="evolved.rule=all,none", seeds=2, output="out")) == 0
    sent = {
        arm: json.loads(Path(f"out/evolved-{arm}-0.meta.json").read_text())["run"]["requests"] for arm in ("a", "b")
    }
    used = json.loads(Path("out/evolved-b-0.meta.json").read_text())["result"]["usage"]["calls"]
    assert sent["b"] < used


def test_one_budget_covers_both_arms_and_all_seeds() -> None:
    capped = Options(switch="evolved.rule=all,none", seeds=2, output="out", max_calls=100, quiet=True)
    assert run(write_recipe(), capped) == 4
    assert not Path("out/ablation.json").exists()


@pytest.mark.slow
def test_both_arms_train_on_as_many_tokens_and_the_harmful_one_is_worse() -> None:
    recipe = write_recipe(TRAINED.replace(EVAL, ""))
    assert run(recipe, Options(switch="evolved.rule=all,none", seeds=2, measure="loss", output="out", quiet=True)) == 0
    kept, all_rows = report()["arms"]
    assert all(2900 < tokens <= 3000 for arm in (kept, all_rows) for tokens in arm["tokens"])
    assert all(few < many for few, many in zip(kept["rows"], all_rows["rows"], strict=True))
    assert report()["less_is_better"] and report()["difference"]["mean"] < 0
