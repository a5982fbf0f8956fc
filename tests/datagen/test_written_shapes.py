"""Every shape that is written is read again to the same rows, with all that it has a place for; the rest is named."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.convert import Options, run
from datagen.records.convert import CONVERTERS, left_out
from datagen.records.files import dump_line
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Document, Preference, Record, Row

KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in (PROMPTS, PREFERENCES, DOCUMENTS)}
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    lambda text: text.strip() and ":" not in text and text.strip() not in ("<noinput>", "<no input>")
)
TOOL: Row = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
OBJECTS = st.dictionaries(WORDS, st.integers() | WORDS, max_size=2)
ARGUMENTS = OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False)) | OBJECTS.map(json.dumps)


def call(arguments: str, number: int) -> Row:
    return {"id": f"c{number}", "type": "function", "function": {"name": "add", "arguments": arguments}}


def turns_with_call(request: str, arguments: str, result: str) -> list[Row]:
    return [
        {"role": "user", "content": request},
        {"role": "assistant", "content": "", "tool_calls": [call(arguments, 1)]},
        {"role": "tool", "content": result, "tool_call_id": "c1"},
    ]


def turns(system: str | None, pairs: list[tuple[str, str]], request: str) -> list[Row]:
    texts = [text for pair in pairs for text in pair]
    return [
        *([{"role": "system", "content": system}] if system else []),
        *({"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)),
        {"role": "user", "content": request},
    ]


PROMPT: st.SearchStrategy[Any] = (
    WORDS
    | st.builds(turns, WORDS, st.just([]), WORDS)
    | st.builds(turns, st.none() | WORDS, st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=2), WORDS)
    | st.builds(turns_with_call, WORDS, ARGUMENTS, WORDS)
)
MAYBE = st.none() | WORDS
RECORDS = st.builds(
    Record,
    id=st.just("0" * 16),
    prompt=PROMPT,
    response=WORDS,
    reasoning=MAYBE,
    tools=st.sampled_from([(), (TOOL,)]),
    label=st.sampled_from([None, True, False]),
    response_fields=st.sampled_from([{}, {"weight": 0}, {"weight": 1}, {"name": "bot"}]),
    extra=st.sampled_from([{}, {"parallel_tool_calls": False}, {"topic": "t"}]),
)
PREFERENCE_ROWS = st.builds(
    Preference,
    id=st.just("0" * 16),
    prompt=PROMPT,
    chosen=WORDS,
    rejected=WORDS,
    margin=st.none() | st.floats(0, 9),
    chosen_reasoning=MAYBE,
    rejected_reasoning=MAYBE,
    tools=st.sampled_from([(), (TOOL,)]),
).filter(lambda row: row.chosen.strip() != row.rejected.strip())
ROWS: dict[str, st.SearchStrategy[Any]] = {
    "prompts": RECORDS,
    "preferences": PREFERENCE_ROWS,
    "documents": st.builds(Document, id=st.just("0" * 16), text=WORDS),
}
SHAPES = [(to, kind) for to, kinds in CONVERTERS.items() for kind in kinds if to != "audit"]


def bare(row: Any, dropped: list[str]) -> Row:
    """What a row holds, without what the shape has no place for, and without what a file numbers, or reads besides."""
    message_keys = {"reasoning_content" if name == "reasoning" else name for name in dropped}
    numbered = {"id", "line", "source_id", "meta", "view", "instruction"}
    values: Row = {name: getattr(row, name) for name in row.__slots__ if name not in numbered}
    if isinstance(values.get("prompt"), list):
        values["prompt"] = [{k: v for k, v in turn.items() if k not in message_keys} for turn in values["prompt"]]
        for turn in values["prompt"] if "tool_call_id" in dropped else ():
            if "tool_calls" in turn:
                turn["tool_calls"] = [{k: v for k, v in call.items() if k != "id"} for call in turn["tool_calls"]]
    for name in ("extra", "response_fields"):
        values[name] = {k: v for k, v in values.get(name, {}).items() if k not in dropped}
    gone = {*dropped, *(("chosen_reasoning", "rejected_reasoning") if "reasoning" in dropped else ())}
    return {name: value for name, value in values.items() if name not in gone}


def plain_text(values: Row) -> Row:
    """A prompt of one user message is read as a string."""
    prompt = values.get("prompt")
    one = isinstance(prompt, list) and len(prompt) == 1
    return {**values, "prompt": prompt[0]["content"]} if one and prompt else values


@pytest.mark.parametrize(("to", "kind"), SHAPES)
@given(data=st.data())
def test_what_is_written_is_read_again(to: str, kind: str, data: st.DataObject) -> None:
    row = data.draw(ROWS[kind])
    target = CONVERTERS[to][kind]
    try:
        written = target.write(row)
    except ValueError:
        return
    line = written.encode() + b"\n" if isinstance(written, str) else dump_line(written)
    if isinstance(written, str) and line.lstrip()[:1] in (b"{", b"[", b'"'):
        return  # a line of text that looks like JSON
    name = "x.txt" if isinstance(written, str) else "x.jsonl"
    (again,) = Reader(name, io.BytesIO(line), KINDS[kind], "text" if isinstance(written, str) else None).read()
    assert not isinstance(again, BadLine), again
    dropped = left_out(row, target)
    expected = replace(row, text=row.text.strip()) if isinstance(written, str) else row
    assert plain_text(bare(again, dropped)) == plain_text(bare(expected, dropped))


@pytest.mark.parametrize(("to", "kind"), [(to, kind) for to, kind in SHAPES if kind == "prompts"])
@pytest.mark.parametrize("mark", [{"label": False}, {"response_fields": {"weight": 0}}])
def test_what_must_not_be_learned_is_marked_or_left_out(to: str, kind: str, mark: Row) -> None:
    row, target = Record("0" * 16, "Hi", "Hello", **mark), CONVERTERS[to][kind]
    if target.holds & {"label" if "label" in mark else "weight"}:
        text = json.dumps(target.write(row))
        assert any(sign in text for sign in ('"label": false', '"kto_tag": false', '"weight": 0', '"train": false'))
    else:
        with pytest.raises(ValueError, match="learned"):
            target.write(row)


def test_convert_names_what_a_shape_has_no_place_for(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"prompt": "A?", "response": "b", "reasoning": "Hm.", "topic": "t"}
    Path("rows.jsonl").write_bytes(dump_line(row) + dump_line({"prompt": "B?", "response": "b"}))
    run("rows.jsonl", Options(to="openai"))
    notes = capsys.readouterr().err
    assert '1 row with "reasoning", for which openai has no place' in notes
    assert '1 row with "topic", for which openai has no place' in notes
    assert json.loads(Path("rows.openai.jsonl").read_text().splitlines()[0]).keys() == {"messages"}


def test_llama_factory_learns_of_tools_and_labels() -> None:
    row = {"messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "b"}], "tools": [TOOL]}
    Path("rows.jsonl").write_bytes(dump_line({**row, "label": True}))
    run("rows.jsonl", Options(to="llama-factory"))
    columns = json.loads(Path("dataset_info.json").read_text())["rows.llama-factory"]["columns"]
    assert columns == {"messages": "conversations", "tools": "tools", "kto_tag": "kto_tag"}


def test_openai_gets_an_id_for_every_call() -> None:
    turns = [
        {"from": "human", "value": "A?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "Two."},
    ]
    Path("rows.jsonl").write_bytes(dump_line({"conversations": turns}))
    run("rows.jsonl", Options(to="openai"))
    _, asks, result, _ = json.loads(Path("rows.openai.jsonl").read_text())["messages"]
    assert asks["tool_calls"][0]["id"] == result["tool_call_id"] == "call_1_0"
    assert asks["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
