"""Conversations with a simulated user: every turn is an answer of the strategy, paid for once, whatever comes first."""

import json
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError, ParseError
from datagen.llm.sim.think import reasoning_of
from datagen.prompts import Prompts
from datagen.records.files import dump_line, open_input
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, Row
from datagen.strategies.conversation import read_message, transcript
from tests.jobs import digest, respond, rows, write_seeds
from tests.server import Server, running
from tests.sim_server import play_sim

Message = dict[str, str]


def openings(count: int, path: str = "openings.jsonl") -> Path:
    """Write requests in two languages, sums with their answers among them."""
    texts = [(f"Compute {n} * 3 + 4.", str(3 * n + 4)) for n in range(2, count)]
    texts[::3] = [(f"介绍第{n}出京剧。", "") for n in range(len(texts[::3]))]
    lines = ({"prompt": text, **({"answer": answer} if answer else {})} for text, answer in texts)
    Path(path).write_bytes(b"".join(map(dump_line, lines)))
    return Path(path)


def roles_of(row: Row) -> list[str]:
    return [message["role"] for message in row["prompt"]]


def write(*lines: Row) -> Path:
    Path("rows.jsonl").write_bytes(b"".join(map(dump_line, lines)))
    return Path("rows.jsonl")


def test_user_and_assistant_take_turns_until_the_user_ends_the_conversation() -> None:
    respond(openings(30), "sim", turns=4)
    ends = Counter(row["meta"]["ended"] for row in rows("out.jsonl"))
    assert ends.keys() == {"user", "turns"}
    for row in rows("out.jsonl"):
        meta = row["meta"]
        assert roles_of(row) == ["user", *(["assistant", "user"] * (meta["turns"] - 1))]
        assert meta["turns"] == 4 or meta["ended"] == "user"
        assert row["response"] and "[end]" not in json.dumps(row["prompt"])
        language = ".zh" if row["prompt"][0]["content"].startswith("介") else ""
        for key in ("persona", "goal"):
            texts = [message["content"] for message in Prompts()[f"user/{key}s{language}"].render().messages]
            assert meta[key] in texts
        assert meta["templates"][-1]["digest"] == Prompts()[f"user/turn{language}"].digest


@pytest.mark.parametrize("strategy", ["direct", "cot", "vote"])
def test_rows_do_not_depend_on_concurrency_or_on_what_was_paid_before(strategy: str) -> None:
    path = openings(12)
    for name, concurrency in (("a", "1"), ("b", "256"), ("b", "16")):
        settings: dict[str, Any] = {"turns": 3, "concurrency": concurrency, "overwrite": True}
        respond(path, "sim:skill=0.7,refuse=0.05", f"{name}/out.jsonl", strategy=strategy, **settings)
    assert digest("a/out.jsonl") == digest("b/out.jsonl")
    respond(path, "sim:skill=0.7,refuse=0.05", "c/out.jsonl", strategy=strategy, turns=3, max_calls=1000)
    for cap in (20, 60, 1000):
        respond(path, "sim:skill=0.7,refuse=0.05", "d/out.jsonl", strategy=strategy, turns=3, max_calls=cap)
    assert digest("c/out.jsonl") == digest("d/out.jsonl")


def test_more_turns_go_on_from_those_that_are_paid_for() -> None:
    path = openings(20)
    short = respond(path, "sim", turns=2)
    longer, whole = respond(path, "sim", turns=4, overwrite=True), respond(path, "sim", "whole/out.jsonl", turns=4)
    assert longer.run["requests"] == whole.run["requests"] - short.run["requests"]
    assert digest("out.jsonl") == digest("whole/out.jsonl")


def test_what_the_user_costs_stands_apart_and_the_teacher_plays_it_if_nobody_else_does() -> None:
    path = openings(10)
    outcome = respond(path, "sim", turns=3)
    calls = {part["role"]: part["calls"] for part in outcome.result["spending"]}
    assert calls["teacher"] == sum(row["meta"]["turns"] for row in rows("out.jsonl"))
    ended = sum(row["meta"]["ended"] == "user" for row in rows("out.jsonl"))
    assert calls["user"] == calls["teacher"] - 8 + ended
    for flags, user in (("--teacher sim:skill=0.5", "0.5"), ("--teacher sim:skill=0.5 --user sim:skill=0.9", "0.9")):
        ran = datagen("respond", str(path), "--turns", "2", *flags.split(), "-o", "cli.jsonl", "--overwrite")
        assert ran.returncode == 0 and "No model is named" not in ran.stderr, ran.stderr
        names = {(row["meta"]["model"], row["meta"]["user"]) for row in rows("cli.jsonl")}
        assert names == {("sim:skill=0.5/1", f"sim:skill={user}/1")}


def test_persona_and_goal_of_the_row_are_played() -> None:
    seen: list[str] = []

    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        seen.extend(message["content"] for message in messages if task == "user/turn")
        return play_sim(model, messages, sample, task)

    with running(Server(answer=answer)) as server:
        row = {"prompt": "Name a river.", "persona": "a ferryman", "goal": "to be told of a second one"}
        respond(write(row), f"m@{server.url}", turns=2)
    assert "Who you are: a ferryman\nWhat you want from this conversation: to be told of a second one" in seen[0]
    assert "[user]\nName a river.\n\n[assistant]\nThis concerns" in seen[1]
    assert {key: rows("out.jsonl")[0]["meta"][key] for key in ("persona", "goal")} == {k: row[k] for k in list(row)[1:]}


def long_ones(request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    return (400, {"error": {"message": "context length exceeded"}}) if len(request["messages"]) > 3 else None


def test_a_refused_turn_ends_the_conversation_before_it_and_is_counted() -> None:
    with running(Server(answer=lambda *_: "Go on, I say.", refuse=long_ones)) as server:
        outcome = respond(write_seeds(3), f"m@{server.url}", turns=5)
        again = respond(write_seeds(3), f"m@{server.url}", turns=5)
    for row in rows("out.jsonl"):
        assert (row["meta"]["turns"], row["meta"]["ended"]) == (2, "refused (HTTP 400)")
        assert roles_of(row) == ["user", "assistant", "user"]
    assert outcome.result["funnel"]["unobtained"] == {"failed turns": {"asked": 9, "missing": 3}}
    assert (outcome.status, again.result["funnel"]["kept"]) == ("finished", 3)


def test_a_rejected_turn_ends_the_conversation_and_a_first_one_rejects_the_row() -> None:
    respond(openings(40), "sim:skill=0.5", strategy="vote", k=5, turns=3)
    kept, dropped = rows("out.jsonl"), rows("out.rejected.jsonl")
    assert {row["reason"] for row in dropped} == {"no_agreement"}
    assert {row["meta"]["turns"] for row in dropped} == {0}
    assert {"user", "turns", "no_agreement"} == {row["meta"]["ended"] for row in kept}
    assert len({tuple(row["meta"]) for row in [*kept, *dropped]}) == 1


def test_a_turn_that_may_come_next_time_fails_the_row_and_the_same_command_goes_on_from_it() -> None:
    silent = {"now": True}

    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        if task == "user/turn":
            return "Which one is longer?"
        return "" if silent["now"] and len(messages) > 1 else "The Rhine, I think."

    with running(Server(answer=answer)) as server:
        outcome = respond(write({"prompt": "Name a river."}), f"m@{server.url}", turns=2)
        assert outcome.result["funnel"]["failed"] == {"empty answer": 1}
        (failure,) = rows("out.rejected.jsonl")
        assert failure["record"]["prompt"][-1]["content"] == "Which one is longer?"
        silent["now"], sent = False, server.requests
        assert respond(Path("rows.jsonl"), f"m@{server.url}", turns=2).status == "finished"
        assert server.requests == sent + 1
    assert rows("out.jsonl")[0]["meta"]["turns"] == 2


def test_a_known_answer_checks_the_first_turn_and_is_not_said_of_a_later_one() -> None:
    outcome = respond(openings(40), "sim:skill=0.6", strategy="cot", verify=["answer"], turns=2)
    assert outcome.result["funnel"]["rejected"].keys() == {"wrong_answer"}
    unverified = outcome.result["funnel"]["unobtained"]["unverified answers"]
    assert unverified == {"asked": 38, "missing": 13}  # the Chinese ones have no known answer
    sums = [row for row in rows("out.jsonl") if row["prompt"][0]["content"].startswith("Compute")]
    assert {("answer" in row, row["meta"]["turns"]) for row in sums} == {(True, 1), (False, 2)}


def test_a_call_of_a_tool_ends_the_conversation() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    row = {"prompt": "Is it wet?", "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}]}
    with running(Server(answer=lambda *_: {"content": "", "tool_calls": [call]})) as server:
        respond(write(row), f"m@{server.url}", turns=3)
    (written,) = rows("out.jsonl")
    assert (written["meta"]["ended"], written["tool_calls"][0]["function"]["name"]) == ("tool_calls", "weather")


def test_reasoning_stands_with_each_turn_as_the_option_says() -> None:
    path = openings(12)
    for choice in ("keep", "drop"):
        respond(path, "sim:think=1", f"{choice}.jsonl", turns=3, reasoning=choice)
    for row, dropped in zip(rows("keep.jsonl"), rows("drop.jsonl"), strict=True):
        for turn in (turn for turn in row["prompt"] if turn["role"] == "assistant"):
            assert turn["reasoning_content"] == reasoning_of(turn["content"])
        assert row["id"] == dropped["id"] and "reasoning" not in json.dumps(dropped["prompt"])
    respond(path, "sim:think=0.6", "only.jsonl", turns=3, reasoning="only")
    kept = rows("only.jsonl")
    assert kept and len(kept) < 10
    assert all(turn.get("reasoning_content") for row in kept for turn in row["prompt"] if turn["role"] == "assistant")


def test_the_rows_are_conversations_for_training_and_for_other_tools() -> None:
    respond(openings(10), "sim", turns=3)
    with open_input("out.jsonl") as file:
        records = list(Reader("out.jsonl", file, PROMPTS).read())
    for record, written in zip(records, rows("out.jsonl"), strict=True):
        assert isinstance(record, Record) and record.messages[:-1] == written["prompt"]
        assert record.messages[-1]["content"] == written["response"]
    assert datagen("convert", "out.jsonl", "--to", "openai", "-o", "other.jsonl").returncode == 0
    turns = [len(json.loads(line)["messages"]) for line in Path("other.jsonl").read_text().splitlines()]
    assert turns == [2 * row["meta"]["turns"] for row in rows("out.jsonl")]


def test_what_makes_no_conversation_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InputError, match="-k 2 --turns 2: a conversation goes on from one answer"):
        respond(openings(3), "sim", k=2, turns=2)
    for flags, message in (
        ("--strategy rft --turns 2", "--turns: respond --strategy rft does not take it; only direct, cot, vote can"),
        ("--strategy tree --user sim", "--user: with these options, respond tree asks no such model"),
        ("--user sim", "--user: with these options, respond direct asks no such model"),
    ):
        ran = datagen("respond", "openings.jsonl", *flags.split(), "--model", "sim")
        assert (ran.returncode, ran.stderr) == (2, f"error: {message}\n")


def datagen(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "datagen", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("Why is that?", "Why is that?"),
        ("[user]\nWhy is that?", "Why is that?"),
        ("User: why?", "why?"),
        ("用户：为什么？", "为什么？"),
        ("User accounts: how do I close one?", "User accounts: how do I close one?"),
        ("[end]", None),
        ("**[END]**", None),
        ("Thank you, that is all. [end]", None),
        ("好的。[end]。", None),
    ],
)
def test_a_reply_of_the_user_is_a_message_or_the_end(reply: str, message: str | None) -> None:
    assert read_message(reply) == message


@pytest.mark.parametrize(
    "reply",
    ["[user]", "Why?\n[assistant]\nBecause.", "Why?\nAssistant: because.", "How can I help you?", "As an AI language "
     "model I cannot say.", "Here is my question:"],
)  # fmt: skip
def test_a_reply_in_the_words_of_the_assistant_is_none(reply: str) -> None:
    with pytest.raises(ParseError):
        read_message(reply)


@given(st.text())
def test_no_text_ends_a_conversation_that_does_not_say_so(text: str) -> None:
    shown = transcript([{"role": "system", "content": "s"}, {"role": "assistant", "content": text}])
    assert shown == f"[assistant]\n{text.strip()}"
    with suppress(ParseError):
        assert (read_message(text) is None) <= ("[end]" in text.casefold())
