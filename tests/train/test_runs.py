"""The folder of a run: its contents, resuming, and what is never overwritten."""

import json
from pathlib import Path

import pytest

from datagen.errors import DatagenError, InputError
from datagen.records.reader import PROMPTS
from datagen_train import sft
from datagen_train.options import TrainOptions
from datagen_train.run.folder import RunFolder, drop_later_lines, is_complete, mark_complete
from datagen_train.run.session import open_session
from tests.train.runs import Notes

CONFIG = {"command": "train sft", "seed": 0}


def checkpoint(folder: RunFolder, step: int, *, complete: bool = True) -> Path:
    path = folder.checkpoints / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights" * 100)
    (path / "optimizer.pt").write_bytes(b"state" * 100)
    if complete:
        mark_complete(path)
    return path


@pytest.fixture
def folder() -> RunFolder:
    begun = RunFolder(Path("out"))
    with begun.locked(CONFIG):
        return begun


def test_the_newest_complete_checkpoint_is_found_by_number_and_not_by_name(folder: RunFolder) -> None:
    for step in (20, 100, 40):
        checkpoint(folder, step)
    assert folder.newest_checkpoint() == folder.checkpoints / "checkpoint-100"


def test_a_checkpoint_that_was_being_written_does_not_count(folder: RunFolder) -> None:
    checkpoint(folder, 20)
    checkpoint(folder, 40, complete=False)
    assert folder.newest_checkpoint() == folder.checkpoints / "checkpoint-20"


@pytest.mark.parametrize("damage", ["shorter", "gone", "no mark"])
def test_a_damaged_checkpoint_does_not_count(folder: RunFolder, damage: str) -> None:
    path = checkpoint(folder, 20)
    file = path / "optimizer.pt"
    if damage == "shorter":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "gone":
        file.unlink()
    else:
        (path / "complete.json").write_text("{")
    assert not is_complete(path)
    assert folder.newest_checkpoint() is None


def test_going_on_drops_the_metrics_that_come_again(folder: RunFolder) -> None:
    for step in (0, 10, 20, 30):
        folder.log({"step": step, "loss": 1.0})
    with folder.metrics.open("a") as file:
        file.write('{"step": 40, "lo')
    drop_later_lines(folder.metrics, 20)
    assert [line["step"] for line in folder.read_metrics()] == [0, 10, 20]
    drop_later_lines(folder.metrics, -1)
    assert folder.read_metrics() == []


def test_another_run_in_the_same_folder_is_refused_with_the_difference(folder: RunFolder) -> None:
    assert not folder.is_done({**CONFIG, "seed": 1}, overwrite=False), "it has not trained yet: nothing is lost"
    checkpoint(folder, 20)
    with pytest.raises(InputError, match="seed: 0 then, 1 now"):
        folder.is_done({**CONFIG, "seed": 1}, overwrite=False)
    assert not folder.is_done({**CONFIG, "seed": 1}, overwrite=True)
    assert not folder.config.exists()


def test_a_finished_run_is_done_and_its_checkpoints_are_gone(folder: RunFolder) -> None:
    checkpoint(folder, 20)
    assert not folder.is_done(CONFIG, overwrite=False)
    folder.finish({"result": {}})
    assert folder.is_done(CONFIG, overwrite=False)
    assert not folder.checkpoints.exists()


def test_a_folder_that_is_no_run_is_never_touched() -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds no run"):
            RunFolder(Path("mine")).is_done(CONFIG, overwrite=overwrite)
    assert Path("mine/notes.txt").read_text() == "mine"


def test_two_processes_do_not_write_one_folder() -> None:
    first, second = RunFolder(Path("out")).locked(CONFIG), RunFolder(Path("out")).locked(CONFIG)
    with first, pytest.raises(DatagenError, match="another run is writing"), second:
        pass


def test_the_config_says_what_the_run_is(folder: RunFolder) -> None:
    assert json.loads(folder.config.read_text()) == CONFIG


def test_only_the_first_process_looks_at_a_run_that_is_overwritten(
    few: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other processes may start before it has cleared the folder."""
    folder.finish({})
    monkeypatch.setenv("RANK", "1")
    options = TrainOptions(output="out", overwrite=True)
    with open_session("sft", few, PROMPTS, options, sft.Options(), sft.RATES, Notes()) as session:
        assert session is not None
    assert folder.report.exists()
