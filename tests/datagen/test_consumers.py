"""Converted files keep the rules of those who read them (consumers.py), whatever the rows hold."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.convert import Options, run
from datagen.records.files import dump_line
from datagen.records.record import Row
from tests.datagen.consumers import (
    LEAST_EXAMPLES,
    axolotl_faults,
    axolotl_preference_faults,
    llama_factory_faults,
    openai_faults,
    openai_preference_faults,
)

WORDS = st.text("abc ABC.,é水{}\n", min_size=1, max_size=12).filter(str.strip)
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
ARGUMENTS = st.sampled_from(['{"at": "x"}', "{}", '{"at":"x"}', "not json"])
SYSTEM = WORDS.map(lambda text: {"role": "system", "content": text})


def say(role: str, **fields: Any) -> st.SearchStrategy[Row]:
    return WORDS.map(lambda text: {"role": role, "content": text, **fields})


def call(with_id: bool) -> st.SearchStrategy[list[Row]]:
    """A call of the assistant, and its result."""
    name = {"id": "c1"} if with_id else {}
    return st.tuples(ARGUMENTS, WORDS).map(
        lambda drawn: [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{**name, "type": "function", "function": {"name": "look", "arguments": drawn[0]}}],
            },
            {"role": "tool", "content": drawn[1], **({"tool_call_id": "c1"} if with_id else {})},
        ]
    )


ANSWERS = st.one_of(say("assistant"), say("assistant", weight=1), say("assistant", reasoning_content="Hm."))
ROUND = st.tuples(
    say("user"), st.one_of(st.just([]), call(False), call(True)), st.one_of(ANSWERS, say("assistant", weight=0))
).map(lambda parts: [parts[0], *parts[1], parts[2]])
BEFORE = st.tuples(st.lists(SYSTEM, max_size=1), st.lists(ROUND, max_size=2)).map(
    lambda parts: [*parts[0], *(turn for turns in parts[1] for turn in turns)]
)
CONVERSATIONS = st.tuples(BEFORE, say("user"), st.one_of(st.just([]), call(True)), ANSWERS).map(
    lambda parts: {"messages": [*parts[0], parts[1], *parts[2], parts[3]], "tools": [TOOL]}
)
PREFERENCES = st.tuples(BEFORE, say("user"), st.floats(0.1, 9)).map(
    lambda parts: {"prompt": [*parts[0], parts[1]], "chosen": "Yes.", "rejected": "No.", "margin": parts[2]}
)
Faults = Callable[[list[Row]], Iterator[str]]


def llama_factory(lines: list[Row]) -> Iterator[str]:
    entry = json.loads(Path("dataset_info.json").read_text())["converted"]
    assert entry["file_name"] == "converted.jsonl"
    return llama_factory_faults(lines, entry)


def converted(rows: list[Row], to: str) -> list[Row]:
    Path("rows.jsonl").write_bytes(b"".join(map(dump_line, rows)))
    Path("dataset_info.json").unlink(missing_ok=True)
    run("rows.jsonl", Options(to=to, output="converted.jsonl", overwrite=True, quiet=True))
    return [json.loads(line) for line in Path("converted.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("to", "faults"), [("openai", openai_faults), ("llama-factory", llama_factory), ("axolotl", axolotl_faults)]
)
@given(drawn=st.lists(CONVERSATIONS, max_size=3))
def test_conversations_keep_the_rules_of_their_readers(to: str, faults: Faults, drawn: list[Row]) -> None:
    plain = [{"prompt": f"Hi {number}?", "response": "Hello."} for number in range(LEAST_EXAMPLES)]
    lines = converted([*plain, *drawn], to)
    assert len(lines) >= LEAST_EXAMPLES
    assert list(faults(lines)) == []


@pytest.mark.parametrize(
    ("to", "faults"),
    [
        ("openai", openai_preference_faults),
        ("llama-factory", llama_factory),
        ("axolotl", axolotl_preference_faults),
    ],
)
@given(drawn=st.lists(PREFERENCES, max_size=3))
def test_preferences_keep_the_rules_of_their_readers(to: str, faults: Faults, drawn: list[Row]) -> None:
    plain = [{"prompt": f"Hi {n}?", "chosen": "Hello.", "rejected": "Go."} for n in range(LEAST_EXAMPLES)]
    lines = converted([*plain, *drawn], to)
    assert len(lines) >= LEAST_EXAMPLES
    assert list(faults(lines)) == []


def test_the_rules_find_what_breaks_them() -> None:
    good = {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]}
    lines = [good] * LEAST_EXAMPLES
    assert not list(openai_faults(lines)) and not list(axolotl_faults(lines))
    broken: list[Row] = [
        {"messages": good["messages"][:1]},
        {"messages": [{"role": "user", "content": "Hi?", "weight": 0}, good["messages"][1]]},
        {"messages": [*good["messages"][:1], {"role": "assistant", "content": "", "reasoning_content": "Hm."}]},
        {**good, "label": True},
        {**good, "tools": [{"type": "function", "function": {"name": 1}}]},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c9"}, good["messages"][1]]},
    ]
    for row in broken:
        assert list(openai_faults([*lines, row])), row
    assert list(openai_faults([good]))
    entry = {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
    turns = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]
    assert not list(llama_factory_faults([{"conversations": turns}], entry))
    for one in ({"conversations": turns[::-1]}, {"conversations": turns[:1]}, {"conversations": turns, "tools": "[]"}):
        assert list(llama_factory_faults([one], entry)), one
