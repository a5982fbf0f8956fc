"""The folder of a run: its contents, resuming, and what is never overwritten."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from datagen.errors import DatagenError, InputError
from datagen.llm.local.weights import weights_digest
from datagen.records.files import write_json
from datagen.records.reader import PROMPTS
from datagen_train import sft
from datagen_train.errors import Finished
from datagen_train.options import SftOptions, TrainOptions
from datagen_train.run.folder import RunFolder, drop_later_lines, is_complete, mark_complete
from datagen_train.run.session import open_session
from tests.train.runs import Notes, train

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
    with begun.locked():
        begun.begin(CONFIG)
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
    assert not folder.is_done({**CONFIG, "seed": 1}), "it has not trained yet: nothing is lost"
    checkpoint(folder, 20)
    with pytest.raises(InputError, match="seed: 0 then, 1 now"):
        folder.is_done({**CONFIG, "seed": 1})
    folder.clear()
    assert not folder.is_done({**CONFIG, "seed": 1})


def test_a_finished_run_is_done_and_its_checkpoints_are_gone(folder: RunFolder) -> None:
    checkpoint(folder, 20)
    assert not folder.is_done(CONFIG)
    folder.saving.mkdir()
    folder.finish({"result": {}})
    assert folder.is_done(CONFIG)
    assert not folder.checkpoints.exists()


@pytest.mark.parametrize("name", ["mine/notes.txt", "mine/run/notes.txt", "mine/config.json"])
def test_a_folder_that_is_no_run_is_never_touched(name: str, few: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(name).parent.mkdir(parents=True)
    Path(name).write_text("mine")
    for overwrite in (False, True):
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            with pytest.raises(InputError, match="holds no run"):
                train(sft, few, output="mine", overwrite=overwrite)
    assert [path for path in Path("mine").rglob("*") if path.is_file()] == [Path(name)]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"lr": 1}', '{"command": 1}', "[" * 100_000], ids=len)
def test_a_config_of_another_tool_makes_no_run(content: str, few: str) -> None:
    Path("out/run").mkdir(parents=True)
    Path("out/run/config.json").write_text(content)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"out/run/config\.json: "):
            train(sft, few, output="out", overwrite=overwrite)
    assert Path("out/run/config.json").read_text() == content


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(few: str) -> None:
    train(sft, few, output="out", steps=2)
    first = {path for path in Path("out").rglob("*") if path.is_file()}
    assert not Path("out/checkpoints").exists()
    notes = [Path("out", name) for name in ("notes.txt", "run/notes.txt", "checkpoints/notes.txt", "data/rows.jsonl")]
    for path in notes:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    with pytest.raises(InputError, match="seed: 0 then, 1 now"):
        train(sft, few, output="out", steps=2, seed=1)
    train(sft, few, output="out", steps=2, seed=1, overwrite=True)
    assert [path.read_text() for path in notes] == ["mine"] * len(notes)
    assert {path for path in Path("out").rglob("*") if path.is_file()} == first | set(notes)


def test_a_list_of_files_that_leads_out_of_the_folder_removes_nothing_there(folder: RunFolder) -> None:
    outside = [Path("mine.txt"), Path("elsewhere/mine.txt")]
    for path in outside:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    Path("out/link").symlink_to("../elsewhere")
    names = ["../mine.txt", "run/../../mine.txt", str(Path("mine.txt").resolve()), "link/mine.txt", 5, None, "", ".."]
    write_json(folder.files.path, {"files": names})
    folder.clear()
    assert [path.read_text() for path in outside] == ["mine", "mine"]


def test_a_file_of_somebody_else_is_not_replaced_by_the_model(folder: RunFolder) -> None:
    folder.saving.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder.saving / name).write_text("ours")
    Path("out/model.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"out/model\.safetensors: is not of this run"):
        folder.finish({})
    assert Path("out/model.safetensors").read_text() == "mine"
    assert not Path("out/config.json").exists() and not folder.report.exists()
    Path("out/model.safetensors").unlink()
    folder.finish({})
    assert Path("out/model.safetensors").read_text() == "ours"
    Path("out/README.md").write_text("mine")
    with pytest.raises(InputError, match=r"out/README\.md: is not of this run"):
        folder.begin(CONFIG)


def test_a_symlink_to_a_folder_stays_one(few: str) -> None:
    Path("store").mkdir()
    Path("out").symlink_to("store/model")
    for overwrite in (False, True):
        train(sft, few, output="out", steps=1, overwrite=overwrite)
        assert Path("out").is_symlink() and Path("store/model/model.safetensors").exists()


@pytest.mark.parametrize("output", ["few.jsonl", "base", "work", "link"])
def test_what_is_read_is_never_the_output(output: str, few: str, base: str) -> None:
    copytree(base, "base")
    Path("work").mkdir()
    Path("few.jsonl").rename("work/few.jsonl")
    Path("few.jsonl").symlink_to("work/few.jsonl")
    Path("link").symlink_to("base")
    with pytest.raises(InputError, match="is read by this command"):
        train(sft, few, output=output, model="base", overwrite=True)
    assert weights_digest(Path("base")) == weights_digest(Path(base))


@pytest.mark.parametrize("name", ["linear", "tiny", "train"])
def test_a_folder_may_have_the_name_of_a_value(name: str, few: str) -> None:
    """One of a set, such as that of --schedule, or a default."""
    train(sft, few, output=name, schedule="linear", steps=1)
    with pytest.raises(Finished):
        train(sft, few, output=name, schedule="linear", steps=1)


def test_two_processes_do_not_write_one_folder(few: str) -> None:
    """A run that is to overwrite another one leaves it alone while it lasts."""
    first = RunFolder(Path("out"))
    with first.locked():
        first.begin(CONFIG)
        checkpoint(first, 20)
        before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
        for overwrite in (False, True):
            with pytest.raises(DatagenError, match="out: another run is writing it"):
                train(sft, few, output="out", overwrite=overwrite)
        assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before


def test_a_run_that_is_killed_at_its_start_leaves_a_folder_that_can_be_used(few: str) -> None:
    Path("out/run").mkdir(parents=True)
    Path("out/run/lock").touch()
    Path("out/run/.0123456789abcdef.part").write_text("{")
    train(sft, few, output="out", steps=1)


def test_damaged_metrics_lose_the_damaged_lines(folder: RunFolder) -> None:
    damage = [b"", b"{", b"[1]", b'{"loss": 1}', b'{"step": "a"}', b'{"step": 1, "loss": "x"}', b"\xff", b"[" * 100_000]
    folder.log({"step": 0, "loss": 1.0})
    with folder.metrics.open("ab") as file:
        file.write(b"\n".join(damage) + b"\n")
    folder.log({"step": 10, "loss": 1.0})
    assert [line["step"] for line in folder.read_metrics()] == [0, 10]
    drop_later_lines(folder.metrics, 5)
    assert [line["step"] for line in folder.read_metrics()] == [0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x00" * 50])
def test_a_checkpoint_whose_state_cannot_be_read_does_not_count(folder: RunFolder, content: bytes) -> None:
    path = checkpoint(folder, 20, complete=False)
    (path / "trainer_state.json").write_bytes(content)
    mark_complete(path)
    assert folder.newest_checkpoint() is None


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_report_is_one_line(folder: RunFolder, content: str) -> None:
    folder.report.write_text(content)
    with pytest.raises(InputError, match=r"out/run/report\.json: damaged"):
        folder.read_report()


def test_data_that_change_between_their_digest_and_training_end_the_run(few: str) -> None:
    options = TrainOptions(output="out")
    with open_session("sft", few, PROMPTS, options, SftOptions(), sft.RATES, Notes()) as session:
        Path(few).write_text('{"prompt": "1 + 1", "response": "2"}\n')
        with pytest.raises(InputError, match="changed while it was read"):
            session.read()


def test_the_config_says_what_the_run_is(folder: RunFolder) -> None:
    assert json.loads(folder.config.read_text()) == CONFIG


def test_only_the_first_process_looks_at_a_run_that_is_overwritten(
    few: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other processes may start before it has cleared the folder."""
    folder.saving.mkdir()
    folder.finish({})
    monkeypatch.setenv("RANK", "1")
    options = TrainOptions(output="out", overwrite=True)
    with open_session("sft", few, PROMPTS, options, SftOptions(), sft.RATES, Notes()) as session:
        assert session is not None
    assert folder.report.exists()


class Killed(BaseException):
    """In place of a signal, at a moment that no signal would find."""


@pytest.mark.parametrize("options", [{"steps": 3}, {"steps": 9, "patience": 1, "learning_rate": 1e-9}])
def test_a_run_killed_after_its_last_step_takes_no_other(
    options: dict[str, Any], few: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options |= {
        "eval_every": 1,
        "save_every": 1,
        "log_every": 1,
        "held_out": 0.2,
        "limit": 40,
        "schedule": "constant_with_warmup",
    }
    whole = train(sft, few, output="whole", **options)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", killed)
        with pytest.raises(Killed):
            train(sft, few, output="killed", **options)
    assert train(sft, few, output="killed", **options) == whole
    one, other = (RunFolder(Path(name)) for name in ("whole", "killed"))
    assert one.metrics.read_bytes() == other.metrics.read_bytes()
    assert (one.path / "model.safetensors").read_bytes() == (other.path / "model.safetensors").read_bytes()
