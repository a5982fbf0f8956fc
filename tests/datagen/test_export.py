"""Rows as tables come back: Parquet, CSV, a folder of datasets. What is left out is named; nothing is no success."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from datagen.commands.convert import Options, run
from datagen.commands.main import app
from datagen.records.export import write_parquet
from datagen.records.files import dump_line, open_input
from datagen.records.kinds import file_lines
from datagen.records.layout import pack_meta
from datagen.records.ranked import SAMPLES
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import Row

pytest.importorskip("pyarrow")
TABLES = {"parquet": "out.parquet", "csv": "out.csv", "datasets": "out"}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
META = st.builds(
    lambda method, details: pack_meta({"method": method, "parents": ["0" * 16], **details}),
    TEXT,
    st.fixed_dictionaries({"round": st.integers(0, 9), "scores": st.lists(st.integers() | st.none(), max_size=3)}),
)
USER = st.builds(lambda text: {"role": "user", "content": text}, TEXT)
SYSTEM = st.builds(lambda text: {"role": "system", "content": text}, TEXT)
PROMPT = TEXT | st.tuples(SYSTEM, USER).map(list)
IDS = st.text("0123456789abcdef", min_size=16, max_size=16)
COMMON = {"id": IDS, "prompt": PROMPT, "meta": META}
PAIRS = {"chosen": TEXT.map("a{}".format), "rejected": TEXT.map("b{}".format), "margin": st.integers(1, 9)}
SEVERAL = {"responses": st.lists(TEXT, min_size=2, max_size=2), "ranks": st.just([1, 2])}
SOME = {"response": TEXT, "source": st.none() | TEXT}
ROWS: dict[str, tuple[Kind[Any], Any]] = {
    "prompts": (PROMPTS, st.fixed_dictionaries({**COMMON, "topic": TEXT}, optional=SOME)),
    "preferences": (PREFERENCES, st.fixed_dictionaries({**COMMON, **PAIRS})),
    "documents": (DOCUMENTS, st.fixed_dictionaries({"id": IDS, "text": TEXT, "meta": META})),
    "samples": (SAMPLES, st.fixed_dictionaries({**COMMON, **SEVERAL})),
}


def call(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), prog_name="datagen", catch_exceptions=False)


def write(rows: list[Row], path: str = "rows.jsonl") -> None:
    Path(path).write_bytes(b"".join(map(dump_line, rows)))


def read(path: str, kind: Kind[Any]) -> list[Any]:
    with open_input(path) as file:
        return list(Reader(path, file, kind).read())


@pytest.mark.parametrize("to", TABLES)
@pytest.mark.parametrize("name", ROWS)
def test_rows_come_back_from_a_table(name: str, to: str) -> None:
    kind, strategy = ROWS[name]

    @settings(max_examples=8 if to == "datasets" else 25, phases=[Phase.explicit, Phase.generate])
    @given(st.lists(strategy, min_size=1, max_size=4, unique_by=lambda row: row["id"]))
    def holds(rows: list[Row]) -> None:
        write(rows)
        before = read("rows.jsonl", kind)
        assert run("rows.jsonl", Options(to=to, output=TABLES[to], overwrite=True, quiet=True)) == 0
        after = read(TABLES[to], kind)
        for one, other in zip(before, after, strict=True):
            one.extra.update({key: one.extra.get(key) for key in other.extra})  # a table has every column
            assert one == other

    holds()


def test_a_row_of_another_tool_keeps_its_id_and_its_columns() -> None:
    write([{"id": "seed_7", "instruction": "Add", "input": "1 2", "output": "3", "topic": "sums", "level": 3}])
    before = read("rows.jsonl", PROMPTS)
    assert call("convert rows.jsonl --to parquet -o out.parquet").exit_code == 0
    assert read("out.parquet", PROMPTS) == before
    assert before[0].source_id == "seed_7"


def test_calls_of_tools_and_reasoning_come_back_from_a_table() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]
    prompt = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"},
    ]
    row = {"prompt": prompt, "response": "3", "reasoning": "1 + 2", "tools": [{"type": "function", "function": {}}]}
    write_parquet([row, {"prompt": "Why?", "response": "So."}], Path("x.parquet"))
    with open_input("x.parquet") as file:
        first, second = (line.row for line in file_lines("x.parquet", file, "prompt"))
    assert first == row
    assert second is not None
    assert second["prompt"] == [{"role": "user", "content": "Why?"}]


def test_the_columns_of_a_parquet_have_fixed_types() -> None:
    pa = pytest.importorskip("pyarrow.parquet")
    write([{"id": "0" * 16, "prompt": "a", "response": "b", "meta": pack_meta({"k": 1})}])
    assert call("convert rows.jsonl --to parquet -o one.parquet").exit_code == 0
    write([{"id": "1" * 16, "prompt": "a", "response": "b", "meta": pack_meta({"other": []})}])
    assert call("convert rows.jsonl --to parquet -o two.parquet").exit_code == 0
    one, two = (pa.read_schema(f"{name}.parquet") for name in ("one", "two"))
    assert all(one.field(name).type == two.field(name).type for name in ("id", "prompt", "meta"))
    assert {one.field(name).type for name in ("id", "prompt", "response")} == {"string"}


def test_a_folder_of_datasets_is_one_for_the_library() -> None:
    datasets = pytest.importorskip("datasets")
    write([{"prompt": f"What is {n}?", "response": "A number."} for n in range(3)])
    assert call("convert rows.jsonl --to datasets").exit_code == 0
    assert datasets.load_from_disk("rows.datasets").to_list()[2] == {"prompt": "What is 2?", "response": "A number."}
    assert call("convert rows.jsonl --to datasets").exit_code == 2
    assert call("convert rows.jsonl --to datasets --overwrite").exit_code == 0
    Path("mine").mkdir()
    assert call("convert rows.jsonl --to datasets -o mine --overwrite").exit_code == 2


def test_a_csv_is_read_by_any_reader_of_csv() -> None:
    write([{"prompt": 'Say "hi",\nplease', "response": "hi"}])
    assert call("convert rows.jsonl --to csv").exit_code == 0
    with open("rows.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"prompt": 'Say "hi",\nplease', "response": "hi"}]
    assert call("convert rows.csv --to csv").exit_code == 2, "it would write over its input"


def test_each_row_that_is_left_out_is_named_by_its_line() -> None:
    Path("rows.jsonl").write_text('{"prompt": "a", "response": "b"}\nbroken\n{"prompt": "c"}\n')
    ran = call("convert rows.jsonl --to openai -o out.jsonl")
    assert ran.exit_code == 0
    assert "rows.jsonl:2: not JSON" in ran.output
    assert "rows.jsonl:3: no response (left out)" in ran.output
    assert "1 row; left out: " in ran.output
    assert "no response 1" in ran.output and "unreadable 1" in ran.output


def test_many_rows_that_are_left_out_are_counted() -> None:
    write([{"prompt": "a", "response": "b"}, *({"prompt": f"c{n}"} for n in range(50))])
    ran = call("convert rows.jsonl --to openai -o out.jsonl")
    assert ran.output.count("(left out)") == 20
    assert "... and 30 more are left out" in ran.output


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("", "--format alpaca --to openai", "no row could be used"),
        ("", "--to openai", "no rows (the file is empty)"),
        ('{"prompt": "a"}\n', "--to openai", "no row could be used: no response 1"),
        ("broken {\n", "--format prompt", "no row could be used: unreadable 1"),
        (json.dumps({"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2]}) + "\n", "", "'datagen pairs'"),
    ],
)
def test_a_file_without_a_row_to_convert_is_an_error(text: str, arguments: str, says: str) -> None:
    Path("rows.jsonl").write_text(text)
    ran = call(f"convert rows.jsonl -o out.jsonl {arguments}")
    assert (ran.exit_code, Path("out.jsonl").exists()) == (2, False)
    assert says in ran.output


def test_a_table_does_not_go_to_standard_output() -> None:
    write([{"prompt": "a", "response": "b"}])
    assert call("convert rows.jsonl --to parquet -o -").exit_code == 2


@pytest.mark.parametrize("to", TABLES)
@pytest.mark.parametrize(
    ("name", "kind"), [("sft/glaive_toolcall_100.json", PROMPTS), ("prefs/dpo_sharegpt_en_dev.json", PREFERENCES)]
)
def test_real_rows_come_back_from_a_table(name: str, kind: Kind[Any], to: str, real_data: Path) -> None:
    before = read(str(real_data / name), kind)
    assert run(str(real_data / name), Options(to=to, output=TABLES[to], quiet=True)) == 0
    after = read(TABLES[to], kind)
    assert [(row.prompt, row.tools) for row in after] == [(row.prompt, row.tools) for row in before]
    texts = ("response", "response_fields") if kind is PROMPTS else ("chosen", "rejected")
    for text in texts:
        assert [getattr(row, text) for row in after] == [getattr(row, text) for row in before]
