"""PPO resumes as if it had not been interrupted; gradient accumulation and checkpointing change nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaMLP

from datagen.errors import InputError
from datagen_train import ppo
from datagen_train.policy_options import PpoOptions
from datagen_train.tools.evaluate import load_trained
from tests.train.runs import Notes, metrics, train, train_line

REWARD = """
def of_length(prompts, completions, completion_ids, **_):
    return [float(len(ids)) for ids in completion_ids]
"""
RUN: dict[str, Any] = {
    "steps": 8, "batch_size": 8, "log_every": 1, "held_out": 0.1, "warmup": 0.0, "eval_every": 2, "save_every": 2,
}  # fmt: skip


def ppo_options(**options: Any) -> PpoOptions:
    """Return options with adaptive parts: the KL controller, reward scaling, a critic."""
    Path("rewards.py").write_text(REWARD)
    settings = {"max_tokens": 6, "ppo_epochs": 2, "adaptive_kl": 0.5, "kl_horizon": 50, "scale_reward": True}
    return PpoOptions(**{"reward": ["rewards.py:of_length"], **settings, **options})


class FailingPpo(ppo.Ppo):
    """Raises an error in the middle of its seventh iteration."""

    def update_policy(self, *arguments: Any) -> dict[str, float]:
        if arguments[-1] == 7:
            raise ConnectionError("the lights went out")
        return super().update_policy(*arguments)


@pytest.mark.parametrize("lora", [False, True])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    base: str, few: str, monkeypatch: pytest.MonkeyPatch, lora: bool
) -> None:
    options: dict[str, Any] = {**RUN, "model": base, "lora": lora, "log_every": 3, "eval_every": 4, "save_every": 4}
    undisturbed = train(ppo, few, ppo_options(), output="whole", **options)
    with monkeypatch.context() as broken:
        broken.setattr(ppo, "Ppo", FailingPpo)
        with pytest.raises(ConnectionError):
            train(ppo, few, ppo_options(), output="again", **options)
    notes = Notes()
    again = train(ppo, few, ppo_options(), notes, output="again", **options)
    assert "Going on from step 4" in notes.messages
    assert metrics("again") == metrics("whole")
    assert again == undisturbed
    for name in ("run/samples.jsonl", "value/value_head.safetensors"):
        assert Path("again", name).read_bytes() == Path("whole", name).read_bytes()
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    assert Path("again", weights).read_bytes() == Path("whole", weights).read_bytes()
    coefs = [line["kl_coef"] for line in metrics("whole") if "kl_coef" in line]
    assert len(set(coefs)) == len(coefs) > 1, "the controller has adapted"


def test_recomputing_activations_saves_them_and_changes_nothing(
    base: str, few: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"plain": 0, "recomputed": 0}
    forward = LlamaMLP.forward
    for name, checkpointing in (("plain", False), ("recomputed", True)):

        def counted(self: Any, *args: Any, name: str = name, **kwargs: Any) -> Any:
            calls[name] += torch.is_grad_enabled()
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(LlamaMLP, "forward", counted)
        train(ppo, few, ppo_options(), model=base, output=name, checkpointing=checkpointing, **{**RUN, "steps": 2})
    assert calls["recomputed"] == 2 * calls["plain"] > 0
    plain, recomputed = (load_trained(name, "float32").model.state_dict() for name in calls)
    assert all(torch.allclose(plain[name], recomputed[name], atol=1e-5) for name in plain)


def test_dropout_in_adapters_is_refused(base: str, few: str) -> None:
    with pytest.raises(InputError, match="trained without dropout"):
        train(ppo, few, ppo_options(), model=base, output="out", lora=True, lora_dropout=0.1, **RUN)


def test_the_saved_critic_is_where_another_run_begins(base: str, few: str) -> None:
    """A value head alone is reported; a critic with its own trunk continues."""
    train(ppo, few, ppo_options(critic=base), model=base, output="first", **{**RUN, "steps": 2})
    notes = Notes()
    train(ppo, few, ppo_options(critic="first/value"), notes, model="first", output="second", **{**RUN, "steps": 1})
    assert "critic: first/value" in notes.messages
    train(ppo, few, ppo_options(critic="shared"), model=base, output="third", **{**RUN, "steps": 1})
    with pytest.raises(InputError, match="a value head without a trunk"):
        train(ppo, few, ppo_options(critic="third/value"), model=base, output="fourth", **RUN)


@pytest.mark.slow
def test_two_processes_learn_as_one_policy_with_one_coefficient(base: str, few: str) -> None:
    """It adapts to the answers of both processes, as in one process with twice the rows."""
    ppo_options()
    train_line(
        f"ppo {few} --model {base} --reward rewards.py:of_length --batch-size 8 --steps 3 --log-every 1 --max-tokens 6 "
        "--adaptive-kl 0.5 --kl-horizon 50 --scale-reward --warmup 0 -o two",
        2,
    )
    train(ppo, few, ppo_options(ppo_epochs=4), model=base, output="one", **{**RUN, "steps": 3, "batch_size": 16})
    two, one = ([line for line in metrics(name) if "kl_coef" in line] for name in ("two", "one"))
    assert [line["kl_coef"] for line in two] == pytest.approx([line["kl_coef"] for line in one], rel=1e-3)


def test_a_reward_that_wants_the_wrong_thing_is_reported(base: str, few: str) -> None:
    """The reward is the length alone: it rises while the share of right answers falls."""
    notes = Notes()
    result = train(
        ppo, few, ppo_options(), notes, model=base, output="out", **{**RUN, "steps": 12, "learning_rate": 2e-3}
    )
    assert result["end"]["eval_reward"] > result["start"]["eval_reward"]
    assert result["end"]["eval_exact_match"] < result["start"]["eval_exact_match"]
    assert "while exact match fell" in result["alarms"]["over-optimisation"]
    assert any(text.startswith("ALARM over-optimisation") for text in notes.messages)
