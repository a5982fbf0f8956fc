"""The commands of `train` from the command line: each reads the output of the one before; stopping and resuming."""

import json
import os
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.errors import InputError
from datagen_train import dpo, sft
from datagen_train.errors import Interrupted, TrainingStopped
from datagen_train.options import SftOptions, TrainOptions
from tests.jobs import rows, write_seeds
from tests.train.runs import Notes, metrics, train
from tests.train.tasks import problems, write_preferences, write_sft

KIBIBYTE = 1024


def datagen(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="datagen", catch_exceptions=False)


def succeeds(*arguments: str) -> str:
    ran = datagen(*arguments)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_from_seeds_to_a_model_that_teaches_the_next_round() -> None:
    """evolve, sft, eval, evolve again with the model as teacher; each reads the output of the one before."""
    seeds = str(write_seeds(12))
    succeeds("evolve", seeds, "-o", "rows.jsonl", "--model", "sim", "--rounds", "1", "-q")
    row_count = len(rows("rows.jsonl"))
    stdout = succeeds("train", "sft", "rows.jsonl", "-o", "model", "--steps", "6", "--held-out", "0.4", "--json", "-q")
    report = json.loads(stdout)["result"]
    assert report["rows"]["read"] == row_count
    assert report["end"]["eval_loss"] < report["start"]["eval_loss"]
    measured = json.loads(succeeds("train", "eval", "model", "rows.jsonl", "--max-tokens", "4", "--limit", "3"))
    assert measured["rows"] == measured["answered"] == 3
    again = ["evolve", seeds, "-o", "again.jsonl", "--model", "sim", "--teacher", "hf:model", "--rounds", "1", "-q"]
    datagen(*again, "--max-tokens", "8", "--max-failed", "100")
    result = json.loads(Path("again.meta.json").read_text())["result"]
    assert result["fingerprint"]["teacher"][0].startswith("hf:model/")
    funnel = result["funnel"]
    assert funnel["asked"] == funnel["kept"] + sum(funnel["rejected"].values()) + sum(funnel["failed"].values()) == 12
    check = json.loads(
        succeeds("train", "check", "again.jsonl" if funnel["kept"] else "rows.jsonl", "--model", "model")
    )
    assert set(check["checks"]) >= {"end", "trained"}
    assert "`sim` is a procedural teacher" in Path("model/README.md").read_text(), "the card says who taught it"


def test_the_same_command_twice_trains_once(few: str) -> None:
    command = ["train", "sft", few, "-o", "out", "--steps", "2"]
    succeeds(*command, "-q")
    before = Path("out/model.safetensors").stat().st_mtime_ns
    assert "Nothing to do" in datagen(*command).stderr
    assert Path("out/model.safetensors").stat().st_mtime_ns == before
    other = datagen(*command, "--seed", "1")
    assert other.exit_code == 2
    assert "seed: 0 then, 1 now" in other.stderr


def test_a_failed_check_is_one_line_and_exit_code_2_and_leaves_the_folder_free() -> None:
    Path("cut.jsonl").write_text("".join(json.dumps({"prompt": "Q", "response": p}) + "\n" for p, _ in problems(0)[:9]))
    ran = datagen("train", "sft", "cut.jsonl", "-o", "out", "--max-length", "24", "--held-out", "0", "-q")
    assert ran.exit_code == 2
    assert ran.stderr.splitlines() == ["error: length: 9 of 9 sequences are cut; raise --max-length"]
    succeeds("train", "sft", "cut.jsonl", "-o", "out", "--steps", "1", "--held-out", "0", "-q")


class InterruptingNotes(Notes):
    """A terminal that sends a signal at a given step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__()
        self._step, self._number = step, number

    def show(self, state: Any, numbers: dict[str, Any]) -> None:
        super().show(state, numbers)
        if state.global_step == self._step:
            os.kill(os.getpid(), self._number)


@pytest.mark.parametrize(("trainer", "number"), [("sft", signal.SIGINT), ("dpo", signal.SIGTERM)])
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_end(
    trainer: str, number: signal.Signals, base: str, few: str
) -> None:
    write_preferences(Path("prefs.jsonl"), problems(1)[:100])
    module, data = {"sft": (sft, few), "dpo": (dpo, "prefs.jsonl")}[trainer]
    options: dict[str, Any] = {"model": base, "steps": 8, "eval_every": 4, "log_every": 1, "batch_size": 8}
    train(module, data, output="whole", **options)
    with pytest.raises(Interrupted, match="Interrupted at step 3; the same command goes on") as stopped:
        train(module, data, notes=InterruptingNotes(2, number), output="stopped", **options)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    notes = Notes()
    train(module, data, notes=notes, output="stopped", **options)
    assert "Going on from step 3" in notes.messages
    assert metrics("stopped") == metrics("whole")
    assert Path("stopped/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_new_adapters_depend_on_the_seed_alone(base: str, few: str) -> None:
    options: dict[str, Any] = {"model": base, "lora": True, "steps": 2, "held_out": 0.0}
    for state, (output, seed) in enumerate([("first", 3), ("second", 3), ("other", 4)]):
        torch.manual_seed(state)  # what ran before in this process
        train(sft, few, output=output, seed=seed, **options)
    first, second, other = (
        Path(name, "adapter_model.safetensors").read_bytes() for name in ("first", "second", "other")
    )
    assert first == second != other


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_not_finite_is_refused_before_anything_is_loaded(value: str, few: str) -> None:
    ran = datagen("train", "sft", few, "--learning-rate", value)
    assert ran.exit_code == 2
    assert ran.stderr.splitlines() == [f"error: --learning-rate {value}: expected a finite number"]


@contextmanager
def room_for_files(size: int) -> Iterator[None]:
    """Limit the size of files, which a program sees as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kibibytes", [900, 300, 4], ids=["optimiser", "weights", "tokenizer"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(kibibytes: int, few: str) -> None:
    options: dict[str, Any] = {"output": "out", "steps": 4, "eval_every": 2, "held_out": 0.1}
    with room_for_files(kibibytes * KIBIBYTE), pytest.raises(TrainingStopped, match=r"the disk is full: .*Free some"):
        train(sft, few, **options)
    assert train(sft, few, **options)["steps"] == 4


def test_the_options_of_a_trainer_are_refused_in_one_line_where_they_do_not_fit(few: str) -> None:
    wrong = {
        ("--lora",): "--lora adapts a trained model",
        ("--model", "nowhere"): "model nowhere",
        ("--best", "luck"): "--best luck: expected one of loss",
        ("--schedule", "steps"): "--schedule steps: expected one of cosine",
        ("--report-to", "nobody"): "--report-to nobody: expected one of these, which are installed: none",
        ("--dtype", "int3"): "--dtype int3",
        ("--format", "odd"): "--format odd",
    }
    for options, says in wrong.items():
        ran = datagen("train", "sft", few, "-o", "out", *options, "-q")
        assert (ran.exit_code, len(ran.stderr.splitlines())) == (2, 1)
        assert says in ran.stderr


def test_check_reads_no_more_than_the_first_rows(few: str) -> None:
    assert json.loads(succeeds("train", "check", few, "--limit", "3", "--rows", "0"))["rows"]["read"] == 3


def test_chat_ends_well_at_the_end_of_its_input(base: str) -> None:
    assert CliRunner().invoke(app, ["train", "chat", base], input="").exit_code == 0


def test_merge_prints_no_note_of_a_library(adapter: Path) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        succeeds("train", "merge", str(adapter), "-o", "merged")
    assert [warning for warning in shown if warning.category is FutureWarning] == []


def test_more_processes_than_were_asked_for_are_refused(few: str) -> None:
    with pytest.raises(InputError, match="--nproc 2: 1 processes run"):
        sft.run(few, TrainOptions(output="out", steps=1, nproc=2), SftOptions(), Notes())


def test_pairs_for_sft_and_prompts_for_dpo_are_sent_where_they_belong(few: str, base: str) -> None:
    write_preferences(Path("prefs.jsonl"), problems(1)[:10])
    write_sft(Path("sums.jsonl"), problems(1)[:10])
    for trainer, data, names in (("sft", "prefs.jsonl", "datagen train dpo"), ("dpo", "sums.jsonl", "chosen")):
        ran = datagen("train", trainer, data, "-o", f"out-{trainer}", "--model", base)
        assert ran.exit_code == 2
        assert names in ran.stderr
