"""How a command ends: the next lines, the exit codes, the default model, and who owns an output."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from datagen import installation
from datagen.commands.next_steps import after_training
from datagen.errors import InputError
from datagen.installation import install_line
from datagen.llm.default import default_models
from datagen.records.files import dump_line
from datagen.records.layout import pack_meta
from tests.jobs import rows, write_seeds
from tests.server import Server, running

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = f"{'python' if which('python') == sys.executable else sys.executable} -m datagen"
DEAD = "m@http://127.0.0.1:9/v1"


def datagen(*arguments: str, code: int = 0) -> list[str]:
    """Run a command; return the lines on standard error."""
    command = [sys.executable, "-m", "datagen", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert ran.returncode == code, ran.stderr
    return ran.stderr.splitlines()


def next_lines(lines: list[str]) -> list[str]:
    prefix = f"Next: {PROGRAM} "
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def write(path: str, *lines: dict[str, Any]) -> str:
    Path(path).write_bytes(b"".join(map(dump_line, lines)))
    return path


def answered(model: str | None, number: int = 0) -> dict[str, Any]:
    """A row with two answers, as `respond -k 2` writes it, by one model."""
    entries = [{"model": model, "finish_reason": "stop", "answer": None, "verified": None}] * 2
    meta = pack_meta({"method": "respond", "responses": entries})
    return {"id": f"{number:016x}", "prompt": f"How far is {number}?", "responses": ["Far.", "Near."], "meta": meta}


# Next lines


def test_each_next_line_names_the_models_and_runs_as_printed() -> None:
    write_seeds(4)
    tasks = datagen("self-instruct", "seeds.jsonl", "-n", "4", "--model", "sim:skill=0.9")
    assert next_lines(tasks) == ["evolve seeds.self-instruct.jsonl --model sim:skill=0.9"]
    command = next_lines(datagen("respond", "seeds.jsonl", "-k", "2", "--model", "sim", "--model", "sim:skill=0.2"))
    assert command == ["judge seeds.respond.jsonl --model sim"]
    command = next_lines(datagen(*shlex.split(command[0])))
    assert command == ["pairs seeds.respond.judge.jsonl"]


def test_verified_answers_lead_to_pairs_of_right_and_wrong_ones() -> None:
    questions = (ROOT / "examples/questions.jsonl").read_bytes().splitlines(keepends=True)
    Path("sums.jsonl").write_bytes(b"".join(questions[:9]))
    verified = ["--strategy", "cot", "-k", "3", "--verify", "answer"]
    lines = datagen("respond", "sums.jsonl", *verified, "--model", "sim:skill=0.5")
    assert next_lines(lines) == ["pairs --by verified sums.respond-cot.jsonl"]
    datagen(*shlex.split(next_lines(lines)[0]))


def test_the_judge_of_the_next_line_is_of_another_family_or_said_to_judge_itself() -> None:
    write_seeds(3)
    with running(Server()) as server:
        evolver, teacher = f"llama-70b@{server.url}", f"qwen3@{server.url}"
        datagen("evolve", "seeds.jsonl", "--model", evolver, "--rounds", "1", "-o", "prompts.jsonl")
        lines = datagen("respond", "prompts.jsonl", "-k", "2", "--model", teacher, "-o", "samples.jsonl")
        assert next_lines(lines) == [f"judge samples.jsonl --model {evolver}"]
        lines = datagen("respond", "seeds.jsonl", "-k", "2", "--model", teacher, "-o", "own.jsonl")
        assert next_lines(lines) == [f"judge own.jsonl --model {teacher} --allow-self"]
        assert "may prefer them" in lines[-1]


def test_preferences_lead_to_training_from_the_model_that_wrote_them(tmp_path: Path) -> None:
    ranked = {**answered("hf:policy/0123"), "scores": [2, 1], "ranks": [1, 2]}
    write("ranked.jsonl", ranked)
    lines = datagen("pairs", "ranked.jsonl")
    assert next_lines(lines) == ["train sft ranked.pairs.jsonl --format chosen --model tiny"]
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/config.json").write_text("{}")
    run = {"models": {"model": ["hf:policy"]}, "input": "seeds.jsonl"}
    Path("ranked.meta.json").write_text(json.dumps({"result": {}, "run": run}))
    lines = datagen("pairs", "ranked.jsonl", "-o", "again.jsonl")
    assert next_lines(lines) == [f"train {name} again.jsonl --model policy" for name in ("dpo", "reward")]


def test_after_training() -> None:
    rows_file, folder = Path(write("rows.jsonl", {"prompt": "Hi?", "response": "Hello."})), Path("rows.sft")
    pairs = Path(write("pairs.jsonl", {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}))
    folder.mkdir()
    (folder / "config.json").write_text("{}")

    def after(command: str, data: Path, model: str = "tiny", *, is_adapter: bool = False) -> list[str]:
        lines = after_training(command, folder, data, model, is_adapter=is_adapter)
        return [line.removeprefix("Next: datagen ") for line in lines]

    sample = "respond {} -k 4 --model hf:rows.sft -o rows.sft.samples.jsonl"
    assert after("sft", rows_file) == ["train chat rows.sft", sample.format("rows.jsonl")]
    assert after("dpo", pairs) == ["train chat rows.sft", sample.format("pairs.jsonl --format prompt")]
    assert after("sft", pairs) == [f"train {name} pairs.jsonl --model rows.sft" for name in ("dpo", "reward")]
    assert after("sft", rows_file, is_adapter=True) == ["train merge rows.sft"]
    ppo = "train ppo pairs.jsonl --format prompt --model rows.sft --reward rows.sft"
    assert after("reward", pairs, "rows.sft") == [ppo]
    assert after("pretrain", Path("-")) == ["train chat rows.sft"]


def test_a_cap_is_raised_in_the_next_line() -> None:
    write_seeds(20)
    for form in (["--max-calls", "20"], ["--max-calls=20"]):
        command = ["evolve", "seeds.jsonl", "--model", "sim", *form, "--overwrite"]
        lines = datagen(*command, code=4)
        assert next_lines(lines) == [shlex.join(command).replace("20", "40")]
    assert next_lines(datagen(*shlex.split(next_lines(lines)[0]), code=4))[0].endswith("--max-calls=80 --overwrite")


def test_after_an_outage_that_cost_nothing_the_same_command_is_no_next_step() -> None:
    write_seeds(3)
    lines = datagen("respond", "seeds.jsonl", "--model", DEAD, code=5)
    assert any(line.startswith("error: ") and "127.0.0.1:9" in line for line in lines)
    assert "Nothing was paid for." in lines
    assert not next_lines(lines)


def test_a_failure_that_comes_again_is_explained_and_not_asked_for_again() -> None:
    write("replies.jsonl", {"prompt": "Describe thing number 0 in a few words.", "response": "A thing."})
    write_seeds(2)
    lines = datagen("respond", "seeds.jsonl", "--model", "replay:replies.jsonl")
    assert any("holds 0 replies" in line for line in lines)
    assert next_lines(lines) == ["train sft seeds.respond.jsonl --model tiny"]


# Success is what was asked for


@pytest.mark.parametrize(
    "command",
    [
        ["filter", "seeds.jsonl", "--verify", "answer", "--only-verified"],
        ["pairs", "ties.jsonl"],
        ["respond", "seeds.jsonl", "--model", "replay:none.jsonl"],
        ["respond", "seeds.jsonl", "--strategy", "star", "--model", "sim"],
        ["improve", "seeds.jsonl", "--model", "sim"],
        ["judge", "one.jsonl", "--by", "compare", "--model", "sim"],
    ],
)
def test_nothing_kept_is_exit_3_with_the_rule_and_again_when_run_again(command: list[str]) -> None:
    write_seeds(3)
    write("none.jsonl", {"prompt": "Another one", "response": "Yes."})
    write("ties.jsonl", {**answered("m"), "scores": [1, 1], "ranks": [1, 1]})
    write("one.jsonl", {**answered("m"), "responses": ["Far."]})
    for _ in range(2):
        lines = datagen(*command, code=3)
        assert any(line.startswith("No row was kept of ") and ": " in line for line in lines)
        assert not any("train" in line for line in next_lines(lines))


def test_role_conflicts_are_known_before_the_first_request() -> None:
    write("samples.jsonl", answered("qwen3:8b"), answered("qwen3:8b", 1))
    write("rows.jsonl", {"prompt": "Hi?", "response": "Hello."})
    with running(Server()) as server:
        model = f"qwen2@{server.url}"
        for command in (["judge", "samples.jsonl"], ["improve", "rows.jsonl"]):
            for dry in ([], ["--dry-run"]):
                (line,) = datagen(*command, "--model", model, *dry, code=2)
                assert "--allow-self" in line and "--judge" in line
        assert server.requests == 0
    write_seeds(2)
    (line,) = datagen("respond", "seeds.jsonl", "--strategy", "tree", "--model", "sim", code=2)
    assert "--task text" in line


# The default model


def test_the_default_model_comes_from_the_variable_then_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_models() == []
    Path("models.toml").write_text('default = ["a@http://x/v1", "b@http://x/v1"]\n')
    assert default_models() == ["a@http://x/v1", "b@http://x/v1"]
    Path("models.toml").write_text('default = "sim:skill=0.5"\n')
    write_seeds(2)
    lines = datagen("respond", "seeds.jsonl")
    assert rows("seeds.respond.jsonl")[0]["meta"]["model"].startswith("sim:skill=0.5/")
    assert not any("DEMONSTRATION" in line for line in lines)
    monkeypatch.setenv("DATAGEN_MODEL", "c")
    assert default_models() == ["c"]


@pytest.mark.parametrize("text", ["default = 3", "default = [3]", 'model = "a"', "default = "])
def test_a_wrong_models_file_is_one_line(text: str) -> None:
    Path("models.toml").write_text(text)
    with pytest.raises(InputError, match=r"models\.toml: "):
        default_models()


@pytest.mark.parametrize(
    ("row", "command", "refused"),
    [
        ({"prompt": "Hi?"}, ["respond"], False),
        ({"prompt": "Hi?", "response": "Hello."}, ["improve"], True),
        ({**answered(None)}, ["judge"], True),
        ({**answered("qwen3")}, ["judge"], True),
        ({**answered("sim/1")}, ["judge"], False),
        ({"id": "0" * 16, "prompt": "Hi?", "meta": pack_meta({"evolver": "qwen3"})}, ["evolve"], True),
        ({"id": "0" * 16, "prompt": "Hi?", "meta": pack_meta({"evolver": "sim:skill=1/1"})}, ["evolve"], False),
    ],
)
def test_sim_goes_on_with_the_rows_of_others_only_if_it_is_named(
    row: dict[str, Any], command: list[str], refused: bool
) -> None:
    write("rows.jsonl", row)
    lines = datagen(*command, "rows.jsonl", code=2 if refused else 0)
    if refused:
        (line,) = lines
        assert line.startswith("error: rows.jsonl:1: ")
        assert all(way in line for way in ("--model NAME@URL", "OPENAI_API_KEY", "models.toml", "--model sim"))
        assert not Path("rows." + command[0] + ".jsonl").exists()
    datagen(*command, "rows.jsonl", "--model", "sim", "-o", "named.jsonl")


# Outputs


def test_an_output_without_a_row_never_blocks_the_corrected_command() -> None:
    write_seeds(2)
    datagen("respond", "seeds.jsonl", "--model", DEAD, code=5)
    datagen("respond", "seeds.jsonl", "--model", "sim")
    assert len(rows("seeds.respond.jsonl")) == 2
    (line, *_) = datagen("respond", "seeds.jsonl", "--model", "sim:skill=0.5", code=2)
    assert "made by another command" in line
    assert len(rows("seeds.respond.jsonl")) == 2


def test_another_strategy_has_another_default_name_and_one_line_of_difference() -> None:
    write_seeds(2)
    datagen("respond", "seeds.jsonl", "--model", "sim")
    datagen("respond", "seeds.jsonl", "--strategy", "cot", "--model", "sim")
    assert Path("seeds.respond.jsonl").exists() and Path("seeds.respond-cot.jsonl").exists()
    lines = datagen(
        "respond", "seeds.jsonl", "--strategy", "cot", "--model", "sim", "-o", "seeds.respond.jsonl", code=2
    )
    assert [line.strip() for line in lines[1:-1]] == ["command: 'respond direct' then, 'respond cot' now"]


# How it is installed


@pytest.mark.parametrize(
    ("source", "is_editable", "expected"),
    [
        ("absent", False, "'datagen-train[train]'"),
        ("dist/datagen.whl", False, "'dist/datagen.whl[train]'"),
        (".", True, "-c constraints.txt -e '.[train]'"),
        ("with space", False, "-c 'with space/constraints.txt' 'with space[train]'"),
    ],
)
def test_the_install_line_names_what_was_installed(
    source: str, is_editable: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("dist", "with space"):
        Path(folder).mkdir()
    for file in ("dist/datagen.whl", "constraints.txt", "with space/constraints.txt"):
        Path(file).touch()
    monkeypatch.setattr(installation, "installed_from", lambda: (Path(source).absolute(), is_editable))
    assert install_line("train").endswith(f"install {expected}")
