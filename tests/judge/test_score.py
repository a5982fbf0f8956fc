"""Scoring answers: points are added up, whatever the order; what cannot be read is no score."""

import math
import re
from pathlib import Path

import pytest

from datagen.commands.main import load_methods
from datagen.engine.job import open_job
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.judge.replies import expected_value
from datagen.llm.call import Completion
from datagen.records.record import Row
from tests.jobs import rows
from tests.judge.rows import answers_by_label, judge, judge_with, sample, write
from tests.server import Message, Server, running

METHODS = load_methods("judge")

FORM = re.compile(r"^(\w{3}) ([\w-]+): \(0 to (\d+)\)$", re.MULTILINE)


def by_length(answers: dict[str, str]) -> str:
    """Give as many points as an answer has letters."""
    return "\n".join(f"{label} helpful: {len(text)}" for label, text in answers.items())


def scores(row: Row) -> dict[str, float | None]:
    return dict(zip(row["responses"], row["scores"], strict=True))


def test_an_answer_gets_the_points_that_were_given_to_it() -> None:
    seen = set()

    def say(answers: dict[str, str]) -> str:
        seen.add(tuple(answers.values()))
        return by_length(answers)

    samples = [sample("a", "bb", "ccc", prompt=f"P{n}") for n in range(12)]
    for row in judge_with(say, samples, "score"):
        assert scores(row) == {"a": 1, "bb": 2, "ccc": 3} and row["ranks"] == [1, 2, 3]
    assert len(seen) > 2, "the answers stand in drawn order"


def test_there_is_a_point_for_each_statement_of_each_aspect_and_the_score_is_their_mean() -> None:
    lines: list[tuple[str, ...]] = []

    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        lines.extend(FORM.findall(messages[0]["content"]))
        first = next(iter(answers_by_label(messages)))
        return "\n".join(f"{label} {aspect}: {4 if label == first else 2}" for label, aspect, _ in lines)

    with running(Server(answer=say)) as server:
        judge([sample("a", "bb")], "score", f"judge@{server.url}", rubric=["helpful", "honest"])
    assert {aspect for _, aspect, _ in lines} == {"helpful", "honest"} and len(lines) == 4
    (row,) = rows("out.jsonl")
    assert row["scores"] == [4, 2]
    assert row["meta"]["responses"][0]["aspects"] == {"helpful": 4, "honest": 4}


def test_a_rubric_of_ones_own_gives_a_point_a_statement() -> None:
    Path("short.md").write_text(
        "---\nname: short\nsource: own\nintent: brevity\n---\n[user]\nIt is short.\nIt is clear.\n"
    )

    def say(answers: dict[str, str]) -> str:
        return "\n".join(f"{label} short: {2 if text == 'a' else 3}" for label, text in answers.items())

    (row,) = judge_with(say, [sample("a", "bb")], "score", rubric=["short.md"])
    assert row["scores"] == [None, None], "three points where two can be had are none"
    with pytest.raises(InputError, match="--rubric nice: no such rubric"):
        judge([sample("a", "b")], "score", rubric=["nice"])


@pytest.mark.parametrize("reply", ["I like both.", "K7B helpful: 3", "{label} helpful: 3", "{label} helpful: many"])
def test_what_cannot_be_read_whole_is_null_and_never_a_number(reply: str) -> None:
    (row,) = judge_with(lambda answers: reply.format(label=next(iter(answers))), [sample("a", "bb")], "score")
    assert row["scores"] == [None, None] and row["ranks"] == [1, 1] and row["meta"]["unread"] == 1
    assert row["meta"]["responses"][0]["aspects"] == {"helpful": None}


def test_samples_are_averaged_and_their_distance_is_reported() -> None:
    turns = iter((1, 5, 3))
    (row,) = judge_with(
        lambda answers: (lambda points: "\n".join(f"{label} helpful: {points}" for label in answers))(next(turns)),
        [sample("a", "bb")], "score", samples=3, concurrency="1",
    )  # fmt: skip
    assert row["scores"] == [3, 3] and row["meta"]["disagreement"] == 4


def test_the_reference_is_shown_and_wrong_answers_get_less() -> None:
    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        known = re.search(r"A reference answer:\n<<<\n(.*?)\n>>>", messages[-1]["content"])
        assert known
        answers = answers_by_label(messages)
        return "\n".join(f"{name} helpful: {5 * (text == known[1])}" for name, text in answers.items())

    with running(Server(answer=say)) as server:
        judge([sample("41", "42", answer="42")], "score", f"judge@{server.url}")
    assert scores(rows("out.jsonl")[0]) == {"42": 5, "41": 0}


def test_one_answer_can_be_scored() -> None:
    (row,) = judge_with(by_length, [sample("abc")], "score")
    assert row["scores"] == [3]


def reply(text: str, top: dict[str, float]) -> Completion:
    """A reply of three tokens, the second of which could have been another."""
    tokens = [text[:-3], text[-3:-1], text[-1:]]
    others = [{"token": token, "logprob": math.log(share)} for token, share in top.items()]
    content = [{"token": token, "top_logprobs": others if at == 1 else []} for at, token in enumerate(tokens)]
    return Completion(text, "", "stop", {}, {"content": content}, "m")


def test_a_score_is_the_expected_value_of_its_token() -> None:
    completion = reply("K7B helpful: 3\n", {" 3": 0.5, "3": 0.1, " 4": 0.2, " 9": 0.1, " no": 0.1})
    at = completion.text.index("3")
    assert expected_value(completion, at, 5) == pytest.approx((0.6 * 3 + 0.2 * 4) / 0.8)
    assert expected_value(completion, at, 2) is None
    assert expected_value(completion, at - 4, 5) is None, "no token begins there"
    assert expected_value(Completion(completion.text, "", "stop", {}, None, "m"), at, 5) is None


def test_expected_values_spread_where_points_are_equal() -> None:
    samples = [sample("Answer: 4", "Answer: 4.", "Answer: 5", prompt="Compute 2 + 2.")]
    judge(samples, "score", "sim:skill=0.8", logprobs=True)
    (row,) = rows("out.jsonl")
    assert any(score != int(score) for score in row["scores"])


def test_an_edited_rubric_is_another_judging() -> None:
    rubric = "---\nname: short\nsource: own\nintent: brevity\n---\n[user]\nIt is short.\n"
    path, fingerprints = write([sample("a", "bb")]), []
    for statement in ("", "", "It is clear.\n"):
        Path("short.md").write_text(rubric + statement)
        run = RunOptions(model=["sim"])
        with open_job(METHODS["score"], str(path), METHODS["score"].options_type(rubric=["short.md"]), run, {}) as job:
            fingerprints.append(job.fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
