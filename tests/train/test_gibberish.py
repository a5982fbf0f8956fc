"""A reward that pays for gibberish: the policy learns it, and the metrics and alarms show it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen_train import grpo, ppo
from datagen_train.policy_options import GrpoOptions, PpoOptions
from datagen_train.run.rollout import NGRAM, repetition
from datagen_train.tools.evaluate import load_trained
from tests.train.conftest import colour_rows
from tests.train.runs import Notes, metrics, train, train_line
from tests.train.tasks import write_rows
from tests.train.test_ppo import plain_log_probs

REWARDS = """
def of_vowels(prompts, completions, **_):
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]

def right(prompts, completions, response, **_):
    return [float(text.strip() == expected) for text, expected in zip(completions, response)]
"""
COUNTED = """
import os

def counted(prompts, completions, **_):
    assert prompts
    with open(os.environ["COUNTED"], "a") as file:
        file.writelines(f"{prompt}\\n" for prompt in prompts)
    return [float(len(text)) + len(prompt) / 7 for prompt, text in zip(prompts, completions)]
"""
RUN: dict[str, Any] = {"steps": 8, "log_every": 1, "held_out": 0.0, "warmup": 0.0, "output": "out"}
ALARMS = {"KL per token", "fluency"}


@pytest.fixture
def colours() -> str:
    """Questions that the model `taught` answers by heart."""
    Path("rewards.py").write_text(REWARDS)
    rows = [{"prompt": row.prompt, "response": row.response} for row in colour_rows()]
    return str(write_rows("colours.jsonl", rows * 6))


def ppo_settings(reward: str, **options: Any) -> PpoOptions:
    return PpoOptions(reward=[f"rewards.py:{reward}"], max_tokens=12, missing_end_penalty=0.0, **options)


def test_ppo_that_ends_in_gibberish_raises_alarms(taught: Path, colours: str) -> None:
    notes, options = Notes(), {**RUN, "batch_size": 32, "learning_rate": 2e-3}
    settings = ppo_settings("of_vowels", kl_coef=0.0)
    result = train(ppo, colours, settings, notes, model=str(taught), **options)
    lines = [line for line in metrics("out") if "fluency" in line]
    assert lines[-1]["reward"] > lines[0]["reward"] + 5, "it learned what it was paid for"
    assert lines[0]["fluency"] > -0.1
    assert lines[-1]["fluency"] < -3
    assert lines[-1]["repetition"] > lines[0]["repetition"] == 0
    assert result["alarms"].keys() >= ALARMS
    for name in ALARMS:
        assert sum(text.startswith(f"ALARM {name}, step ") for text in notes.messages) == 1
    card = Path("out/README.md").read_text()
    assert all(f"**Alarm: {name}, step " in card for name in ALARMS)


@pytest.mark.parametrize("algorithm", ["grpo", pytest.param("rloo", marks=pytest.mark.slow)])
def test_groups_that_end_in_gibberish_raise_alarms(taught: Path, colours: str, algorithm: str) -> None:
    settings = GrpoOptions(reward=["rewards.py:of_vowels"], algorithm=algorithm, max_tokens=12, kl_coef=0.001)
    options = {**RUN, "batch_size": 4, "learning_rate": 3e-3}
    result = train(grpo, colours, settings, model=str(taught), **options)
    assert result["alarms"].keys() >= ALARMS
    lines = [line for line in metrics("out") if "fluency" in line]
    assert len(lines) == RUN["steps"]
    assert lines[-1]["fluency"] < lines[0]["fluency"] - 3


def test_a_second_skill_is_measured_from_the_start_on_and_shown_where_it_is_lost(taught: Path, colours: str) -> None:
    """The policy is paid for vowels; that it no longer knows the colours is in metrics, curves and card."""
    notes, options = Notes(), {**RUN, "batch_size": 32, "learning_rate": 2e-3, "eval_data": colours, "generate": 3}
    settings = ppo_settings("of_vowels", kl_coef=0.0, also=colours)
    result = train(ppo, colours, settings, notes, model=str(taught), **{**options, "steps": 5, "eval_every": 5})
    assert "--also: 3 prompts of colours.jsonl are answered at every measurement" in notes.messages
    start, end = result["start"], result["end"]
    assert (start["eval_also_exact_match"], start["eval_also_rouge_l"]) == (1.0, 1.0)
    assert end["eval_reward"] > start["eval_reward"]
    assert end["eval_also_exact_match"] == end["eval_exact_match"] < 0.5, "its rows are those of --eval-data here"
    measured = [line["step"] for line in metrics("out") if "eval_also_exact_match" in line]
    assert measured == [0, 5]
    assert "eval_also_exact_match" in Path("out/run/curves.svg").read_text()
    card = Path("out/README.md").read_text()
    assert f"| also_exact_match | 1 | {end['eval_also_exact_match']:.4g} (worse) |" in card


@pytest.mark.parametrize(
    ("options", "also", "says"),
    [
        ({}, "rewards.jsonl", "--also: with --held-out 0 nothing is measured"),
        ({"eval_data": "colours.jsonl"}, "prompts.jsonl", "--also prompts.jsonl: no row has a prompt and a response"),
    ],
)
def test_a_second_skill_that_cannot_be_measured_is_refused(
    taught: Path, colours: str, options: dict[str, Any], also: str, says: str
) -> None:
    write_rows("prompts.jsonl", [{"prompt": "What colour is the sky?"}])
    with pytest.raises(InputError, match=says):
        train(ppo, colours, ppo_settings("right", also=also), model=str(taught), **RUN, **options)


@pytest.mark.slow
def test_of_two_processes_each_answers_and_scores_its_share(taught: Path, colours: str) -> None:
    """Seven held-out prompts and one of another skill: shares of different sizes, and an empty one."""
    with Path("rewards.py").open("a") as file:
        file.write(COUNTED)
    rows = [{"prompt": row.prompt, "response": row.response} for row in colour_rows()]
    write_rows("held_out.jsonl", [*rows, {"prompt": "What colour is the moon?", "response": "blue"}])
    write_rows("also.jsonl", rows[:1])
    arguments = f"{colours} --reward rewards.py:counted --max-tokens 6 --eval-data held_out.jsonl --also also.jsonl"
    arguments += f" --steps 2 --eval-every 1 --warmup 0 --model {taught} --log-every 1"
    lines, counts = {}, {}
    for processes in (1, 2):
        name = f"of-{processes}"
        line = f"ppo {arguments} --batch-size {8 // processes} -o {name}"
        train_line(line, processes, COUNTED=name + ".txt")
        lines[processes] = [line for line in metrics(name) if "eval_reward" in line]
        counts[processes] = sorted(Path(name + ".txt").read_text().splitlines())
    assert counts[1].count("What colour is the moon?") == counts[2].count("What colour is the moon?") == 4
    assert len(counts[1]) == len(counts[2]) == 4 * 7 + 2 * 8, "four measurements, two steps"
    assert len(lines[1]) == len(lines[2])
    for one, two in zip(lines[1], lines[2], strict=True):
        assert one.keys() == two.keys()
        assert {"eval_exact_match", "eval_also_exact_match"} <= one.keys()
    assert lines[2][0] == pytest.approx(lines[1][0], rel=1e-6), "before the first step"


def test_a_run_that_stays_what_it_was_raises_none(taught: Path, colours: str) -> None:
    options = {**RUN, "steps": 6, "batch_size": 16, "learning_rate": 1e-4}
    result = train(ppo, colours, ppo_settings("right"), model=str(taught), **options)
    assert result["alarms"] == {}
    assert "Alarm" not in Path("out/README.md").read_text()


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_fluency_is_the_mean_log_probability_under_the_start(
    base: str, few: str, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second iteration, where the policy is no longer the start; computed again, answer by answer."""
    sampled: list[dict[str, Any]] = []
    trainer = grpo.Rloo if algorithm == "rloo" else grpo.Grpo
    reference_log_prob: Any = trainer.reference_log_prob

    def keep(self: Any, output: dict[str, Any]) -> Any:
        sampled.append({name: tensor.clone() for name, tensor in output.items()})
        return reference_log_prob(self, output)

    monkeypatch.setattr(trainer, "reference_log_prob", keep)
    Path("rewards.py").write_text(REWARDS)
    settings = GrpoOptions(reward=["rewards.py:of_vowels"], algorithm=algorithm, max_tokens=6, group_size=4)
    train(grpo, few, settings, model=base, **{**RUN, "steps": 2, "batch_size": 4, "learning_rate": 1e-2})
    start, log_prob, tokens = load_trained(base, "float32").model, 0.0, 0
    for prompt, mask, answer, ends in zip(
        *(sampled[1][f"{side}_{kind}"] for side in ("prompt", "completion") for kind in ("ids", "mask")), strict=True
    ):
        ids = answer[ends.bool()].tolist()
        log_probs, _ = plain_log_probs(start, prompt[mask.bool()].tolist(), ids)
        log_prob, tokens = log_prob + float(log_probs.detach().sum()), tokens + len(ids)
    line = [line for line in metrics("out") if "fluency" in line][1]
    assert line["fluency"] == pytest.approx(log_prob / tokens, abs=1e-3)


ANSWERS = st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=5)


@given(ANSWERS)
def test_repetition_is_0_without_a_repeated_ngram_and_below_1(answers: list[list[int]]) -> None:
    share = repetition(answers)
    assert 0 <= share < 1
    numbered = [[4 * place + token for place, token in enumerate(ids)] for ids in answers]
    assert repetition(numbered) == 0, "no token occurs twice"
    assert repetition(answers[::-1]) == pytest.approx(share), "the order of answers does not matter"


def test_repetition_is_that_of_the_paper() -> None:
    assert repetition([[7] * 12]) == pytest.approx(1 - 1 / 9)
    assert repetition([[1, 2, 3, 4, 5] * 2]) == pytest.approx(1 - 5 / 7)
    assert repetition([[7] * 12, list(range(12)), [7] * (NGRAM - 1)]) == pytest.approx((1 - 1 / 9) / 2)
    assert repetition([[1], []]) == 0
