"""Heuristic filters: hand-written cases, the bounds, and real answers that must pass."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Message, Record
from datagen.select import first_reason
from datagen.select.heuristics import (
    FILTERS,
    LONG_TEXT,
    LOOP_PERIOD,
    LOOP_TURNS,
    LOOP_WORDS,
    MAX_WORDS,
    MIN_WORDS,
    REFUSAL_WORDS,
)
from tests.conftest import REAL_DATA

CASES_FILE = Path(__file__).resolve().parents[1] / "data" / "heuristics.jsonl"


class Case(NamedTuple):
    """One row and the first filter that must drop it, if any."""

    id: str
    reason: str | None
    hard: bool
    prompt: str
    response: str
    why: str

    def record(self) -> Record:
        return Record(self.id, self.prompt, self.response)


CASES = [Case(**json.loads(line)) for line in CASES_FILE.read_text(encoding="utf-8").splitlines()]


def make_record(response: str | None, prompt: str | list[Message] = "Tell me about bees.") -> Record:
    return Record("0" * 16, prompt, response)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_is_dropped_by_the_filter_that_it_was_written_for(case: Case) -> None:
    assert first_reason(FILTERS.values(), case.record()) == case.reason


@pytest.mark.parametrize("name", FILTERS)
def test_no_filter_has_an_error_on_the_cases(name: str) -> None:
    should = {case.id for case in CASES if case.reason == name}
    dropped = {case.id for case in CASES if FILTERS[name](case.record())}
    also = {case.id for case in CASES if case.reason not in (None, name)}
    assert should <= dropped <= should | also
    assert len(should) >= (2 if name == "too_long" else 8)


def test_the_cases_are_hard_and_many() -> None:
    clean = [case for case in CASES if case.reason is None]
    assert len(CASES) == len({case.id for case in CASES}) >= 150
    assert sum(case.hard for case in clean) >= len(CASES) / 3
    assert Counter(case.reason for case in CASES).keys() == {*FILTERS, None}
    assert sum(not case.prompt.isascii() for case in CASES) >= 40


@given(st.sampled_from(list(FILTERS)), st.text(), st.text())
def test_a_filter_says_its_own_name_or_none_whatever_the_text(name: str, prompt: str, response: str) -> None:
    record = make_record(response, prompt)
    assert FILTERS[name](record) in (name, None)
    assert FILTERS[name](record) == FILTERS[name](record)


@pytest.mark.parametrize("name", FILTERS)
def test_a_row_without_a_response_passes(name: str) -> None:
    assert FILTERS[name](make_record(None, "Explain photosynthesis in detail.")) is None


@pytest.mark.parametrize(("words", "reason"), [(MIN_WORDS - 1, "too_short"), (MIN_WORDS, None)])
@pytest.mark.parametrize("word", ["bee ", "蜂"])
def test_a_text_has_a_least_length(words: int, reason: str | None, word: str) -> None:
    assert FILTERS["too_short"](make_record(word * words, "Explain bees.")) == reason


@pytest.mark.parametrize(("words", "reason"), [(MAX_WORDS, None), (MAX_WORDS + 1, "too_long")])
def test_a_text_has_a_greatest_length(words: int, reason: str | None) -> None:
    assert FILTERS["too_long"](make_record("bee " * words)) == reason


@pytest.mark.parametrize(("words", "reason"), [(REFUSAL_WORDS - 1, "refusal"), (REFUSAL_WORDS, None)])
def test_a_long_answer_is_no_refusal(words: int, reason: str | None) -> None:
    start = "I cannot help with that directly."
    text = start + " so" * (words - len(start.split()))
    assert FILTERS["refusal"](make_record(text)) == reason


@given(st.lists(st.sampled_from("bee sea tree lamp".split()), min_size=1, max_size=20, unique=False))
def test_any_phrase_said_often_enough_in_a_row_is_a_loop(phrase: list[str]) -> None:
    turns = max(LOOP_TURNS, -(-LOOP_WORDS // len(phrase)))
    assert FILTERS["repetition"](make_record("It said: " + " ".join(phrase * turns))) == "repetition"


def has_loop(words: list[str]) -> bool:
    """The rule by its definition: every place of every period is looked at."""
    for period in range(1, LOOP_PERIOD + 1):
        needed, run = max(LOOP_WORDS, LOOP_TURNS * period) - period, 0
        for place, (word, later) in enumerate(zip(words, words[period:], strict=False)):
            run = run + 1 if word == later else 0
            if run == needed and any(map(str.isalpha, words[place : place + period])):
                return True
    return False


WORDS = st.lists(st.sampled_from(["bee", "sea", "1", "2"]), max_size=25)


@given(WORDS, st.lists(st.sampled_from(["bee", "1", "2"]), min_size=1, max_size=22), st.integers(8, 130), WORDS)
@example([], ["bee"], LOOP_WORDS, [])  # from the first word to the last
@example(["1"] * 30, ["bee"], LOOP_WORDS, [])  # just behind a run that is none
def test_a_loop_is_found_wherever_it_begins_and_ends(
    before: list[str], phrase: list[str], length: int, after: list[str]
) -> None:
    words = [*before, *(phrase * length)[:length], *after]  # too short for the rules on lines and phrases
    assume(len(words) < LONG_TEXT or has_loop(words))
    assert (FILTERS["repetition"](make_record(" ".join(words))) == "repetition") == has_loop(words)


def test_a_conversation_counts_by_all_that_was_said() -> None:
    turns = [
        {"role": "system", "content": "You are a helpful assistant who answers in short sentences."},
        {"role": "user", "content": "你是机器人吗？请告诉我你是谁做的。"},
        {"role": "assistant", "content": "我是一个人工智能助手。"},
        {"role": "user", "content": "那你今天过得怎么样？"},
    ]
    assert FILTERS["self_identification"](make_record("我是一个人工智能，没有今天。", turns)) is None
    assert FILTERS["language_mismatch"](make_record("我今天过得很好，谢谢你关心我。", turns)) is None
    english = make_record("My day was fine, and I hope that yours was fine as well.", turns)
    assert FILTERS["language_mismatch"](english) == "language_mismatch"


@pytest.mark.parametrize(
    "end", ["***", "___", "* * *", "**", "https://example.org/a", "---", "| a |", "So:\n```\nx```\nDone."]
)
def test_a_long_text_may_end_in_a_rule_or_an_address(end: str) -> None:
    assert FILTERS["truncated"](make_record("Bees dance for their sisters. " * 20 + f"\n\n{end}")) is None


REAL = {
    "gsm8k/train_2000.jsonl": (2000, {}),
    "gsm8k/test_300.jsonl": (300, {}),
    "sft/oasst_zh_sft_dev.json": (
        339,
        {
            "refusal": 6, "truncated": 2, "self_identification": 2, "echo": 1, "too_short": 1, "language_mismatch": 1,
        },
    ),
}  # fmt: skip
"""File to its rows with a response and to what is dropped of them. Each of the Chinese ones was read: they decline,
stop without a stop (one of the two only forgot it), talk of themselves, repeat the prompt, explain in four characters,
answer English in Chinese."""


@pytest.mark.parametrize("name", REAL)
def test_real_answers_are_not_dropped_for_being_chinese_or_mathematical(name: str) -> None:
    if not (REAL_DATA / name).exists():
        pytest.skip(f"the real data are not here: ../shared/data/{name}")
    with (REAL_DATA / name).open("rb") as file:
        records = [item for item in Reader(name, file, PROMPTS).read() if isinstance(item, Record) and item.response]
    reasons = Counter(reason for record in records if (reason := first_reason(FILTERS.values(), record)))
    assert (len(records), dict(reasons)) == REAL[name]


LONG = [
    "a",
    "a. ",
    "bee sea ",
    "哈",
    "```a\n",
    "\n",
    " ",
    "I can't ",
    "as an ai ",
    "sorry, ",
    "- a\n",
    "0 ",
    ". ",
    "作为",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILTERS)
def test_a_megabyte_is_filtered_in_seconds(name: str) -> None:
    for unit in LONG:
        start = time.process_time()
        FILTERS[name](make_record(unit * (10**6 // len(unit)) + "b"))
        FILTERS[name](make_record("Bees.", unit * (10**6 // len(unit))))
        assert time.process_time() - start < 60, unit  # of a slow machine; the square of a million would be hours
