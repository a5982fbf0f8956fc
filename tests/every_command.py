"""Every command of both programs, small: its inputs and its output, for tests that end it at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from shutil import rmtree

from tests.forked import Forked
from tests.jobs import digest, write_seeds
from tests.train.tasks import problems, write_preferences, write_sft

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
DATAGEN = {
    "self-instruct": "self-instruct seeds.jsonl -n 200 --model sim",
    "evolve": "evolve seeds.jsonl --model sim:leak=0.1,refuse=0.1",
    "magpie": "magpie -n 200 --model sim",
    "constraints": "constraints seeds.jsonl --model sim",
    "backtranslate": "backtranslate corpus.jsonl --model sim",
    "respond": "respond seeds.jsonl --strategy vote --model sim",
    "improve": "improve sums.jsonl --model sim",
    "judge": "judge samples.jsonl --by compare --model sim",
    "filter": "filter sums.jsonl --dedup 0.7",
    "filter by meaning": "filter sums.jsonl --dedup semantic:0.98 --diverse 40 --embedder sim",
    "pairs": "pairs ranked.jsonl",
    "convert": "convert sums.jsonl --overwrite",
}
"""Commands by name; `-o FILE` is added. No call fails for good: a run after one that has ended asks for that again."""
STEPS = "--steps 12 --eval-every 4 --save-every 2 --log-every 1 --batch-size 8 --held-out 0.1"
ON_POLICY = f"sums.jsonl --model base --reward short.py:short --max-tokens 4 {STEPS}"
SHORT = "def short(completion_ids, **_): return [-float(len(ids) + sum(ids) % 7) for ids in completion_ids]\n"
TRAINERS = {
    "pretrain": f"train pretrain corpus.jsonl --model tiny {STEPS}",
    "sft": f"train sft sums.jsonl --model tiny {STEPS}",
    "reward": f"train reward prefs.jsonl --model base {STEPS}",
    "classify": f"train classify sums.jsonl --model base {STEPS}",
    "dpo": f"train dpo prefs.jsonl --model base {STEPS}",
    "distill": f"train distill sums.jsonl --model base --teacher teacher --on-policy 0.5 --max-tokens 4 {STEPS}",
    "ppo": f"train ppo {ON_POLICY} --adaptive-kl 1",
    "grpo": f"train grpo {ON_POLICY}",
}
"""Trainers by name; `-o FOLDER` is added, and `--lora` may be where the model is `base`."""
TOOLS = {
    "eval": "train eval base sums.jsonl --limit 40",
    "merge": "train merge adapter --overwrite",
    "check": "train check sums.jsonl --model base",
    "score": "train score samples.jsonl --reward verifier:answer",
    "chat": "train chat base --prompt Hello",
}
"""Commands that train nothing."""


def start(arguments: str) -> "subprocess.Popen[str]":
    """Start a command."""
    command = [sys.executable, "-m", "datagen", *arguments.split()]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(arguments: str) -> float:
    """Run a command to its end, one that trains in a process that has its libraries; return the seconds it took."""
    began = time.monotonic()
    process = Forked(arguments) if arguments.startswith("train ") else start(arguments)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode in (0, 3), f"{arguments}\n{stderr}"
    assert "Traceback" not in stderr
    return time.monotonic() - began


def wait_until_it_listens(process: "subprocess.Popen[str] | Forked") -> None:
    """Wait for the first line of the program: before it, the interpreter answers signals in its own way."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        line = next((line for line in status.read_text().splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
        if int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.005)


def write_inputs(folder: Path) -> None:
    """Write the inputs of all commands, but for the models."""
    write_training_inputs(folder)
    write_seeds(150, f"{folder}/seeds.jsonl")
    finish(f"respond {folder}/seeds.jsonl -k 3 --model sim -o {folder}/samples.jsonl")
    finish(f"judge {folder}/samples.jsonl --model sim -o {folder}/ranked.jsonl")
    rmtree(folder / ".datagen")


def write_training_inputs(folder: Path = Path()) -> None:
    """Write the inputs of the trainers."""
    write_sft(folder / "sums.jsonl", problems(0)[:200])
    (folder / "short.py").write_text(SHORT)
    write_preferences(folder / "prefs.jsonl", problems(0)[:200])
    texts = (f"Document {i} says this: {p} " * 8 for i, (p, _) in enumerate(problems(0)[:60]))
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def write_models(folder: Path) -> None:
    """Train the models that the commands need."""
    write_sft(folder / "sums.jsonl", problems(0)[:200])
    base = f"{folder}/base"
    for name, model in (("base", "tiny"), ("adapter", f"{base} --lora"), ("teacher", f"{base} --seed 1")):
        finish(f"train sft {folder}/sums.jsonl --model {model} -o {folder}/{name} {STEPS}")


def output_of(name: str, output: str) -> str:
    """Return what a command has written that must be the same on every run: the digest of an output, or of a model."""
    path = Path(output)
    if path.is_dir():
        weights = b"".join(file.read_bytes() for file in sorted(path.glob("*.safetensors")))
        if name == "merge":
            return sha256(weights + (path / "run/trained.bin").read_bytes()).hexdigest()
        curve = (path / "run/metrics.jsonl").read_bytes()
        result = json.loads((path / "run/report.json").read_text())["result"]
        assert weights
        return sha256(weights + curve + json.dumps(result, sort_keys=True).encode()).hexdigest()
    return sha256(path.read_bytes()).hexdigest() if name == "convert" else digest(path)
