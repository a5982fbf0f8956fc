"""A sweep: which trials it has, that they are compared fairly, that it goes on after a stop, and what it refuses."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.errors import InputError
from datagen_train.tools.search import Axis, combinations, folder_name, parse_axes
from tests.every_command import ENV
from tests.train.tasks import problems, with_small_numbers, write_sft

KNOWN = ("learning_rate", "batch_size", "epochs", "lora_targets")
VALUES = st.lists(st.integers(0, 99).map(str), min_size=1, max_size=4, unique=True)


def axes(*texts: str) -> list[Axis]:
    return parse_axes(texts, KNOWN)


def call(line: str) -> Result:
    return CliRunner().invoke(app, ["train", *shlex.split(line)], prog_name="datagen", catch_exceptions=False)


def test_values_are_lists_or_ranges() -> None:
    assert axes("--batch_size=8, 16,16.0,") == [Axis("batch_size", ("8", "16"))]
    assert axes("epochs=1..3") == [Axis("epochs", ("1", "2", "3"))]
    assert axes("learning-rate=1e-5..1e-3") == [Axis("learning_rate", (), 1e-5, 1e-3)]
    assert axes("lora-targets=q_proj,v_proj;all-linear") == [Axis("lora_targets", ("q_proj,v_proj", "all-linear"))]


@given(VALUES, VALUES, st.integers(1, 30), st.integers(0, 3))
def test_a_grid_has_every_combination_once_and_more_draws_keep_those_of_fewer(
    first: list[str], second: list[str], draws: int, seed: int
) -> None:
    grid = [Axis("batch_size", tuple(first)), Axis("epochs", tuple(second))]
    every = combinations(grid, None, seed)
    assert [(trial["batch_size"], trial["epochs"]) for trial in every] == [(a, b) for a in first for b in second]
    drawn = combinations(grid, draws, seed)
    assert len(drawn) == min(draws, len(every)) and all(drawn.count(trial) == 1 and trial in every for trial in drawn)
    if draws + 1 < len(every):
        assert drawn == combinations(grid, draws + 1, seed)[:draws]


@given(st.integers(0, 9))
def test_numbers_between_bounds_are_drawn_by_their_logarithm(seed: int) -> None:
    drawn = [float(trial["learning_rate"]) for trial in combinations(axes("learning-rate=1e-6..1e-2"), 60, seed)]
    assert len(set(drawn)) == 60 and all(0.99e-6 <= rate <= 1.01e-2 for rate in drawn)
    assert 15 < sum(rate < 1e-4 for rate in drawn) < 45, "half of them are in the lower half of the powers of ten"


@given(st.dictionaries(st.sampled_from(KNOWN), st.text(min_size=1, max_size=200), min_size=1))
def test_the_folder_of_a_trial_is_a_name_of_a_file(settings: dict[str, str]) -> None:
    name = folder_name(settings)
    assert len(name.encode()) <= 255 and not set(name) & set("/\\\0\n ") and name not in (".", "..")
    assert name != folder_name({**settings, "epochs": settings.get("epochs", "") + "/"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sft rows.jsonl", "--over: name an option and the values to try"),
        ("sft rows.jsonl --over learning-rate", "expected an option and its values"),
        ("sft rows.jsonl --over learn-rate=1", "the trainer has no such option. Did you mean learning-rate?"),
        ("sft rows.jsonl --over epochs=1 --over epochs=2", "--over epochs: is named twice"),
        ("sft rows.jsonl --over epochs=3..1", "the first number must be less than the second"),
        ("sft rows.jsonl --over learning-rate=1e-5..1e-3", "add --random N, which draws from between"),
        ("sft rows.jsonl --over seed=1..40 --over batch-size=1..40", "1600 combinations; draw some"),
        ("sft rows.jsonl --over batch-size=8,0", "--batch-size 0: at least 1"),
        ("sft rows.jsonl --over batch-size=8,many", "--batch-size many: expected a whole number"),
        ("sft rows.jsonl --over schedule=linear,steep", "--schedule steep: expected one of cosine"),
        ("sft rows.jsonl --over packing=true,maybe", "--over packing=maybe: expected true, false or both"),
        ("sft rows.jsonl --over held-out=0.1,0.2", "trials are compared on the same rows"),
        ("sft rows.jsonl --over model=a,b", "it changes what the loss of held-out rows means"),
        ("sft rows.jsonl --over epochs=1,2 --epochs 3", "--epochs: is swept"),
        ("sft rows.jsonl --over epochs=1,2 --held-out 0", "a sweep compares trials on held-out rows"),
        ("sft nowhere.jsonl --over epochs=1,2", "nowhere.jsonl: no such file"),
        ("sft - --over epochs=1,2", "name a file, not standard input"),
        ("dpo rows.jsonl --over beta=0.1,0.2", "DPO starts from a trained model"),
        ("sft rows.jsonl --over epochs=1,2 -o full", "full: exists and holds no sweep of datagen"),
    ],
)
def test_a_wrong_sweep_is_one_line_before_the_first_trial(line: str, says: str) -> None:
    write_sft(Path("rows.jsonl"), problems(0)[:20])
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    ran = call(f"sweep {line}")
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    assert says in ran.stderr
    assert sorted(map(str, Path().rglob("*"))) == ["full", "full/mine.txt", "rows.jsonl"]


def test_a_launcher_starts_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    write_sft(Path("rows.jsonl"), problems(0)[:20])
    monkeypatch.setenv("LOCAL_RANK", "0")
    ran = call("sweep sft rows.jsonl --over epochs=1,2")
    assert ran.exit_code == 2 and "say --nproc, without a launcher" in ran.stderr


@pytest.mark.parametrize("line", ["sweep", "sweep ppo"])
def test_help_ends_with_an_example_and_the_page(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    example, _, page = call(f"{line} --help").stdout.strip().splitlines()[-3:]
    assert example.strip().startswith("Example: datagen train sweep ") and page.strip() == "More: docs/sweep.md"


def test_too_many_combinations_are_refused_before_they_are_listed() -> None:
    with pytest.raises(InputError, match="combinations"):
        combinations([Axis(name, tuple(map(str, range(900)))) for name in KNOWN], None, 0)


@pytest.mark.parametrize(
    "damage", [{"trials": 3}, {"sweep": 3}, {"trials": [{}]}, {"trials": [{"settings": {}, "outcome": "won"}]}]
)
def test_damaged_results_are_one_line(damage: dict[str, object]) -> None:
    write_sft(Path("rows.jsonl"), problems(0)[:20])
    Path("sweep").mkdir()
    Path("sweep/results.json").write_text(json.dumps({"sweep": {}, "trials": []} | damage))
    ran = call("sweep sft rows.jsonl --over epochs=1,2 -o sweep")
    assert ran.exit_code == 2 and "sweep/results.json: damaged, or not written by datagen" in ran.stderr


SWEEP = "sweep sft rows.jsonl --steps 40 --eval-every 8 --over learning-rate=1e-6,6e-3 -o sweep"


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_and_finds_the_sane_learning_rate() -> None:
    write_sft(Path("rows.jsonl"), with_small_numbers(problems(0))[:400])
    first, second = Path("sweep/learning-rate=1e-6"), Path("sweep/learning-rate=6e-3")

    # 1. Stop it in the second trial, once that has a checkpoint.
    ran = subprocess.Popen(
        [sys.executable, "-m", "datagen", "train", *SWEEP.split()], env=ENV, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 400
    while not list(second.glob("checkpoints/*/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    ran.terminate()
    _, stderr = ran.communicate(timeout=200)
    assert ran.returncode == 130, stderr
    assert "Interrupted in trial 2 of 2" in stderr
    report = first.joinpath("run/report.json").read_bytes()
    assert not second.joinpath("run/report.json").exists()

    # 2. The same command goes on: the first trial is not run again, the second one continues.
    ended = call(f"{SWEEP} --json")
    assert ended.exit_code == 0, ended.stderr
    assert first.joinpath("run/report.json").read_bytes() == report
    assert "Nothing to do" not in Path(f"sweep/logs/{first.name}.txt").read_text(), "not even its libraries are loaded"
    assert "Going on from step" in Path(f"sweep/logs/{second.name}.txt").read_text()
    results = json.loads(ended.stdout)
    assert [trial["folder"] for trial in results["trials"]] == [str(second), str(first)]
    assert results["best"] == str(second) and results["metric"] == "eval_loss"
    assert results["trials"][0]["value"] < 0.5 * results["trials"][1]["value"]
    held_out = [json.loads((path / "run/report.json").read_text())["result"]["rows"] for path in (first, second)]
    assert held_out[0] == held_out[1], "the same rows in each trial"
    assert json.loads(Path("sweep/results.json").read_text()) == results
    assert re.search(r"\| \*\*best\*\* \| 6e-3 \| 0\.\d+ \|", Path("sweep/results.md").read_text())

    # 3. The printed command is that of the best trial: it finds it finished.
    again = CliRunner().invoke(app, shlex.split(results["trials"][0]["command"])[1:], prog_name="datagen")
    assert again.exit_code == 0 and "Nothing to do" in again.stderr

    # 4. Another sweep in the same folder is refused; other values of the same option join the table.
    other = call(SWEEP.replace("--steps 40", "--steps 41"))
    assert other.exit_code == 2 and "steps: 40 then, 41 now" in other.stderr
    Path("other.jsonl").write_text(Path("rows.jsonl").read_text() + "\n")
    other = call(SWEEP.replace("rows.jsonl", "other.jsonl"))
    assert other.exit_code == 2 and "data: other contents" in other.stderr


@pytest.mark.slow
def test_a_failed_trial_is_shown_with_its_reason_and_does_not_end_the_sweep() -> None:
    write_sft(Path("rows.jsonl"), with_small_numbers(problems(0))[:200])
    ran = call("sweep sft rows.jsonl --steps 20 --over 'train-layers=qqq|zzz;.*' -o sweep")
    assert ran.exit_code == 0, ran.stderr
    assert "trial 1 of 2: train-layers=qqq|zzz: failed: --train-layers qqq|zzz" in ran.stderr
    assert "trial 2 of 2: train-layers=.*: loss " in ran.stderr
    assert r"failed: --train-layers qqq\|zzz" in Path("sweep/results.md").read_text()

    # Without a trial that learned something the sweep is no success.
    ran = call("sweep sft rows.jsonl --steps 20 --over train-layers=zzz -o none")
    assert ran.exit_code == 3
    assert "error: every trial failed; the table says why: none/results.md" in ran.stderr
