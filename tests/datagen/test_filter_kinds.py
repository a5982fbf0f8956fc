"""`filter` on rows of every kind: what it looks at, and that a kept row is the very row that came in."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.engine.job import Outcome
from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.layout import pack_meta
from datagen.records.record import Row
from datagen.select.filter import Filter, Options
from tests.jobs import perform, rows

QUESTION = "Describe the canal that joins the two rivers in three or more sentences."
GOOD = "The canal joins two rivers. It was dug by hand in nine years. Boats of forty metres still pass it."
BETTER = GOOD + " It is closed in winter."
REFUSAL = "I'm sorry, but I cannot help with that."
OURS = {"id": "0123456789abcdef", "meta": pack_meta({"method": "respond", "parents": ["a"], "verified": True})}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
CALLS = [{"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]
KINDS: dict[str, Row] = {
    "prompt": {"prompt": QUESTION},
    "response": {"prompt": QUESTION, "response": GOOD, "reasoning": "Which canal?", "tools": TOOLS},
    "unpaired": {"prompt": QUESTION, "response": REFUSAL, "label": False},
    "tool calls": {"prompt": QUESTION, "response": "", "tool_calls": CALLS, "tools": TOOLS},
    "conversation": {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]},
    "preference": {
        "prompt": QUESTION, "chosen": GOOD, "rejected": REFUSAL, "margin": 2.5, "soft_label": 0.75,
        "chosen_reasoning": "Which canal?", "rejected_reasoning": "Which river?", "tools": TOOLS,
    },
    "samples": {"prompt": QUESTION, "responses": [REFUSAL, GOOD], "reasoning": ["Which?", None], "tools": TOOLS},
    "ranked": {"prompt": QUESTION, "responses": [GOOD, BETTER, REFUSAL], "scores": [9.0, 8, None], "ranks": [1, 2, 3]},
    "document": {"text": f"{QUESTION} {BETTER}"},
}  # fmt: skip


def write(content: list[Row], path: str = "in.jsonl") -> Path:
    Path(path).write_bytes(b"".join(map(dump_line, content)))
    return Path(path)


def filtered(content: list[Row], output: str = "out.jsonl", shape: str | None = None, **options: Any) -> Outcome:
    return perform(Filter, write(content), "sim", output, Options(**options), format=shape, overwrite=True)


def without_blanks(row: Row) -> Row:
    return {column: value for column, value in row.items() if value != ""}


def reasons() -> list[str]:
    return [row["reason"] for row in rows("out.rejected.jsonl")]


@pytest.mark.parametrize("name", KINDS)
def test_a_kept_row_is_the_very_row_that_came_in(name: str) -> None:
    source = write([{**KINDS[name], **OURS, "licence": "CC0"}])
    perform(Filter, source, "sim", "out.jsonl", Options())
    assert rows("out.jsonl") == rows(source)
    perform(Filter, Path("out.jsonl"), "sim", "again.jsonl", Options())
    assert Path("again.jsonl").read_bytes() == Path("out.jsonl").read_bytes()


@pytest.mark.parametrize("name", KINDS)
def test_a_row_of_somebody_else_keeps_all_that_it_holds(name: str) -> None:
    filtered([{**KINDS[name], "licence": "CC0", "id": 7}])
    (row,) = rows("out.jsonl")
    assert row["licence"] == "CC0" and row["meta"]["source_id"] == "7"
    assert row.items() >= without_blanks(KINDS[name]).items()


@pytest.mark.parametrize("name", KINDS)
def test_a_rejected_row_is_whole(name: str) -> None:
    row = {**without_blanks(KINDS[name]), "licence": "CC0"}
    filtered([row, row], dedup=["0.7"])
    assert reasons() == ["duplicate"]
    assert rows("out.rejected.jsonl")[0]["record"].items() >= row.items()
    write([{"question": QUESTION, "answer": "x"}], "bench.jsonl")
    filtered([row], against=["bench.jsonl"])
    assert reasons() == ["contaminated:bench"]
    assert rows("out.rejected.jsonl")[0]["record"].items() >= row.items()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": QUESTION, "response": REFUSAL}, "refusal"),
        ({"prompt": QUESTION, "completion": REFUSAL, "label": True}, "refusal"),
        ({"prompt": QUESTION, "chosen": REFUSAL, "rejected": GOOD}, "refusal"),
        ({"prompt": QUESTION, "responses": [REFUSAL, QUESTION]}, "refusal"),
        ({"prompt": QUESTION, "responses": [REFUSAL, GOOD], "ranks": [1, 2]}, "refusal"),
        ({"prompt": QUESTION, "responses": [GOOD, REFUSAL], "scores": [1, 9]}, "refusal"),
        ({"text": "all the same again " * 40}, "repetition"),
    ],
)
def test_rules_look_at_the_answers_that_would_be_learned_from(row: Row, reason: str) -> None:
    filtered([row])
    assert reasons() == [reason]
    filtered([row], tag=True)
    assert rows("out.jsonl")[0]["meta"]["tags"][0] == reason


@pytest.mark.parametrize(
    "answers",
    [
        {"response": f"You ask: {QUESTION}"},
        {"chosen": GOOD, "rejected": f"You ask: {QUESTION}"},
        {"responses": [GOOD, f"You ask: {QUESTION}"]},
        {"responses": [GOOD, f"You ask: {QUESTION}"], "ranks": [1, 2]},
    ],
)
def test_benchmark_questions_are_found_in_every_answer(answers: Row) -> None:
    write([{"question": QUESTION, "answer": "x"}], "bench.jsonl")
    filtered([{"prompt": "Tell me about canals.", **answers}], rule=["none"], against=["bench.jsonl"])
    assert reasons() == ["contaminated:bench"]


@pytest.mark.parametrize("name", KINDS)
def test_a_benchmark_may_be_of_any_kind(name: str) -> None:
    write([KINDS[name]], "bench.jsonl")
    text = KINDS[name].get("text", QUESTION)
    filtered([{"prompt": text, "response": GOOD}, {"prompt": "Name a river."}], rule=["none"], against=["bench.jsonl"])
    assert reasons() == ["contaminated:bench"]


def test_documents_are_deduplicated_by_their_text() -> None:
    words = " ".join(f"Step {step} takes {step * 7} minutes at most." for step in range(40))
    texts = [words, words.upper(), f"{words} Then it rests.", "Another text altogether."]
    filtered([{"text": text} for text in texts], rule=["none"], dedup=["0.7"])
    assert reasons() == ["duplicate", "similar"]
    filtered([{"text": text} for text in texts], rule=["none"], dedup=["1"])
    assert reasons() == ["duplicate"]


def test_several_preferences_of_one_prompt_stay_and_a_repeated_one_goes() -> None:
    pairs = [{"prompt": QUESTION, "chosen": GOOD, "rejected": other} for other in ("No.", "Never.", "No.")]
    source = write([{**pair, **OURS, "id": f"{number:016x}"} for number, pair in enumerate(pairs)])
    perform(Filter, source, "sim", "out.jsonl", Options(rule=["none"], dedup=["0.7"]))
    assert [row["rejected"] for row in rows("out.jsonl")] == ["No.", "Never."]
    assert reasons() == ["duplicate"]


@pytest.mark.parametrize("name", KINDS)
def test_rows_of_a_pool_count_as_kept_before(name: str) -> None:
    write([KINDS[name], {**KINDS[name], "id": 1}], "pool.jsonl")
    text = KINDS[name].get("text")
    near = {"text": f"{text} Then it rests."} if text else {"prompt": QUESTION.replace("three", "four")}
    other = {"text": "Another."} if text else {"prompt": "Name a river."}
    lines: list[Row] = [KINDS[name], {**KINDS[name], **near}, {**KINDS[name], **other}]
    filtered(lines, rule=["none"], dedup=["0.7"], pool=["pool.jsonl"])
    assert reasons() == ["duplicate", "similar"] and len(rows("out.jsonl")) == 1
    fingerprint = json.loads(Path("out.meta.json").read_text())["result"]["fingerprint"]
    write([KINDS[name]], "pool.jsonl")
    filtered(lines, rule=["none"], dedup=["0.7"], pool=["pool.jsonl"])
    assert json.loads(Path("out.meta.json").read_text())["result"]["fingerprint"] != fingerprint


def test_a_file_of_several_kinds_is_of_the_kind_of_most_rows() -> None:
    pair = KINDS["preference"]
    filtered([KINDS["prompt"], pair, {**pair, "prompt": "Name a river."}], rule=["none"])
    assert len(rows("out.jsonl")) == 2 and "rejected" in rows("out.jsonl")[0]
    (line,) = rows("out.rejected.jsonl")
    assert line["stage"] == "read"


def test_a_pool_needs_a_threshold_and_rows_that_can_be_read() -> None:
    with pytest.raises(InputError, match="--dedup"):
        filtered([KINDS["prompt"]], pool=["in.jsonl"])
    Path("pool.jsonl").write_text('{"prompt": "A?"}\n{"prompt": \n')
    with pytest.raises(InputError, match=r"pool\.jsonl:2: .*fix the line"):
        filtered([KINDS["prompt"]], dedup=["0.7"], pool=["pool.jsonl"])


def test_the_chosen_answer_is_verified() -> None:
    right, wrong = "2 + 3 = 5.\nAnswer: 5", "2 + 3 = 6.\nAnswer: 6"
    pair = {"prompt": "What is 2 + 3?", "answer": "5"}
    swapped = {**pair, "chosen": wrong, "rejected": right}
    filtered([{**pair, "chosen": right, "rejected": wrong}, swapped], rule=["none"], verify=["answer"])
    assert reasons() == ["wrong:answer"] and len(rows("out.jsonl")) == 1
    with pytest.raises(InputError, match="documents hold no answers"):
        filtered([KINDS["document"]], verify=["answer"])


def test_a_shape_may_be_forced_and_an_unknown_one_is_named() -> None:
    row = {"prompt": QUESTION, "chosen": GOOD, "rejected": REFUSAL}
    filtered([row], shape="preference")
    assert rows("out.jsonl")[0]["rejected"] == REFUSAL
    with pytest.raises(InputError, match="--format"):
        filtered([row], shape="preferense")
    with pytest.raises(InputError, match=r"in\.jsonl"):
        filtered([{"a": 1}])


TEXTS = st.text("abc 水é.\n", min_size=1, max_size=9).filter(str.strip)
ROWS = {
    "prompt": st.fixed_dictionaries({"prompt": TEXTS}),
    "response": st.fixed_dictionaries({"prompt": TEXTS, "response": TEXTS}),
    "preference": st.fixed_dictionaries({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS}),
    "samples": st.fixed_dictionaries({"prompt": TEXTS, "responses": st.lists(TEXTS, min_size=2, max_size=3)}),
    "document": st.fixed_dictionaries({"text": TEXTS}),
}
COLUMNS = st.dictionaries(st.sampled_from(("licence", "source", "title", "answer", "constraint", "notes")), TEXTS)


def texts_in(value: Any) -> set[str]:
    """Return all texts of a JSON value, those of a line that could not be used among them."""
    if isinstance(value, dict):
        inner = json.loads(value["raw"]) if "raw" in value else {}
        return set().union(*map(texts_in, [*value.values(), *inner.values()]))
    return set().union(*map(texts_in, value)) if isinstance(value, list) else {str(value)}


@settings(max_examples=10)
@pytest.mark.parametrize("name", ROWS)
@given(data=st.data(), tag=st.booleans())
def test_no_text_of_a_row_disappears(name: str, data: st.DataObject, tag: bool) -> None:
    drawn: list[tuple[Row, Row]] = data.draw(st.lists(st.tuples(ROWS[name], COLUMNS), min_size=1, max_size=4))
    lines: list[Row] = [{**columns, **row} for row, columns in drawn]
    filtered(lines, dedup=["0.7"], tag=tag)
    written = set().union(*map(texts_in, [*rows("out.jsonl"), *rows("out.rejected.jsonl")]))
    lost = texts_in(lines) - written
    assert not [text for text in lost if text.strip() not in {one.strip() for one in written}]
