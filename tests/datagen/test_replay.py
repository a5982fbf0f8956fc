"""Recorded replies as a model: looked up by prompt or by task, sample by sample; what is not recorded is refused."""

from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.llm.replay import load_replay
from datagen.llm.spec import parse_spec
from datagen.records.files import dump_line
from datagen.records.record import Row
from tests.jobs import digest, respond, rows


def record(*entries: Row) -> str:
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, entries)))
    return "replay:replies.jsonl"


def ask(*prompts: str) -> Path:
    Path("asked.jsonl").write_bytes(b"".join(dump_line({"prompt": prompt}) for prompt in prompts))
    return Path("asked.jsonl")


def test_replies_come_sample_by_sample() -> None:
    model = record({"prompt": "A?", "responses": ["one", "two"]}, {"prompt": "A?", "response": "three"})
    respond(ask("A?"), model, k=3)
    assert rows("out.jsonl")[0]["responses"] == ["one", "two", "three"]


def test_what_is_not_recorded_is_refused_and_says_so() -> None:
    outcome = respond(ask("A?", "B?"), record({"prompt": "A?", "responses": ["one"]}))
    assert outcome.status == "incomplete"
    (failed,) = rows("out.rejected.jsonl")
    assert failed["reason"] == "refused (HTTP 404)"
    assert failed["record"]["error"] == "replies.jsonl holds 0 replies to this 'answer', not number 1"


def test_a_line_with_a_task_answers_that_task_alone() -> None:
    model = record(
        {"prompt": "A?", "responses": ["So it is."]},
        {"task": "cot/extract", "fields": {"prompt": "A?"}, "responses": ["Answer: yes"]},
    )
    respond(ask("A?"), model, strategy="cot")
    assert rows("out.jsonl")[0]["meta"]["answer"] == "yes"


def test_a_line_may_say_which_sample_its_first_reply_is() -> None:
    model = record({"prompt": "A?", "sample": 1, "responses": ["two"]}, {"prompt": "B?", "response": "one"})
    respond(ask("A?", "B?"), model, k=2)
    errors = [row["record"]["error"] for row in rows("out.rejected.jsonl")]
    assert errors == [
        "replies.jsonl holds 1 replies to this 'answer', not number 1",
        "replies.jsonl holds 1 replies to this 'answer', not number 2",
    ]


def test_a_line_without_fields_answers_what_no_other_line_of_its_task_does() -> None:
    model = record(
        {"prompt": "A?", "response": "So it is."},
        {"prompt": "B?", "response": "So it is."},
        {"task": "cot/extract", "fields": {}, "responses": ["Answer: no"]},
        {"task": "cot/extract", "fields": {"prompt": "A?"}, "responses": ["Answer: yes"]},
    )
    respond(ask("A?", "B?"), model, strategy="cot")
    assert [row["meta"]["answer"] for row in rows("out.jsonl")] == ["yes", "no"]


def test_another_file_of_the_same_name_is_another_model() -> None:
    first = parse_spec(record({"prompt": "A?", "responses": ["one"]})).identity
    respond(ask("A?"), "replay:replies.jsonl", "one.jsonl")
    second = parse_spec(record({"prompt": "A?", "responses": ["two"]})).identity
    respond(ask("A?"), "replay:replies.jsonl", "two.jsonl")
    assert first != second and digest("one.jsonl") != digest("two.jsonl")
    assert rows("two.jsonl")[0]["response"] == "two"


BAD = (
    b"{",
    b"[1]",
    b'{"prompt": "A?"}',
    b'{"prompt": "A?", "responses": "one"}',
    b'{"prompt": 1, "responses": []}',
    b'{"prompt": "A?", "sample": "1", "responses": ["one"]}',
)


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_reported_with_its_place(line: bytes) -> None:
    Path("replies.jsonl").write_bytes(b'{"prompt": "A?", "responses": ["one"]}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"replies\.jsonl:2: "):
        load_replay(Path("replies.jsonl"))
