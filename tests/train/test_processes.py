"""Two processes train one model: one prints, and a stop ends both. The terminal is left as it was."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen_train.launch import process_count
from tests.every_command import wait_until_it_listens
from tests.train.runs import metrics, train_line
from tests.train.tasks import problems, write_preferences, write_sft

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
pytestmark = pytest.mark.slow


def command(*options: str) -> list[str]:
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    arguments = [
        sys.executable,
        "-m",
        "datagen",
        "train",
        "sft",
        "sums.jsonl",
        "-o",
        "out",
        "--nproc",
        "2",
        *options,
    ]
    return [*arguments, "--batch-size", "8"]


def in_a_terminal(arguments: list[str], *script: tuple[bytes, bytes]) -> tuple[int, bytes]:
    """Run a command in a terminal; of each step of the script, type the second part once the first appears.

    Returns:
        The exit code and the output.
    """
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        arguments, env={**ENV, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    output, read, steps = b"", 0, list(script)
    with suppress(OSError):  # which is how a terminal ends
        while part := os.read(ours, 1 << 16):
            output += part
            if steps and steps[0][0] in output[read:]:
                read = len(output)
                os.write(ours, steps.pop(0)[1])
    os.close(ours)
    return running.wait(), output


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*options), env=ENV, capture_output=True, text=True, timeout=300)


def test_two_processes_train_and_one_speaks() -> None:
    ran = run("--steps", "6", "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["run"]["processes"] == 2
    assert report["result"]["end"]["eval_loss"] < report["result"]["start"]["eval_loss"]
    assert ran.stderr.count("Model: out") == 1
    assert ran.stderr.count("check end:") == 1
    assert "[transformers]" not in ran.stderr
    saved = json.loads(Path("out/run/report.json").read_text())
    assert saved == report


def test_one_process_decides_about_a_folder_that_is_overwritten() -> None:
    """No folder, then that of another run, then that of exactly this run, which is finished."""
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    for steps in (2, 3, 3):
        stderr = train_line(f"sft sums.jsonl -o out --batch-size 8 --steps {steps} --overwrite", 2)
        assert "Nothing to do" not in stderr
        assert json.loads(Path("out/run/report.json").read_text())["result"]["steps"] == steps
        assert Path("out/model.safetensors").exists()


def test_a_reward_model_with_adapters_trains_on_two_processes(taught: Path) -> None:
    """Its head has a frozen twin among the adapters, which no step may wait for."""
    write_preferences(Path("pairs.jsonl"), problems(0)[:60])
    train_line(f"reward pairs.jsonl -o rm --lora --steps 4 --model {taught}", 2)
    assert Path("rm/adapter_model.safetensors").exists()
    assert json.loads(Path("rm/run/report.json").read_text())["run"]["processes"] == 2


RANK = """
import os

def by_rank(prompts, completion_ids, log_metric, **_):
    log_metric("rank", float(os.environ["RANK"]))
    return [float(len(ids)) for ids in completion_ids]
"""


def test_what_grpo_logs_is_a_mean_over_the_processes(taught: Path) -> None:
    Path("by_rank.py").write_text(RANK)
    write_sft(Path("sums.jsonl"), problems(0)[:40])
    arguments = ["train", "grpo", "sums.jsonl", "-o", "out", "--nproc", "2", "--steps", "1", "--log-every", "1"]
    arguments += ["--model", str(taught), "--reward", "by_rank.py:by_rank", "--batch-size", "2", "--group-size", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", "datagen", *arguments, "--max-tokens", "4"], env=ENV, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert Path("out/run/report.json").exists(), ran.stderr
    lines = [line for line in metrics("out") if "rank" in line]
    assert [line["rank"] for line in lines] == [0.5]


def test_what_is_wrong_is_reported_once_with_its_exit_code() -> None:
    ran = run("--max-length", "24")
    assert ran.returncode == 2
    assert len([line for line in ran.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in ran.stderr


LONG = ("--steps", "100", "--eval-every", "50", "--log-every", "1")


def start_long(*, until_step: int | None = None) -> "subprocess.Popen[str]":
    """Start a long run, and wait until it has reached a step."""
    process = subprocess.Popen(command(*LONG), env=ENV, stderr=subprocess.PIPE, text=True)
    if until_step is not None:
        wait_for_step(until_step, process)
    return process


def wait_for_step(step: int, process: "subprocess.Popen[str]") -> None:
    """Wait until the metrics of a run have reached a step."""
    metrics = Path("out/run/metrics.jsonl")
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) > step):
        assert process.poll() is None
        time.sleep(0.05)


def trainers_here() -> list[str]:
    """The numbers of the processes whose working folder is this one, but for this one itself."""
    here, numbers = os.getcwd(), []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(path / "cwd") == here and path.name != str(os.getpid()):
                numbers.append(path.name)
    return numbers


def test_a_signal_to_all_processes_stops_them_at_one_step_and_the_run_goes_on() -> None:
    """A launcher or a terminal may send it to all of them: that is one request."""
    running = start_long(until_step=5)
    for process in trainers_here():
        os.kill(int(process), signal.SIGINT)
    _, stderr = running.communicate(timeout=300)
    assert running.returncode == 130, stderr
    assert stderr.count("error: Interrupted at step") == 1
    assert "process 1 failed" not in stderr
    ran = run(*LONG)
    assert ran.returncode == 0, ran.stderr
    assert "Going on from step" in ran.stderr


def test_before_the_first_step_a_signal_ends_all_processes_with_one_line() -> None:
    running = start_long()
    wait_until_it_listens(running)
    time.sleep(2)
    running.terminate()
    _, stderr = running.communicate(timeout=300)
    assert (running.returncode, stderr) == (130, "Interrupted.\n")


@pytest.mark.parametrize("how", ["killed", "signalled twice"])
def test_the_processes_end_with_the_first_one(how: str) -> None:
    running = start_long(until_step=3)
    assert len(trainers_here()) >= 3
    if how == "killed":
        running.kill()
    else:
        running.terminate()
        time.sleep(0.3)
        running.terminate()
    running.communicate(timeout=300)  # until every process has closed its standard error
    for _ in range(100):
        if not trainers_here():
            return
        time.sleep(0.1)
    raise AssertionError("processes train on without their parent")


def test_ctrl_c_in_a_terminal_erases_the_live_lines_and_says_what_to_do() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    arguments = [sys.executable, "-m", "datagen", "train", "sft", "sums.jsonl", "-o", "out", "--steps", "5000"]
    code, output = in_a_terminal([*arguments, "--eval-every", "1000", "--batch-size", "4"], (b"tokens/s", b"\x03"))
    assert code == 130
    assert b"sft loading libraries" in output
    assert b"Stopping after this step, with a checkpoint." in output
    assert b"\x1b[?25l" not in output, "the cursor is never hidden"
    assert output[output.rindex(b"\x1b[J") + 3 :].startswith(b"error: Interrupted at step")


CHAT = [sys.executable, "-m", "datagen", "train", "chat"]


def test_ctrl_c_leaves_a_chat_that_waits_and_ends_one_that_answers(taught: Path) -> None:
    code, output = in_a_terminal([*CHAT, str(taught)], (b"> ", b"\x03"))
    assert code == 0 and b"Traceback" not in output
    code, output = in_a_terminal([*CHAT, str(taught)], (b"> ", b"What colour is the sky?\n"), (b"sky?\r\n", b"\x03"))
    assert code in (0, 130) and b"Traceback" not in output  # 0: the answer came first


def workers_here() -> list[str]:
    """The processes of this folder that train."""
    lines = {number: Path(f"/proc/{number}/cmdline") for number in trainers_here()}
    return [number for number, line in lines.items() if b"datagen" in line.read_bytes()]


def test_sigterm_to_torchrun_stops_its_workers_with_a_checkpoint() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--"]
    running = subprocess.Popen([*torchrun, *command(*LONG)[2:]], env=ENV, stderr=subprocess.PIPE, text=True)
    wait_for_step(5, running)
    running.terminate()
    _, stderr = running.communicate(timeout=300)  # until every process has closed its standard error
    assert running.returncode != 0
    assert "error: Interrupted at step" in stderr and "datagen-error" not in stderr, stderr
    assert not workers_here()
    assert list(Path("out/checkpoints").glob("*/complete.json"))


def test_a_run_is_left_alone_by_one_that_would_overwrite_it() -> None:
    """The second command finds the lock before it changes anything; the first one goes on with its checkpoints."""
    arguments = [*command("--steps", "100000", "--log-every", "1", "--save-every", "5", "--eval-every", "5")]
    first = subprocess.Popen(arguments, env=ENV, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not list(Path("out/checkpoints").glob("*/complete.json")):
        time.sleep(0.05)
    config = Path("out/run/config.json").stat().st_mtime_ns
    second = subprocess.run([*arguments, "--overwrite"], env=ENV, capture_output=True, text=True, timeout=300)
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=300)
    assert second.returncode == 1 and second.stderr.count("error: out: another run is writing it") == 1, second.stderr
    assert first.returncode == 130 and "Interrupted at step" in stderr, stderr
    assert Path("out/run/config.json").stat().st_mtime_ns == config
    steps = [json.loads(line)["step"] for line in Path("out/run/metrics.jsonl").read_text().splitlines()]
    assert set(steps) == set(range(steps[-1] + 1)), "no line is missing, from the first one on"
    assert f"checkpoint-{steps[-1]}" in {path.name for path in Path("out/checkpoints").iterdir()}


def test_a_launcher_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is typed: `torchrun --nproc_per_node 2 $(which datagen) train ...`, without --nproc."""
    Path("console.py").write_text("from datagen.__main__ import main\nmain()\n")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "console.py"]
    arguments = command("--steps", "2", "--eval-every", "2")[3:]
    at = arguments.index("--nproc")
    ran = subprocess.run(
        [*launcher, *arguments[:at], *arguments[at + 2 :]], env=ENV, capture_output=True, text=True, timeout=300
    )
    assert Path("out/run/report.json").exists(), ran.stderr
    assert json.loads(Path("out/run/report.json").read_text())["run"]["processes"] == 2
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--nproc 3: the launcher has started 2 processes"):
        process_count(3)
