"""PPO whose answers a server samples: the same answers, weights near 1, and no server is trusted."""

from pathlib import Path
from typing import Any

import pytest
import torch

from datagen.errors import InputError
from datagen.llm.local.generation import Generated
from datagen_train import ppo
from datagen_train.errors import TrainingStopped
from datagen_train.options import TrainOptions
from datagen_train.policy_options import PpoOptions
from datagen_train.run.rollout import Rollout
from datagen_train.run.sampler import LARGEST_WEIGHT, weigh
from tests.train.runs import Notes, metrics, train
from tests.train.sampling_server import SamplingServer, serve
from tests.train.tasks import problems, write_sft

REWARD = "def short(prompts, completion_ids, **_): return [-float(len(ids)) for ids in completion_ids]"
SHORT: dict[str, Any] = {
    "steps": 3, "batch_size": 8, "log_every": 1, "held_out": 0.1, "lora": True, "learning_rate": 1e-3, "seed": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def task() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:60])
    Path("rewards.py").write_text(REWARD)


def run(
    base: str, output: str, notes: Notes | None = None, sampler: str | None = None, **options: Any
) -> dict[str, Any]:
    algorithm = PpoOptions(reward=["rewards.py:short"], max_tokens=6, sampler=sampler, **options)
    return train(ppo, "sums.jsonl", algorithm, notes, model=base, output=output, **SHORT)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "suppress": ["5"]}], ids=["plain", "bent"])
def test_a_server_samples_what_the_policy_would(base: str, options: dict[str, Any]) -> None:
    """The seeds are the same, so the answers are, and the weights are those of an ordinary run but for rounding."""
    run(base, "local", **options)
    server = SamplingServer(base, faults=1)
    with serve(server) as url:
        run(base, "served", sampler=url, **options)
    local, served = ([line for line in metrics(folder) if "loss" in line] for folder in ("local", "served"))
    assert len(local) == len(served) == SHORT["steps"]
    for one, other in zip(local, served, strict=True):
        assert other.pop("sampler_gap") < 1e-4
        assert other == pytest.approx(one, abs=1e-3)
    paths = [path for path, _ in server.requests]
    assert paths.count("/v1/unload_lora_adapter") == SHORT["steps"]
    assert not server.adapters, "the server holds adapters of a run that has ended"
    assert not Path("served/run/sampler").exists()
    sent = [body for path, body in server.requests if path == "/v1/completions"]
    assert all(isinstance(token, int) for body in sent for token in body["prompt"])


def test_the_gap_shows_a_server_that_keeps_old_adapters(base: str) -> None:
    with serve(SamplingServer(base, keeps_first=True)) as url:
        run(base, "out", sampler=url)
    gaps = [line["sampler_gap"] for line in metrics("out") if "sampler_gap" in line]
    assert gaps[0] < 1e-4 < 1e-3 < gaps[-1]


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


def rollout(log_probs: list[list[float]], mask: list[list[bool]]) -> Rollout:
    values = torch.tensor(log_probs)
    answers = [Generated("", [1] * sum(row), "stop") for row in mask]
    return Rollout([], [], answers, torch.tensor(mask), values, values, values, values, torch.ones_like(values))


def test_a_weight_is_the_ratio_up_to_the_largest() -> None:
    learning = rollout([[-1.0, -2.0, 0.0], [-1.5, 0.0, 0.0]], [[True, True, False], [True, False, False]])
    gap = weigh(learning, [[-1.0, -2.1], [-3.0]])["sampler_gap"]
    assert gap == pytest.approx((0 + 0.1 + 1.5) / 3)
    expected = torch.tensor([[1.0, torch.e**0.1, 1.0], [LARGEST_WEIGHT, 1.0, 1.0]])
    assert torch.allclose(learning.weights, expected)


def test_a_server_needs_adapters_and_a_url() -> None:
    for url, lora in (("http://host:8000/v1", False), ("host:8000", True), ("http://user:secret@host/v1", True)):
        with pytest.raises(InputError, match="--sampler"):
            PpoOptions(reward=["f.py:g"], sampler=url).check(TrainOptions(model="base", lora=lora))
