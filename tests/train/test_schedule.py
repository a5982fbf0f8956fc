"""The learning rate: above 0 at every step that is taken, and at its peak in one of them."""

from itertools import pairwise

import pytest

from datagen_train import sft
from datagen_train.grpo import Grpo, Rloo
from datagen_train.options import SCHEDULES
from datagen_train.ppo import Ppo
from datagen_train.reward import RewardTrainer
from datagen_train.run.schedule import Scheduled, rate_factor, warmup_steps
from datagen_train.run.trl_adapter import Dpo, Kto, Sft
from tests.train.runs import metrics, train


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step_learns_and_one_has_the_peak_rate(schedule: str, share: float) -> None:
    for steps in range(1, 51):
        warmup = warmup_steps(share, steps)
        rates = [rate_factor(step, schedule, warmup, steps) for step in range(steps)]
        assert min(rates) > 0
        assert max(rates) == rates[warmup] == 1
        assert all(earlier < later for earlier, later in pairwise(rates[: warmup + 1])), "the warm-up rises"
        assert all(earlier >= later for earlier, later in pairwise(rates[warmup:])), "nothing rises after it"
        if schedule != "constant_with_warmup":
            assert rate_factor(steps, schedule, warmup, steps) == pytest.approx(0), "0 is reached after the last step"


@pytest.mark.parametrize("trainer", [Sft, Dpo, Kto, RewardTrainer, Ppo, Grpo, Rloo])
def test_every_trainer_has_this_schedule(trainer: type[Scheduled]) -> None:
    assert trainer.create_scheduler is Scheduled.create_scheduler


def test_the_first_step_of_a_short_run_learns(few: str) -> None:
    train(sft, few, output="out", steps=4, learning_rate=8e-3, log_every=1, eval_every=1, held_out=0.2)
    lines = metrics("out")
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == pytest.approx([4e-3, 8e-3, 6e-3, 2e-3])
    start, first = [line["eval_loss"] for line in lines if "eval_loss" in line][:2]
    assert first < start
