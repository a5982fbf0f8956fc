"""Public files of every format: the number of rows, the refused rows, and that no text is lost."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Document, Preference, Record, Row, as_messages
from tests.conftest import REAL_DATA

Words = list[Any]
Item = Record | Preference | Document


def raw_rows(path: Path) -> list[Any]:
    """Read a file without the code under test."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return list(json.loads(content))
    lines = [line for line in content.split("\n") if line.strip()]
    return [json.loads(line) for line in lines] if path.suffix == ".jsonl" else lines


def called(message: Row) -> Any:
    """Return the text of a message, or its one call as an object."""
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return {**calls[0], "arguments": json.loads(calls[0]["arguments"])} if calls else message["content"]


def words_of(item: Item) -> Words:
    """Return all texts of a row as it was read."""
    if isinstance(item, Document):
        return [item.text]
    texts = [called(message) for message in as_messages(item.prompt)]
    answers = [item.response] if isinstance(item, Record) else [item.chosen, item.rejected]
    return texts + [answer for answer in answers if answer]


def texts_of_fields(*names: str) -> Callable[[Row], Words]:
    return lambda row: [row[name] for name in names if row[name]]


def history_texts(row: Row) -> Words:
    return [text for pair in row["history"] for text in pair]


def request(row: Row) -> str:
    return str(row["instruction"]) + (f"\n\n{row['input']}" if row["input"] else "")


def turn_values(row: Row) -> Words:
    return [
        json.loads(turn["value"]) if turn["from"] == "function_call" else turn["value"] for turn in row["conversations"]
    ]


def last(value: Any) -> Any:
    return value if isinstance(value, str) else value["value"]


def reward_texts(*names: str) -> Callable[[Row], Words]:
    return lambda row: [
        *([row["system"]] if row["system"] else []), *history_texts(row), row["question"],
        *(row[name] for name in names),
    ]  # fmt: skip


def alpaca_texts(row: Row) -> Words:
    return [*history_texts(row), request(row), row["output"]]


def ranking_texts(row: Row) -> Words:
    return [*history_texts(row), request(row), row["output"][0], row["output"][-1]]


def preference_texts(row: Row) -> Words:
    return [*turn_values(row), last(row["chosen"]), last(row["rejected"])]


def line(row: str) -> Words:
    return [row]


ANY, TEXT = texts_of_fields("question", "answer"), texts_of_fields("text")
PREFIXED = ("response_chosen", "response_rejected")
FILES: list[tuple[str, Kind[Any], str, int, Callable[[Any], Words]]] = [
    ("sft/sharegpt_dummy.json", PROMPTS, "sharegpt", 500, turn_values),
    ("sft/glaive_toolcall_100.json", PROMPTS, "sharegpt", 100, turn_values),
    ("sft/oasst_zh_sft_dev.json", PROMPTS, "alpaca", 339, alpaca_texts),
    ("formats/medicalgpt_sft_sharegpt.jsonl", PROMPTS, "sharegpt", 200, turn_values),
    ("formats/medicalgpt_grpo.jsonl", PROMPTS, "question", 200, ANY),
    ("gsm8k/train_2000.jsonl", PROMPTS, "question", 2000, ANY),
    ("gsm8k/test_300.jsonl", PROMPTS, "question", 300, ANY),
    ("ifeval/input_data_341.jsonl", PROMPTS, "prompt", 341, texts_of_fields("prompt")),
    ("prefs/hhh_dev.jsonl", PREFERENCES, "preference", 69, texts_of_fields("prompt", "chosen", "rejected")),
    ("prefs/oasst_zh_rank_dev.json", PREFERENCES, "ranked", 367, ranking_texts),
    ("prefs/dpo_sharegpt_en_dev.json", PREFERENCES, "sharegpt", 188, preference_texts),
    (
        "formats/medicalgpt_reward_v1.jsonl", PREFERENCES, "question", 77,
        texts_of_fields("question", *PREFIXED),
    ),
    ("formats/medicalgpt_reward_v2.jsonl", PREFERENCES, "question", 100, reward_texts("chosen", "rejected")),
    ("formats/medicalgpt_reward_v3.jsonl", PREFERENCES, "question", 100, reward_texts(*PREFIXED)),
    ("formats/medicalgpt_reward_v4.jsonl", PREFERENCES, "sharegpt", 100, preference_texts),
    ("corpus/docs_dev.jsonl", DOCUMENTS, "document", 431, TEXT),
    ("corpus/paragraphs_dev.jsonl", DOCUMENTS, "document", 2579, TEXT),
    ("corpus/wiki_dev.txt", DOCUMENTS, "text", 18, line),
    ("formats/medicalgpt_pretrain.txt", DOCUMENTS, "text", 300, line),
]  # fmt: skip
REFUSED = {
    "prefs/oasst_zh_rank_dev.json": {"chosen and rejected are equal": 1},
}


def here(name: str) -> Path:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"the real data are not here: ../shared/data/{name}")
    return path


@pytest.mark.parametrize(("name", "kind", "shape", "count", "words"), FILES, ids=[name for name, *_ in FILES])
def test_every_row_is_read_word_for_word_or_refused_with_its_reason(
    name: str, kind: Kind[Any], shape: str, count: int, words: Callable[[Any], Words]
) -> None:
    rows = raw_rows(here(name))
    with (REAL_DATA / name).open("rb") as file:
        reader = Reader(name, file, kind)
        items = list(reader.read())
    good = [item for item in items if not isinstance(item, BadLine)]
    assert (reader.shape, len(good)) == (shape, count)
    assert Counter(item.reason for item in items if isinstance(item, BadLine)) == REFUSED.get(name, {})
    assert [item.line for item in items] == list(range(1, len(rows) + 1))
    assert all(words_of(item) == words(rows[item.line - 1]) for item in good)
    assert len({item.id for item in good}) == len(good)


def test_the_seed_tasks_give_a_record_per_instance() -> None:
    rows = raw_rows(here("self_instruct/seed_tasks.jsonl"))
    with (REAL_DATA / "self_instruct/seed_tasks.jsonl").open("rb") as file:
        records = [item for item in Reader("seeds", file, PROMPTS).read() if isinstance(item, Record)]
    expected = [
        [
            request({**instance, "instruction": row["instruction"]}),
            *([instance["output"]] if instance["output"] else []),
        ]
        for row in rows
        for instance in row["instances"]
    ]
    assert [words_of(record) for record in records] == expected
    assert len(records) == 175


def test_a_transcript_is_split_into_its_turns_and_nothing_else() -> None:
    name = "prefs/hh_rlhf_transcripts_dev.jsonl"
    rows = raw_rows(here(name))
    with (REAL_DATA / name).open("rb") as file:
        items = [item for item in Reader(name, file, PREFERENCES).read() if isinstance(item, Preference)]
    speakers = {"user": "Human", "assistant": "Assistant"}
    for item, row in zip(items, rows, strict=True):
        prompt = "".join(f"\n\n{speakers[turn['role']]}: {turn['content']}" for turn in as_messages(item.prompt))
        assert row == {key: f"{prompt}\n\nAssistant: {getattr(item, key)}" for key in ("chosen", "rejected")}
    assert Counter(len(as_messages(item.prompt)) for item in items) == {1: 12, 3: 7, 5: 4, 7: 2}
    assert items[24].rejected.startswith("Human: It is warm")
    assert items[9].chosen.startswith("I don’t understand") and items[9].rejected.startswith("I can do that")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sft/glaive_toolcall_100.json", PROMPTS),
        ("sft/sharegpt_dummy.json", PROMPTS),
        ("prefs/dpo_sharegpt_en_dev.json", PREFERENCES),
        ("formats/medicalgpt_reward_v4.jsonl", PREFERENCES),
    ],
)
def test_every_turn_keeps_its_speaker(name: str, kind: Kind[Any]) -> None:
    rows = raw_rows(here(name))
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    roles |= {"function_call": "assistant", "observation": "tool"}
    with (REAL_DATA / name).open("rb") as file:
        good = [item for item in Reader(name, file, kind).read() if not isinstance(item, BadLine)]
    for item in good:
        answered = ["assistant"] if getattr(item, "response", None) else []
        read = [message["role"] for message in as_messages(item.prompt)] + answered
        assert read == [roles[turn["from"]] for turn in rows[item.line - 1]["conversations"]]
