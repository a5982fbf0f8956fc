"""Every row format, with hand-written rows: the record that is read, and the reason for each bad row."""

import io
import json
from typing import Any

import pytest

from datagen.errors import InputError
from datagen.records.layout import pack_meta
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Document, Preference, Record, Row, Text

PAIRS = "A preference needs prompt, chosen, rejected: make them with 'datagen pairs'"
U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
U2, A2 = {"role": "user", "content": "How so?"}, {"role": "assistant", "content": "So."}
S = {"role": "system", "content": "Be brief."}


def as_lines(*rows: Row) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(kind: Kind[Any], data: bytes, shape: str | None = None) -> list[Any]:
    return list(Reader("x.jsonl", io.BytesIO(data), kind, shape).read())


def one(kind: Kind[Any], row: Row, shape: str | None = None) -> Any:
    (item,) = read(kind, as_lines(row), shape)
    return item


def sharegpt_turns(*turns: str) -> list[dict[str, str]]:
    return [{"from": turn.partition(":")[0], "value": turn.partition(":")[2]} for turn in turns]


def hh(*turns: str) -> str:
    names = {"u": "Human", "a": "Assistant"}
    return "".join(f"\n\n{names[turn[0]]}: {turn[2:]}" for turn in turns)


@pytest.mark.parametrize(
    ("shape", "row", "prompt", "response"),
    [
        ("prompt", {"prompt": "Hi", "response": "Hello"}, "Hi", "Hello"),
        ("prompt", {"prompt": [A, U, U2]}, [A, U, U2], None),
        ("completion", {"prompt": "Hi", "completion": "Hello"}, "Hi", "Hello"),
        ("completion", {"prompt": [U], "completion": [A]}, "Hi", "Hello"),
        ("completion", {"prompt": [S, U, A, U2], "completion": A2}, [S, U, A, U2], "So."),
        ("messages", {"messages": [S, U, A]}, [S, U], "Hello"),
        ("messages", {"messages": [U, U2]}, [U, U2], None),
        ("alpaca", {"instruction": "Add", "input": "1 2", "output": "3"}, "Add\n\n1 2", "3"),
        ("alpaca", {"instruction": "Hi", "history": [], "system": "", "output": ""}, "Hi", None),
        ("alpaca", {"instruction": "Hi", "history": None, "output": "Hello"}, "Hi", "Hello"),
        ("alpaca", {"instruction": "How so?", "history": [["Hi", "Hello"]], "output": "So."}, [U, A, U2], "So."),
        ("alpaca", {"instruction": "Hi", "system": "Be brief.", "output": "Hello"}, [S, U], "Hello"),
        ("sharegpt", {"conversations": sharegpt_turns("human:Hi", "gpt:Hello")}, "Hi", "Hello"),
        ("sharegpt", {"conversations": sharegpt_turns("user:Hi", "bing:Hello", "human:How so?")}, [U, A, U2], None),
        ("sharegpt", {"conversations": sharegpt_turns("system:Be brief.", "user:Hi", "bard:Hello")}, [S, U], "Hello"),
        ("sharegpt", {"conversations": sharegpt_turns("system: ", "user:Hi", "chatgpt:Hello")}, "Hi", "Hello"),
        ("sharegpt", {"system": "Be brief.", "conversations": [U, A, U2, A2]}, [S, U, A, U2], "So."),
        ("question", {"question": "Hi", "answer": "Hello"}, "Hi", "Hello"),
        ("question", {"question": "Hi", "answer": None}, "Hi", None),
        ("question", {"question": "Hi"}, "Hi", None),
        ("question", {"question": "Hi", "answer": "a", "system": "Be brief.", "history": []}, [S, U], "a"),
    ],
)
def test_a_prompt_and_its_response(shape: str, row: Row, prompt: Text, response: str | None) -> None:
    reader = Reader("x.jsonl", io.BytesIO(as_lines({**row, "id": 7, "topic": "t"})), PROMPTS)
    (record,) = reader.read()
    assert reader.shape == shape
    assert isinstance(record, Record)
    assert (record.prompt, record.response) == (prompt, response)
    assert (record.line, record.source_id, record.extra) == (1, "7", {"topic": "t"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "completion": ""}, '"completion" is empty'),
        ({"prompt": "Hi", "completion": [{**A, "content": " "}]}, '"completion" is empty'),
        ({"prompt": "Hi", "completion": [A, A]}, '"completion" is not one message of the assistant'),
        ({"prompt": "Hi", "completion": []}, '"completion" is not one message of the assistant'),
        ({"prompt": "Hi", "completion": [U]}, '"completion" is not one message of the assistant'),
        ({"prompt": [U, A], "completion": "x"}, "the conversation does not end in a user's message with text"),
        ({"prompt": [U, U2], "completion": "x"}, 'turn 2 of "prompt" is from user, expected assistant'),
        (
            {"conversations": sharegpt_turns("human:Hi", "function_call:{}", "gpt:Hello")},
            'turn 2 of "conversations" holds no call {"name", "arguments"}',
        ),
        (
            {"conversations": sharegpt_turns("human:Hi", "observation:{}", "gpt:Hello")},
            'turn 2 of "conversations" is from tool, but no call stands before it',
        ),
        (
            {"conversations": sharegpt_turns("human:Hi", 'function_call:{"name": "f"}', "gpt:Hello")},
            'turn 3 of "conversations" is from assistant, expected tool',
        ),
        (
            {"conversations": sharegpt_turns("human:Hi", "critic:No.")},
            'turn 2 of "conversations" has the role "critic", expected user, assistant, system or tool',
        ),
        (
            {"conversations": sharegpt_turns("gpt:Hello", "human:Hi")},
            'turn 1 of "conversations" is from assistant, expected user',
        ),
        (
            {"conversations": sharegpt_turns("human:Hi", "human:Hi", "gpt:Hello")},
            'turn 2 of "conversations" is from user, expected assistant',
        ),
        (
            {"conversations": sharegpt_turns("human:Hi", "gpt:a", "gpt:b")},
            'turn 3 of "conversations" is from assistant, expected user',
        ),
        (
            {"conversations": sharegpt_turns("human:Hi", "system:Be brief.", "gpt:a")},
            'turn 2 of "conversations" is from system, expected assistant',
        ),
        ({"conversations": sharegpt_turns("human: ", "gpt:Hello")}, 'turn 1 of "conversations" (user) is empty'),
        ({"conversations": sharegpt_turns("human:Hi", "gpt:")}, 'turn 2 of "conversations" (assistant) is empty'),
        (
            {"conversations": sharegpt_turns("system:Be brief.")},
            "the conversation does not end in a user's message with text",
        ),
        ({"conversations": sharegpt_turns("system:")}, "the conversation does not end in a user's message with text"),
        ({"conversations": []}, '"conversations" is not a list of turns'),
        ({"conversations": "Hi"}, '"conversations" is not a list of turns'),
        (
            {"conversations": [{"from": "human", "value": None}]},
            'turn 1 of "conversations" has no text as from and value, or role and content',
        ),
        (
            {"conversations": sharegpt_turns("system:x", "human:Hi"), "system": "y"},
            'two system messages: "system" and the first turn',
        ),
        ({"conversations": sharegpt_turns("human:Hi"), "system": 1}, '"system" is not text'),
        ({"instruction": "Hi", "history": ["a", "b"]}, '"history" is not a list of [user, assistant]'),
        ({"instruction": "Hi", "history": [["a", None]]}, '"history" is not a list of [user, assistant]'),
        ({"instruction": "Hi", "history": [["a", "b"], ["c", ""]]}, 'turn 4 of "history" (assistant) is empty'),
        ({"question": "", "answer": "Hello"}, '"question" is empty'),
    ],
)
def test_a_bad_prompt_says_what_and_where(row: Row, reason: str) -> None:
    bad = one(PROMPTS, row)
    assert isinstance(bad, BadLine)
    assert bad.reason == reason


@pytest.mark.parametrize(
    ("shape", "row", "prompt", "chosen", "rejected"),
    [
        ("preference", {"prompt": "Hi", "chosen": "b", "rejected": "c"}, "Hi", "b", "c"),
        ("preference", {"prompt": [S, U], "chosen": [A], "rejected": A2}, [S, U], "Hello", "So."),
        ("preference", {"prompt": "Hi", "chosen": [U, A], "rejected": [U, A2]}, "Hi", "Hello", "So."),
        ("implicit", {"chosen": [U, A], "rejected": [U, A2]}, "Hi", "Hello", "So."),
        ("implicit", {"chosen": [S, U, A, U2, A], "rejected": [S, U, A, U2, A2]}, [S, U, A, U2], "Hello", "So."),
        ("hh", {"chosen": hh("u:Hi", "a:Hello"), "rejected": hh("u:Hi", "a:So.")}, "Hi", "Hello", "So."),
        (
            "hh",
            {
                "chosen": hh("u:Hi", "a:Hello", "u:How so?", "a:I b"),
                "rejected": hh("u:Hi", "a:Hello", "u:How so?", "a:I c"),
            },
            [U, A, U2],
            "I b",
            "I c",
        ),
        ("hh", {"chosen": hh("u:Hi", "a:Hello"), "rejected": hh("u:Hi", "a:Human: x")}, "Hi", "Hello", "Human: x"),
        ("hh", {"chosen": hh("u:Hi", "a:b"), "rejected": hh("u:Hi", "a:b\nHuman: c")}, "Hi", "b", "b\nHuman: c"),
        ("hh", {"chosen": hh("u:Hi", "a:b"), "rejected": hh("u:Hi", "a:b Human: c")}, "Hi", "b", "b Human: c"),
        ("hh", {"chosen": hh("u:Hi", "a: b\n\nc "), "rejected": hh("u:Hi", "a:b")}, "Hi", " b\n\nc ", "b"),
        ("question", {"question": "Hi", "response_chosen": "b", "response_rejected": "c"}, "Hi", "b", "c"),
        (
            "question",
            {
                "system": "Be brief.",
                "history": [["Hi", "Hello"]],
                "question": "How so?",
                "chosen": "b",
                "rejected": "c",
            },
            [S, U, A, U2],
            "b",
            "c",
        ),
        ("sharegpt", {"conversations": sharegpt_turns("human:Hi"), "chosen": "b", "rejected": "c"}, "Hi", "b", "c"),
        (
            "sharegpt",
            {
                "system": "Be brief.",
                "conversations": [U, A, U2],
                "chosen": {"from": "gpt", "value": "b"},
                "rejected": {"from": "gpt", "value": "c"},
            },
            [S, U, A, U2],
            "b",
            "c",
        ),
        ("ranked", {"instruction": "Hi", "input": "", "output": ["b", "x", "c"], "history": []}, "Hi", "b", "c"),
        (
            "ranked",
            {"instruction": "How so?", "output": ["b", "c"], "history": [["Hi", "Hello"]]},
            [U, A, U2],
            "b",
            "c",
        ),
    ],
)
def test_a_preference(shape: str, row: Row, prompt: Text, chosen: str, rejected: str) -> None:
    reader = Reader("x.jsonl", io.BytesIO(as_lines({**row, "id": "f", "topic": "t", "margin": 2})), PREFERENCES)
    (item,) = reader.read()
    assert reader.shape == shape
    assert item == Preference(item.id, prompt, chosen, rejected, 2.0, 1, "f", {"topic": "t"})  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "b"}, f'no "rejected" (found: prompt, chosen). {PAIRS}'),
        ({"prompt": "Hi", "rejected": "b"}, f'no "chosen" (found: prompt, rejected). {PAIRS}'),
        ({"chosen": "a", "rejected": "b"}, f'no "prompt" (found: chosen, rejected). {PAIRS}'),
        (
            {"question": "Hi", "response_chosen": "b"},
            f'no "rejected" (found: question, response_chosen). {PAIRS}',
        ),
        (
            {"response_chosen": "b", "response_rejected": "c"},
            f'no "prompt" (found: response_chosen, response_rejected). {PAIRS}',
        ),
        ({"prompt": "Hi", "chosen": "b", "rejected": " b\n"}, "chosen and rejected are equal"),
        ({"prompt": "Hi", "chosen": "b", "rejected": " "}, '"rejected" is empty'),
        ({"prompt": "Hi", "chosen": [{**A, "content": ""}], "rejected": "b"}, '"chosen" is empty'),
        ({"prompt": "Hi", "chosen": None, "rejected": "b"}, '"chosen" is not text'),
        ({"prompt": "Hi", "chosen": [U2, A], "rejected": "b"}, '"chosen" is not one message of the assistant'),
        ({"prompt": "Hi", "chosen": [U], "rejected": "b"}, '"chosen" is not one message of the assistant'),
        (
            {"conversations": sharegpt_turns("human:Hi"), "chosen": {"from": "tool", "value": "b"}, "rejected": "c"},
            'turn 1 of "chosen" is from tool, but no call stands before it',
        ),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, '"prompt" is empty'),
        (
            {"prompt": [U, A], "chosen": "b", "rejected": "c"},
            "the conversation does not end in a user's message with text",
        ),
        ({"prompt": "Hi", "chosen": "b", "rejected": "c", "margin": "2"}, '"margin" is not a number'),
        ({"prompt": "Hi", "chosen": "b", "rejected": "c", "margin": True}, '"margin" is not a number'),
        ({"prompt": "Hi", "chosen": "b", "rejected": "c", "margin": 10**400}, '"margin" is too large a number'),
        (
            {"chosen": [U, A, U2, A2], "rejected": [U, A2, U2, A]},
            "chosen and rejected part at turn 2: they may differ in the last turn alone",
        ),
        (
            {"chosen": [U, A], "rejected": [U, A, U2, A2]},
            "chosen and rejected part at turn 3: they may differ in the last turn alone",
        ),
        ({"chosen": [U, A, U2], "rejected": [U, A]}, '"chosen" does not end in the assistant\'s turn'),
        ({"chosen": [U, A], "rejected": [U, A]}, "chosen and rejected are equal"),
        ({"chosen": [U, A], "rejected": "b"}, '"rejected" is not a list of turns'),
        ({"chosen": hh("u:Hi", "a:b"), "rejected": hh("u:Hi", "a:")}, 'turn 2 of "rejected" (assistant) is empty'),
        ({"chosen": hh("u:Hi", "u:x", "a:b"), "rejected": "c"}, 'turn 2 of "chosen" is from user, expected assistant'),
        ({"chosen": hh("a:b"), "rejected": hh("a:c")}, 'turn 1 of "chosen" is from assistant, expected user'),
        ({"chosen": "Once" + hh("u:Hi", "a:b"), "rejected": "c"}, f'no "prompt" (found: chosen, rejected). {PAIRS}'),
        ({"chosen": hh("u:Hi"), "rejected": hh("u:Hi", "a:b")}, '"chosen" does not end in the assistant\'s turn'),
        ({"instruction": "Hi", "output": ["b"]}, '"output" holds 1 of the two replies that a preference needs'),
        ({"instruction": "Hi", "output": ["b", 1]}, '"output" is not a list of replies, best first'),
        ({"instruction": "Hi", "output": ["b", "c", "b"]}, "chosen and rejected are equal"),
        ({"instruction": "Hi", "output": ["b", ""]}, '"output" is empty'),
        ({"instruction": "", "output": ["b", "c"]}, '"instruction" is empty'),
    ],
)
def test_a_bad_preference_says_what_and_where(row: Row, reason: str) -> None:
    bad = one(PREFERENCES, row)
    assert isinstance(bad, BadLine)
    assert bad.reason == reason


def test_documents_are_rows_or_lines() -> None:
    items = read(DOCUMENTS, as_lines({"id": "f", "text": "a\n\nb", "lang": "en"}, {"text": " "}, {"title": "c"}))
    assert items[0] == Document(items[0].id, "a\n\nb", 1, "f", {"lang": "en"})
    assert [bad.reason for bad in items[1:]] == ['"text" is empty', 'no "text" (found: title)']
    lines = read(DOCUMENTS, " One.\r\n\nTwo\u2028three.".encode())
    assert [(document.text, document.line) for document in lines] == [(" One.", 1), ("Two\u2028three.", 3)]


def test_ids_depend_on_what_a_row_says_and_not_on_where_it_stands() -> None:
    row = {"prompt": "Hi", "chosen": "b", "rejected": "c"}
    first, second, other = read(PREFERENCES, as_lines(row, row, {**row, "margin": 1}))
    bad, late = read(PREFERENCES, b"\n{oops\n" + as_lines({**row, "topic": "t"}))
    assert len({first.id, second.id, other.id}) == 3
    assert late.id == first.id and late.line == 3
    assert isinstance(bad, BadLine) and bad.line == 2


def test_our_own_ids_are_kept() -> None:
    ours = {"id": "0123456789abcdef", "meta": pack_meta({})}
    assert one(PREFERENCES, {**ours, "prompt": "Hi", "chosen": "b", "rejected": "c"}).id == ours["id"]
    assert one(DOCUMENTS, {**ours, "text": "a"}).id == ours["id"]


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        (
            PREFERENCES,
            as_lines({"prompt": "Hi", "response": "b"}),
            f"holds prompts, not preferences (found: prompt, response). {PAIRS}. Prompts with responses go to",
        ),
        (PREFERENCES, as_lines({"text": "a"}), "holds documents, not preferences (found: text)"),
        (PREFERENCES, as_lines({"note": "a"}), f'no "chosen" or "rejected" (found: note). {PAIRS}'),
        (PREFERENCES, b"One.\nTwo.\n", f"text, not JSON. {PAIRS}"),
        (
            PROMPTS,
            as_lines({"prompt": "Hi", "chosen": "b", "rejected": "c"}),
            "holds preferences, not prompts (found: prompt, chosen, rejected)",
        ),
        (PROMPTS, as_lines({"instruction": "Hi", "output": ["b", "c"]}), "Preferences go to 'datagen train dpo'"),
        (PROMPTS, as_lines({"text": "a"}), "holds documents, not prompts (found: text)"),
        (PROMPTS, as_lines({"note": "a"}), 'no "prompt", "instruction" or "messages" (found: note)'),
        (PROMPTS, as_lines({"notes": "Hi"}), 'or "question" and "answer"; --map prompt=COLUMN'),
        (
            DOCUMENTS,
            as_lines({"question": "Hi", "answer": "b"}),
            "holds prompts, not documents (found: question, answer)",
        ),
        (DOCUMENTS, as_lines({"chosen": [U, A], "rejected": [U]}), "holds preferences, not documents"),
        (DOCUMENTS, as_lines({}), 'no "text" (found: nothing)'),
        (DOCUMENTS, b"", "no rows (the file is empty)"),
    ],
)
def test_a_file_of_another_kind_is_an_error_that_names_it(kind: Kind[Any], data: bytes, says: str) -> None:
    with pytest.raises(InputError) as raised:
        read(kind, data)
    assert str(raised.value).startswith("x.jsonl: ")
    assert says in str(raised.value)


def test_a_response_goes_before_a_completion() -> None:
    record = one(PROMPTS, {"prompt": "Hi", "response": "b", "completion": "c"})
    assert (record.response, record.extra) == ("b", {"completion": "c"})


def test_a_forced_format_reads_the_prompts_of_preferences() -> None:
    record = one(PROMPTS, {"prompt": "Hi", "chosen": "b", "rejected": "c"}, "prompt")
    assert (record.prompt, record.extra) == ("Hi", {"source_chosen": "b", "source_rejected": "c"})
    with pytest.raises(InputError, match="--format choice: expected one of preference, alpaca"):
        read(PREFERENCES, b"", "choice")


def test_a_damaged_file_is_bad_lines_of_the_first_shape() -> None:
    reader = Reader("x.jsonl", io.BytesIO(b'{"prompt": "Hi", "cho'), PREFERENCES)
    (bad,) = reader.read()
    assert (reader.shape, reader.count_lines()) == ("preference", 1)
    assert isinstance(bad, BadLine) and "perhaps cut off" in bad.reason


def test_rows_of_several_shapes_are_read_each_by_its_own() -> None:
    row = {"prompt": "Hi", "chosen": "b", "rejected": "c"}
    items = read(PREFERENCES, as_lines(row, {"chosen": [U, A], "rejected": [U, A2]}, {"prompt": "Hi"}))
    assert [type(item) for item in items] == [Preference, Preference, BadLine]
    assert items[2].reason == f'no "chosen" and no "rejected" (found: prompt). {PAIRS}'
