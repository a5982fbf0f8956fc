"""PPO, GRPO and RLOO whose answers a server samples: the same answers, weights near 1, and no server is trusted."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from datagen.errors import InputError
from datagen_train import grpo, ppo
from datagen_train.errors import TrainingStopped
from datagen_train.options import TrainOptions
from datagen_train.policy_options import GrpoOptions, PpoOptions
from datagen_train.run.sampler import LARGEST_WEIGHT, compare, truncated_weight
from tests.train.runs import Notes, metrics, train
from tests.train.sampling_server import SamplingServer, serve
from tests.train.tasks import problems, write_sft

REWARD = "def short(prompts, completion_ids, **_): return [-float(len(ids)) for ids in completion_ids]"
ALL = pytest.mark.parametrize("algorithm", ["ppo", "grpo", "rloo"])
SHORT: dict[str, Any] = {
    "steps": 3, "batch_size": 8, "log_every": 1, "held_out": 0.1, "lora": True, "learning_rate": 1e-3, "seed": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def task() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:60])
    Path("rewards.py").write_text(REWARD)


def run(
    base: str,
    output: str,
    algorithm: str = "ppo",
    notes: Notes | None = None,
    sampler: str | None = None,
    shared: dict[str, Any] = SHORT,
    **options: Any,
) -> dict[str, Any]:
    chosen: dict[str, Any] = {"reward": ["rewards.py:short"], "max_tokens": 6, "sampler": sampler, **options}
    if algorithm == "ppo":
        return train(ppo, "sums.jsonl", PpoOptions(**chosen), notes, model=base, output=output, **shared)
    settings = GrpoOptions(algorithm=algorithm, group_size=4, **chosen)
    return train(grpo, "sums.jsonl", settings, notes, model=base, output=output, **{**shared, "batch_size": 2})


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("ppo", {}),
        ("grpo", {}),
        pytest.param("ppo", {"temperature": 0.7, "suppress": ["5"]}, marks=pytest.mark.slow),
        pytest.param("grpo", {"temperature": 0.7, "updates": 2, "mask_cut": True}, marks=pytest.mark.slow),
        pytest.param("grpo", {"importance": "sequence", "kl_coef": 0.0}, marks=pytest.mark.slow),
        pytest.param("grpo", {"loss": "vespo", "updates": 2}, marks=pytest.mark.slow),
        pytest.param("rloo", {"updates": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_server_samples_what_the_policy_would(base: str, algorithm: str, options: dict[str, Any]) -> None:
    """The seeds are the same, so the answers are, and the weights are those of an ordinary run but for rounding."""
    run(base, "local", algorithm, **options)
    server = SamplingServer(base, faults=1)
    with serve(server) as url:
        run(base, "served", algorithm, sampler=url, **options)
    local, served = ([line for line in metrics(folder) if "loss" in line] for folder in ("local", "served"))
    assert len(local) == len(served) == SHORT["steps"]
    for one, other in zip(local, served, strict=True):
        assert "updates" in options or "sampler_gap" in other
        assert other.pop("sampler_gap", 0.0) < 1e-4
        assert other == pytest.approx(one, abs=1e-3)
    paths = [path for path, _ in server.requests]
    sampled = SHORT["steps"] if algorithm == "ppo" else math.ceil(SHORT["steps"] / options.get("updates", 1))
    assert paths.count("/v1/unload_lora_adapter") == sampled
    assert not server.adapters, "the server holds adapters of a run that has ended"
    assert not Path("served/run/sampler").exists()
    sent = [body for path, body in server.requests if path == "/v1/completions"]
    assert all(isinstance(token, int) for body in sent for token in body["prompt"])


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_the_loss_counts_by_the_weight_of_a_token_or_of_an_answer(base: str, algorithm: str) -> None:
    one_step = {**SHORT, "steps": 1}
    run(base, "local", algorithm, shared=one_step, kl_coef=0.0)
    with serve(SamplingServer(base, shift=-0.3)) as url:
        run(base, "served", algorithm, sampler=url, shared=one_step, kl_coef=0.0)
    local, served = (next(line["loss"] for line in metrics(folder) if "loss" in line) for folder in ("local", "served"))
    if algorithm == "grpo":
        assert served == pytest.approx(local * math.exp(0.3), rel=1e-3)
    else:  # the advantages of a group sum to 0, but not once its answers have weights
        assert abs(local) < 1e-6 < 1e-3 < abs(served)


@pytest.mark.slow
@ALL
def test_a_server_that_keeps_old_adapters_raises_the_alarm(base: str, algorithm: str) -> None:
    notes, options = Notes(), {**SHORT, "steps": 6, "learning_rate": 1e-2}
    with serve(SamplingServer(base, keeps_first=True)) as url:
        result = run(base, "out", algorithm, notes, url, options, kl_coef=0.0)
    gaps = [line["sampler_gap"] for line in metrics("out") if "sampler_gap" in line]
    assert gaps[0] < 1e-4 < 1e-3 < gaps[-1]
    assert "nats a token apart" in result["alarms"]["sampler"]
    assert sum("ALARM sampler" in message for message in notes.messages) == 1


@pytest.mark.slow
@ALL
def test_a_run_whose_server_died_goes_on_as_an_undisturbed_one(base: str, algorithm: str) -> None:
    options = {**SHORT, "steps": 4, "save_every": 1, "eval_every": 1}
    with serve(SamplingServer(base)) as url:
        run(base, "whole", algorithm, sampler=url, shared=options)
    with (
        serve(SamplingServer(base, last=25)) as url,  # in the third iteration
        pytest.raises(TrainingStopped, match="HTTP 500") as stopped,
    ):
        run(base, "out", algorithm, sampler=url, shared=options)
    assert "\n" not in str(stopped.value)
    notes = Notes()
    with serve(SamplingServer(base)) as url:
        run(base, "out", algorithm, notes, url, options)
    assert any(message.startswith("Going on from step") for message in notes.messages)
    assert metrics("out") == metrics("whole")


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ({"shift": -3.0}, "nats a token from those of the model that learns"),
        ({"reply": {"choices": []}}, "no token ids with log-probabilities"),
        ({"reply": [1]}, "no token ids with log-probabilities"),
        ({"faults": 9}, "HTTP 500"),
        (
            {"reply": {"choices": [{"finish_reason": "length",
                                    "logprobs": {"tokens": ["token_id:999999"], "token_logprobs": [-1.0]}}]}},
            "an answer of other tokens than the model's",
        ),
        (
            {"reply": {"choices": [{"finish_reason": "length",
                                    "logprobs": {"tokens": ["token_id:7"], "token_logprobs": [float("nan")]}}]}},
            "an answer of other tokens than the model's",
        ),
        (
            {"reply": {"choices": [{"finish_reason": "stop",
                                    "logprobs": {"tokens": ["token_id:7"], "token_logprobs": [-1.0]}}]}},
            "an answer that ended without its end token",
        ),
    ],
    ids=["other log-probabilities", "no choice", "no object", "faults", "no such token", "not a number", "no end"],
)  # fmt: skip
def test_a_server_that_answers_something_else_ends_the_run_in_one_line(
    base: str, server: dict[str, Any], says: str
) -> None:
    with serve(SamplingServer(base, **server)) as url, pytest.raises(TrainingStopped, match=says):
        run(base, "out", sampler=url)


def test_no_server_ends_the_run_in_one_line(base: str) -> None:
    with pytest.raises(TrainingStopped, match=r"--sampler http://127.0.0.1:9/v1/load_lora_adapter"):
        run(base, "out", sampler="http://127.0.0.1:9/v1")


def test_a_weight_is_the_ratio_up_to_the_largest() -> None:
    learning = torch.tensor([[-1.0, -2.0, 0.0], [-1.5, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    log_ratio, gap = compare(learning, mask, [[-1.0, -2.1], [-3.0]], Accelerator(cpu=True))
    assert gap == pytest.approx((0 + 0.1 + 1.5) / 3)
    expected = torch.tensor([[1.0, torch.e**0.1, 1.0], [LARGEST_WEIGHT, 1.0, 1.0]])
    assert torch.allclose(truncated_weight(log_ratio), expected)
    advantages, none = torch.tensor([2.0, -1.0]), object()
    by_token = grpo.Grpo.weigh(none, advantages, log_ratio)  # type: ignore[arg-type]
    assert torch.allclose(by_token, advantages[:, None] * expected)
    by_answer = grpo.Rloo.weigh(none, advantages, log_ratio)  # type: ignore[arg-type]
    assert torch.allclose(by_answer, torch.tensor([2 * torch.e**0.1, -LARGEST_WEIGHT]))


def test_a_server_needs_adapters_and_a_url() -> None:
    for url, lora in (("http://host:8000/v1", False), ("host:8000", True), ("http://user:secret@host/v1", True)):
        with pytest.raises(InputError, match="--sampler"):
            PpoOptions(reward=["f.py:g"], sampler=url).check(TrainOptions(model="base", lora=lora))
        with pytest.raises(InputError, match="--sampler"):
            GrpoOptions(reward=["f.py:g"], sampler=url).check(TrainOptions(model="base", lora=lora))
