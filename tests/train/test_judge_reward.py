"""A judge as reward: the points of `datagen judge`, no call paid twice, no invented score."""

from pathlib import Path

import pytest

from datagen.errors import InputError, Outage
from datagen.records.files import dump_line
from datagen.records.record import Record
from datagen_train import ppo
from datagen_train.policy_options import PpoOptions
from datagen_train.rewards.judge import TOGETHER, JudgeReward, group_by_prompt
from datagen_train.rewards.specs import Rewards, identity
from tests.jobs import perform, rows
from tests.judge.rows import answers_by_label
from tests.server import Message, Server, running
from tests.train.runs import train

SUMS = [Record(f"{n:016x}", f"A shop has {n} pears and buys 4 more. Compute {n} + 4.") for n in range(12)]
ANSWERS = [f"The answer is {n + 4 + (n % 3 == 0)}." for n in range(12)]


def score(spec: str, answers: list[str], records: list[Record]) -> list[float | None]:
    with Rewards([spec]) as rewards:
        return rewards.score(records, answers, [[1]] * len(records)).total


def by_length(model: str, messages: list[Message], sample: int, task: str) -> str:
    """Give as many points as an answer has letters."""
    return "\n".join(f"{label} helpful: {len(text)}" for label, text in answers_by_label(messages).items())


def test_the_points_are_those_of_the_command() -> None:
    from datagen.judges.score import Score

    samples = [{"prompt": row.prompt, "responses": [answer]} for row, answer in zip(SUMS, ANSWERS, strict=True)]
    Path("samples.jsonl").write_bytes(b"".join(map(dump_line, samples)))
    perform(Score, Path("samples.jsonl"), "sim", "ranked.jsonl", Score.options_type(allow_self=True))
    points = {(row["prompt"], row["responses"][0]): row["scores"][0] for row in rows("ranked.jsonl")}
    assert score("judge:sim", ANSWERS, SUMS) == [
        points[row.prompt, answer] for row, answer in zip(SUMS, ANSWERS, strict=True)
    ]
    assert len(set(points.values())) > 1


def test_answers_to_one_prompt_are_seen_together_and_each_gets_its_own_points() -> None:
    answers = [letter * (1 + at % 5) for at, letter in enumerate("abcdefghijklmnopqrst")]
    records = [SUMS[at % 2] for at in range(len(answers))]
    with running(Server(answer=by_length)) as server:
        spec = f"judge:m@{server.url}"
        assert score(spec, answers, records) == [len(answer) for answer in answers]
        assert server.requests == len(group_by_prompt(records)) == 4
        assert score(spec, answers, records) == [len(answer) for answer in answers]
        assert server.requests == 4, "what was judged before is recorded"
    assert max(map(len, group_by_prompt(records))) <= TOGETHER


def test_what_the_judge_does_not_say_is_no_score() -> None:
    def half(model: str, messages: list[Message], sample: int, task: str) -> str:
        return by_length(model, messages, sample, task) if "Compute 1 +" in str(messages) else "I like it."

    with running(Server(answer=half)) as server:
        assert score(f"judge:m@{server.url}", ["a", "b"], SUMS[:2]) == [None, 1]


def test_a_judge_that_cannot_be_reached_ends_the_run() -> None:
    with running(Server()) as server:
        gone = server.url
    with pytest.raises(Outage):
        score(f"judge:m@{gone}", ["a"], SUMS[:1])


@pytest.mark.parametrize(("spec", "says"), [("judge:taste=sim", "no such rubric"), ("judge:", "name a model")])
def test_a_judge_that_is_none_is_refused(spec: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Rewards([spec])


def test_another_rubric_is_another_run() -> None:
    plain, named, other = (JudgeReward(spec).judge_key for spec in ("sim", "helpful=sim", "honest=sim"))
    assert plain == named != other
    assert identity(["judge:sim"]) == [f"judge:sim {plain}"]


def test_ppo_learns_from_a_judge_and_says_that_nobody_checked_it(base: str, few: str) -> None:
    options = PpoOptions(reward=["judge:sim"], max_tokens=6)
    result = train(ppo, few, options, model=base, output="out", steps=2, batch_size=8, held_out=0.2, warmup=0.0)
    assert 0 <= result["end"]["eval_reward"] <= 5
    assert "unchecked" in result["checks"]["judge"]
    assert "accuracy against people: unchecked" in Path("out/README.md").read_text()
