"""Scoring answers: points are added up, whatever the order; what cannot be read is no score."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.engine.job import open_job
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.judges.replies import expected_value
from datagen.llm.call import Completion, read_logprobs
from datagen.records.record import Row
from tests.jobs import rows
from tests.judge.rows import answers_by_label, judge, judge_with, sample, write
from tests.server import Message, Server, running

METHODS = load_methods("judge")


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


def form_in(messages: list[Message]) -> Row:
    """Return the form of a reply in a request for several aspects."""
    line = next(line for line in messages[0]["content"].splitlines() if line.startswith('{"reasons"'))
    form: Row = json.loads(line)
    return form


def json_points(messages: list[Message]) -> Row:
    """Give the first answer 4 points under each aspect, and the others 2."""
    form, first = form_in(messages), next(iter(answers_by_label(messages)))
    for answer in form["answers"]:
        answer["points"] = dict.fromkeys(answer["points"], 4 if answer["answer"] == first else 2)
    return form


def as_lines(form: Row) -> str:
    return "\n".join(
        f"{one['answer']} {aspect}: {points}" for one in form["answers"] for aspect, points in one["points"].items()
    )


REPLIES: dict[str, Callable[[Row], str]] = {
    "as it was asked for": json.dumps,
    "fenced": lambda form: f"Sure:\n```json\n{json.dumps(form, indent=2)}\n```",
    "texts for numbers": lambda form: re.sub(r": (\d)", r': "\1"', json.dumps(form)),
    "single quotes": str,
    "small letters, in another order": lambda form: json.dumps(
        {**form, "answers": [{**one, "answer": one["answer"].lower()} for one in reversed(form["answers"])]}
    ),
    "a change of mind": lambda form: f"{json.dumps({**form, 'answers': []})}\nNo:\n{json.dumps(form)}",
    "lines": as_lines,
}


@pytest.mark.parametrize("name", REPLIES)
def test_points_under_several_aspects_are_json_and_the_score_is_their_mean(name: str) -> None:
    requests: list[Row] = []
    with running(
        Server(answer=lambda _, messages, *rest: REPLIES[name](json_points(messages)), refuse=requests.append)
    ) as server:
        judge([sample("a", "bb")], "score", f"judge@{server.url}", rubric=["helpful", "honest"])
    (row,) = rows("out.jsonl")
    assert row["scores"] == [4, 2]
    assert row["meta"]["responses"][0]["aspects"] == {"helpful": 4, "honest": 4}
    (request,) = requests
    form = request["response_format"]["json_schema"]
    assert form["strict"] and form["schema"]["required"] == ["reasons", "answers"]
    labels = [answer["answer"] for answer in form_in(request["messages"])["answers"]]
    assert not [label for label in labels if label in json.dumps(form)], "the schema is the same for all calls"


@pytest.mark.parametrize(
    "broken",
    [
        lambda form: form["answers"].pop(),
        lambda form: form["answers"][0]["points"].pop("honest"),
        lambda form: form["answers"][0]["points"].update(honest=6),
        lambda form: form["answers"][0]["points"].update(honest="4/10"),
        lambda form: form["answers"][0].update(answer="X9X"),
        lambda form: form["answers"][0]["points"].update(honest=None),
    ],
)
def test_json_without_all_points_is_unread(broken: Callable[[Row], object]) -> None:
    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        form = json_points(messages)
        broken(form)
        return json.dumps(form)

    with running(Server(answer=say)) as server:
        outcome = judge([sample("a", "bb")], "score", f"judge@{server.url}", rubric=["helpful", "honest"])
    assert rows("out.jsonl") == []
    assert outcome.result["funnel"]["unobtained"]["unread replies"] == {"asked": 1, "missing": 1}


@pytest.mark.parametrize("options", [{}, {"logprobs": True}])
def test_sim_scores_several_aspects(options: dict[str, Any]) -> None:
    samples = [sample("Answer: 4", "Answer: 5", prompt="Compute 2 + 2.")]
    judge(samples, "score", "sim", rubric=["helpful", "honest"], **options)
    (row,) = rows("out.jsonl")
    assert row["responses"][0] == "Answer: 4" and row["scores"][0] > row["scores"][1]
    assert row["meta"]["templates"][0]["name"] == ("judge/score" if options else "judge/aspects")


def test_a_rubric_of_ones_own_gives_a_point_a_statement() -> None:
    Path("short.md").write_text(
        "---\nname: short\nsource: own\nintent: brevity\n---\n[user]\nIt is short.\nIt is clear.\n"
    )

    def say(answers: dict[str, str]) -> str:
        return "\n".join(f"{label} short: {2 if text == 'a' else 3}" for label, text in answers.items())

    assert judge_with(say, [sample("a", "bb")], "score", rubric=["short.md"]) == []
    assert rows("out.rejected.jsonl")[0]["reason"] == "judge_unparsed", "three points where two can be had are none"
    with pytest.raises(InputError, match="--rubric nice: no such rubric"):
        judge([sample("a", "b")], "score", rubric=["nice"])


def test_the_name_of_a_rubrics_file_stands_in_the_form_as_a_word() -> None:
    Path("My own_rubric (v2).md").write_text("[system]\nIt is short.\nIt is clear.\n")

    def say(answers: dict[str, str]) -> str:
        return "\n".join(f"{label} my-own-rubric-v2: {len(text)}" for label, text in answers.items())

    (row,) = judge_with(say, [sample("a", "bb")], "score", rubric=["My own_rubric (v2).md"])
    assert row["scores"] == [2, 1] and row["meta"]["responses"][0]["aspects"] == {"my-own-rubric-v2": 2}


def test_two_rubrics_of_one_name_and_an_empty_one_are_refused() -> None:
    for name in ("a b.md", "a-b.md"):
        Path(name).write_text("[system]\nIt is short.\n")
    Path("none.md").write_text("[system]\n\n")
    for rubric, problem in ((["a b.md", "a-b.md"], "another one is called a-b"), (["none.md"], "no statement in it")):
        with pytest.raises(InputError, match=problem):
            judge([sample("a", "b")], "score", rubric=rubric)


@pytest.mark.parametrize("reply", ["I like both.", "K7B helpful: 3", "{label} helpful: 3", "{label} helpful: many"])
def test_what_cannot_be_read_whole_is_never_a_number(reply: str) -> None:
    assert judge_with(lambda answers: reply.format(label=next(iter(answers))), [sample("a", "bb")], "score") == []
    (row,) = rows("out.rejected.jsonl")
    assert row["reason"] == "judge_unparsed" and row["meta"]["unread"] == 1
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
    return Completion(text, "", "stop", {}, read_logprobs({"content": content}), "m")


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
