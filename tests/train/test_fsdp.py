"""A model divided among processes trains as a whole one, goes on after a kill, and is really divided."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from datagen.errors import InputError
from datagen_train.cli import OPTIONS
from datagen_train.division import check_launcher
from datagen_train.launch import shared_variables
from datagen_train.options import TrainOptions
from tests.train.conftest import COLOURS, colour_rows
from tests.train.real_models import make_real
from tests.train.runs import start_ranks, train_line
from tests.train.tasks import write_rows

CLOSE = 1e-5
STEPS = 8
DATA = {
    "pretrain": "texts.jsonl", "sft": "rows.jsonl", "dpo": "pairs.jsonl", "reward": "pairs.jsonl", "ppo": "rows.jsonl",
    "grpo": "rows.jsonl",
}  # fmt: skip
ON_POLICY = ("--reward=length.py:length", "--max-tokens=6")
EXTRA = {
    "sft": ("--generate=1", "--checkpointing"),
    "dpo": ("--loss=sigmoid+sft",),
    "ppo": (*ON_POLICY, "--minibatches=2"),
    "grpo": (*ON_POLICY, "--group-size=2"),
}
COMMON = (
    "--model=model", f"--steps={STEPS}", "--accumulate=2", "--held-out=0.3", "--log-every=1", "--eval-every=2",
    "--learning-rate=1e-3", "--seed=1",
)  # fmt: skip


@pytest.fixture
def files() -> None:
    """A small model whose embedding and head are tied, and rows of each trainer. Of three held-out rows one process
    measures two."""
    rows = colour_rows()
    model, tokenizer = make_real("Gemma 2", [f"{row.prompt} {row.response}" for row in rows])
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    wrong = {"blue": "red", "green": "blue", "red": "green"}
    write_rows("rows.jsonl", [{"prompt": row.prompt, "response": row.response} for row in rows])
    write_rows("texts.jsonl", [{"text": f"The {thing} is {colour}."} for thing, colour in COLOURS.items()])
    write_rows("pairs.jsonl", [
        {"prompt": row.prompt, "chosen": row.response, "rejected": wrong[row.response or ""]} for row in rows
    ])  # fmt: skip
    Path("length.py").write_text(
        "def length(completion_ids, **_): return [len(i) + i[0] % 7 for i in completion_ids]\n"
    )


def command(trainer: str, output: str, *options: str, batch: int = 2) -> str:
    """Every fourth token ends an answer, so that the processes sample answers of other lengths."""
    extra = [*EXTRA.get(trainer, ())]
    if trainer in ("ppo", "grpo"):
        vocabulary = json.loads(Path("model/tokenizer.json").read_text())["model"]["vocab"]
        extra += [f"--stop-token={token}" for token in sorted(vocabulary)[::4] if token.isalnum()]
    return shlex.join([trainer, DATA[trainer], "-o", output, f"--batch-size={batch}", *COMMON, *extra, *options])


def curve(output: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(output, "run", "metrics.jsonl").read_text().splitlines()]


def report(output: str) -> dict[str, Any]:
    text = Path(output, "run", "report.json").read_text()
    return dict(json.loads(text))


def weights(output: str) -> dict[str, torch.Tensor]:
    (path,) = Path(output).glob("*.safetensors")
    return load_file(path)


def assert_close(output: str, other: str) -> None:
    """The same curve and the same weights, up to the order of sums."""
    assert len(curve(output)) == len(curve(other))
    for line, expected in zip(curve(output), curve(other), strict=True):
        assert line == pytest.approx(expected, abs=CLOSE, rel=CLOSE)
    ours, theirs = weights(output), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3)


def kill_at(step: int, output: str, line: str) -> None:
    """Kill a run of two processes once it has logged a step."""
    ranks, metrics = start_ranks(line, 2), Path(output, "run", "metrics.jsonl")
    while not (metrics.exists() and any(logged["step"] >= step for logged in curve(output))):
        assert all(rank.poll() is None for rank in ranks), [rank.communicate() for rank in ranks]
        time.sleep(0.005)
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.communicate()
    assert not Path(output, "run", "report.json").exists(), "it ended before it was killed"


def divide(trainer: str, *options: str) -> None:
    """Train a whole model and a divided one, and compare them."""
    train_line(command(trainer, "whole", *options), 2)
    train_line(command(trainer, "divided", *options, "--fsdp"), 2)
    assert_close("divided", "whole")
    run, size = report("divided")["run"], report("divided")["result"]["parameters"]["all"]
    assert run["sharded"] and abs(run["local_parameters"] / size - 0.5) < 0.01
    assert not report("whole")["run"]["sharded"] and report("whole")["run"]["local_parameters"] == size


@pytest.mark.slow
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("trainer", DATA)
def test_a_divided_model_trains_as_a_whole_one_and_goes_on_after_a_kill(trainer: str) -> None:
    divide(trainer)
    line = command(trainer, "killed", "--fsdp")
    kill_at(5, "killed", line)
    assert "Going on from step" in train_line(line, 2)
    assert curve("killed") == curve("divided")
    assert report("killed")["result"] == report("divided")["result"]
    for name, value in weights("killed").items():
        assert torch.equal(value, weights("divided")[name]), name


@pytest.mark.slow
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("trainer", "options"), [("dpo", ()), ("reward", ()), ("grpo", ()), ("ppo", ("--critic=model",))]
)
def test_adapters_and_a_critic_of_its_own_are_divided(trainer: str, options: tuple[str, ...]) -> None:
    divide(trainer, "--lora", "--lora-rank=4", *options)


@pytest.mark.slow
@pytest.mark.usefixtures("files")
def test_another_number_of_processes_goes_on_with_the_rows_of_a_step() -> None:
    """Two processes with three rows each, then three with two rows."""
    options = ("--fsdp", "--accumulate=1")
    train_line(command("sft", "whole", *options, batch=3), 2)
    kill_at(5, "moved", command("sft", "moved", *options, batch=3))
    assert "Going on from step" in train_line(command("sft", "moved", *options, batch=2), 3)
    assert_close("moved", "whole")
    assert report("moved")["run"]["processes"] == 3


@pytest.mark.slow
@pytest.mark.usefixtures("files")
def test_two_launchers_are_two_nodes_of_one_run() -> None:
    """As it is typed on each of two machines, with a shared folder."""
    Path("console.py").write_text("from datagen.__main__ import main\nmain()\n")
    arguments = ["train", *shlex.split(command("sft", "out", "--fsdp", "--steps=2"))]
    port = shared_variables(2)["MASTER_PORT"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=run", "console.py", *arguments]
    nodes = [
        subprocess.Popen(launcher, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    output = [node.communicate(timeout=300)[1] for node in nodes]
    assert report("out")["run"]["processes"] == 2 and report("out")["run"]["sharded"], "\n".join(output)
    assert report("out")["result"]["steps"] == 2


def be_rank(action: Callable[[int], None], variables: dict[str, str], rank: int) -> None:
    os.environ.update(variables | {"RANK": str(rank)})
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    action(rank)
    torch.distributed.destroy_process_group()


def on_two(action: Callable[[int], None]) -> None:
    """Do something in two processes of a group; none fails."""
    shared = shared_variables(2)
    variables = {name: shared[name] for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")}
    context = get_context("forkserver")
    ranks = [context.Process(target=be_rank, args=(action, variables, rank)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0]


def refuse_a_whole_model(rank: int) -> None:
    from datagen_train.errors import CheckFailed
    from datagen_train.models.sharding import check_sharded

    with pytest.raises(CheckFailed, match="hold 24 parameters of 12: it is not divided"):
        check_sharded(torch.nn.Linear(3, 3))


def make_other_numbers_of_passes(rank: int) -> None:
    from datagen_train.models.sharding import as_many_everywhere, in_step, shard
    from datagen_train.models.tiny import make_tiny

    device = torch.device("cpu")
    model = shard(make_tiny("tiny", ["a text"], 0)[0], device)
    with in_step(model), torch.no_grad():
        for _ in range(1 + 3 * rank):
            model(input_ids=torch.ones((2, 3), dtype=torch.long))
    assert as_many_everywhere([7] * (1 + rank), 0, device) == [[7, 0], [7, 7]][rank]


@pytest.mark.slow
@pytest.mark.parametrize("action", [refuse_a_whole_model, make_other_numbers_of_passes])
def test_processes_of_a_group(action: Callable[[int], None]) -> None:
    on_two(action)


DIVIDED = TrainOptions(model="model", fsdp=True, nproc=2)
REFUSED: list[tuple[str, TrainOptions, dict[str, Any], str]] = [
    ("sft", replace(DIVIDED, nproc=1), {}, "--fsdp divides the model among several processes: add --nproc N"),
    ("classify", DIVIDED, {}, "--fsdp: this trainer needs the whole model in each process"),
    ("distill", DIVIDED, {"teacher": "other"}, "--fsdp: this trainer needs the whole model"),
    ("sft", replace(DIVIDED, qlora=True), {}, "--fsdp: weights of 4 bits cannot be divided"),
    ("dpo", replace(DIVIDED, optimizer="adafactor"), {}, "--fsdp: the states of --optimizer adafactor"),
    ("ppo", replace(DIVIDED, lora=True), {"reward": ["x"], "sampler": "http://h/v1"}, "--sampler is handed whole"),
    ("sft", replace(DIVIDED, deepspeed="zero3.json"), {}, "--deepspeed and --fsdp: leave one out"),
    ("ppo", TrainOptions(model="model", deepspeed="zero3.json"), {"reward": ["x"]}, "--deepspeed: this trainer has"),
    ("sft", TrainOptions(deepspeed="none.json"), {}, "--deepspeed none.json: cannot be read"),
    ("sft", TrainOptions(deepspeed="list.json"), {}, "--deepspeed list.json: is no JSON object"),
    ("sft", TrainOptions(deepspeed="zero3.json"), {}, "--deepspeed needs a package and a CUDA device"),
]


@pytest.mark.parametrize(("trainer", "training", "options", "says"), REFUSED, ids=[case[3] for case in REFUSED])
def test_what_cannot_be_divided_is_one_line(
    trainer: str, training: TrainOptions, options: dict[str, Any], says: str
) -> None:
    Path("zero3.json").write_text('{"zero_optimization": {"stage": 3}}')
    Path("list.json").write_text("[]")
    with pytest.raises(InputError, match=says):
        OPTIONS[trainer](**options).check(training)


def test_a_wish_of_the_launcher_that_the_library_would_set_aside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_launcher()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="ACCELERATE_USE_FSDP: say --fsdp to datagen"):
        check_launcher()
