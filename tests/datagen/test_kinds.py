"""Files of every kind give the same rows through a command; what is no file of rows is refused, and nothing is sent."""

import csv
import gzip
import io
import json
import pickle
import shlex
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.errors import InputError
from datagen.records import lines
from datagen.records.files import dump_line, open_input
from datagen.records.kinds import file_lines
from datagen.records.record import Row
from tests.jobs import rows

pa = pytest.importorskip("pyarrow")
ROWS: list[Row] = [
    {"instruction": "Name a colour, please", "input": None, "output": "Blue; or “red”"},
    {"instruction": "Write a poem\nin two lines", "input": "tab\there", "output": "Roses\nare red"},
    {"instruction": "加上 2 和 3", "input": "", "output": "5"},
]
TEXTS = [(row["instruction"] + (f"\n\n{row['input']}" if row["input"] else ""), row["output"]) for row in ROWS]


def call(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), prog_name="datagen", catch_exceptions=False)


def texts_through_filter(name: str) -> list[tuple[str, str]]:
    """Return the prompts and responses that `filter` keeps, read back through the reader of JSON lines."""
    ran = call(f"filter {shlex.quote(name)} --rule none -o out.jsonl --overwrite")
    assert ran.exit_code == 0, ran.output
    return [(row["prompt"], row["response"]) for row in rows("out.jsonl")]


def json_lines() -> bytes:
    return b"".join(map(dump_line, ROWS))


def table() -> Any:
    return pa.Table.from_pylist(ROWS)


def csv_of(delimiter: str, encoding: str = "utf-8") -> bytes:
    sheet = io.StringIO(newline="")
    writer = csv.DictWriter(sheet, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return sheet.getvalue().encode(encoding)


def parquet() -> bytes:
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(table(), sink, row_group_size=2)
    return sink.getvalue()


def arrow(opened: Callable[..., Any]) -> bytes:
    sink = io.BytesIO()
    with opened(sink, table().schema) as writer:
        writer.write_table(table())
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


KINDS: dict[str, Callable[[], bytes]] = {
    "x.jsonl": json_lines,
    "array.json": lambda: json.dumps(ROWS, indent=1).encode(),
    "wrapped.json": lambda: json.dumps({"data": ROWS}, indent=1).encode(),
    "wrapped-in-one-line.json": lambda: json.dumps({"data": ROWS}).encode(),
    "comma.csv": lambda: csv_of(","),
    "excel.csv": lambda: csv_of(";", "utf-8-sig"),
    "x.tsv": lambda: csv_of("\t"),
    "x.parquet": parquet,
    "parquet-without-its-name": parquet,
    "x.arrow": lambda: arrow(pa.ipc.new_file),
    "stream.arrow": lambda: arrow(pa.ipc.new_stream),
    "x.jsonl.gz": lambda: gzip.compress(json_lines()),
    "two-members.gz": lambda: b"".join(gzip.compress(dump_line(row)) for row in ROWS),
    "x.csv.gz": lambda: gzip.compress(csv_of(",")),
    "x.parquet.gz": lambda: gzip.compress(parquet()),
    "stream.arrow.gz": lambda: gzip.compress(arrow(pa.ipc.new_stream)),
    "x.jsonl.zst": lambda: zstd(json_lines()),
    "x.parquet.zst": lambda: zstd(parquet()),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_rows_of_every_kind_of_file_are_the_same(name: str) -> None:
    Path(name).write_bytes(KINDS[name]())
    assert texts_through_filter(name) == TEXTS


def test_one_object_over_many_lines_is_a_row() -> None:
    Path("x.json").write_text(json.dumps(ROWS[1], indent=2))
    assert texts_through_filter("x.json") == TEXTS[1:2]


@pytest.mark.parametrize("text", ['["Name a colour", "Add 2 and 3"]', '"Name a colour"\n"Add 2 and 3"\n'])
def test_json_strings_are_prompts_or_documents(text: str) -> None:
    Path("x.json").write_text(text)
    assert call("respond x.json --model sim -o out.jsonl").exit_code == 0
    assert [row["prompt"] for row in rows("out.jsonl")] == ["Name a colour", "Add 2 and 3"]
    assert call("convert x.json -o out.trl.jsonl").exit_code == 0
    assert rows("out.trl.jsonl") == [{"text": "Name a colour"}, {"text": "Add 2 and 3"}]


def database() -> bytes:
    with sqlite3.connect("x.db") as connection:
        connection.execute("create table rows (prompt text)")
    return Path("x.db").read_bytes()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr("x.jsonl", json_lines())
    return file.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "x.zip": (archive, "a zip archive; unpack it"),
    "sheet.xlsx": (archive, "save a spreadsheet as CSV"),
    "x.bin": (database, "an SQLite database; save a table as CSV"),
    "x.dat": (lambda: pickle.dumps(ROWS), "a pickle; it can run code"),
    "x.pkl": (lambda: b"(lp0\nS'Name a colour'\np1\na.", "a pickle; it can run code"),
    "x.txt": (lambda: b"%PDF-1.7\n1 0 obj", "PDF; save its text"),
    "utf16.jsonl": (lambda: json_lines().decode().encode("utf-16"), "UTF-16; rewrite it: iconv -f UTF-16 -t UTF-8"),
    "utf32.jsonl": (lambda: json_lines().decode().encode("utf-32"), "UTF-32; rewrite it: iconv"),
    "utf16le.txt": (lambda: "Name a colour\n".encode("utf-16-le"), "binary data, or text that is not UTF-8"),
    "nul.txt": (lambda: b"Name a colour\0\n", "binary data"),
    "x.bz2": (lambda: b"BZh91AY&SYrest", "a bzip2 archive; unpack it"),
    "x.yaml": (lambda: b"- instruction: Name a colour\n  output: Blue\n", "YAML; write its rows as JSON lines"),
    "x.yml": (lambda: b"instruction: Name a colour\n", "YAML"),
    "x.html": (lambda: b"<p>Name a colour</p>\n", "HTML; pages are read by 'datagen backtranslate'"),
    "cut.parquet": (lambda: parquet()[:-40], "damaged, after row 0"),
    "cut.jsonl.gz": (lambda: gzip.compress(json_lines())[:-12], "damaged or cut off"),
    "cut.jsonl.zst": (lambda: zstd(json_lines() * 99)[:-20], "damaged or cut off"),
    "twice.gz": (lambda: gzip.compress(gzip.compress(json_lines())), "packed twice"),
    "headless.csv": (lambda: b"What is 1+1?,2\nWhat is 2+2?,4\n", "the first line of a table must name its columns"),
    "mac.csv": (lambda: b"prompt,response\ra,b\r", r"mac.csv:1: not CSV: a carriage return without a line feed"),
    "twice.csv": (lambda: b"prompt,prompt\na,b\n", 'two columns are named "prompt"'),
    "rows.json": (lambda: b'{\n "prompt": "a"\n}\n{\n "prompt": "b"\n}\n', "one row per line: jq -c . FILE"),
    "beside.json": (lambda: json.dumps({"canary": 1, "examples": ROWS}).encode(), "(found: canary, examples)"),
    "torn.json": (lambda: b'["Name a colour", "Add', "starts like a JSON array but is not one"),
}


@pytest.mark.parametrize("command", ["respond {} --model sim -o out.jsonl", "convert {} -o out.jsonl"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_of_rows_is_refused_with_the_way_out(name: str, command: str) -> None:
    make, says = REFUSED[name]
    Path(name).write_bytes(make())
    ran = call(command.format(name))
    assert (ran.exit_code, Path("out.jsonl").exists()) == (2, False), ran.output
    assert says in " ".join(ran.output.split())
    assert ran.output.count("\n") == 1


def lines_of(name: str, data: bytes) -> list[tuple[int, Row | None, str]]:
    Path(name).write_bytes(data)
    with open_input(name) as file:
        return [(line.number, line.row, line.problem) for line in file_lines(name, file, "prompt")]


def test_a_bad_row_of_a_csv_is_named_by_the_line_where_it_begins() -> None:
    data = b'prompt,response\n"a\nb",c\nd\n\n"e" f,g\nh,\xff\ni,j\n'
    (good, short, quote, encoding, last) = lines_of("x.csv", data)
    assert good == (2, {"prompt": "a\nb", "response": "c"}, "")
    assert short == (4, None, "1 cell, where the first line names 2 columns")
    assert quote[:2] == (6, None) and "not CSV" in quote[2]
    assert encoding == (7, None, "not UTF-8")
    assert last == (8, {"prompt": "i", "response": "j"}, "")


def test_a_quote_that_nothing_closes_is_named_by_its_line() -> None:
    *_, (number, row, problem) = lines_of("x.csv", b'prompt\na\n"b\nc\n')
    assert (number, row) == (3, None)
    assert "not CSV" in problem


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(st.lists(st.tuples(CELL, CELL), min_size=1), st.sampled_from(",;\t|"), st.booleans())
def test_any_cells_come_back_from_a_csv(cells: list[tuple[str, str]], delimiter: str, is_excel: bool) -> None:
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet, quoting=csv.QUOTE_ALL, delimiter=delimiter, lineterminator="\r\n" if is_excel else "\n")
    writer.writerows([("instruction", "output"), *cells])
    data = sheet.getvalue().encode("utf-8-sig" if is_excel else "utf-8")
    assert [row for _, row, _ in lines_of("any.csv", data)] == [
        {"instruction": one, "output": other} for one, other in cells
    ]


def test_values_of_a_table_become_those_of_json() -> None:
    import datetime

    import pyarrow.parquet

    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())])
    values: dict[str, Any] = {
        "messages": pa.array([[{"role": "user", "content": "a", "name": None}]], pa.list_(message)),
        "meta": ['{"method": "evolve"}'],
        "prompt": ["[not JSON"],
        "day": [datetime.date(2026, 1, 2)],
        "score": [float("nan")],
        "raw": [b"text"],
        "picture": [b"\xff\x00"],
    }
    pyarrow.parquet.write_table(pa.table(values), "x.parquet")
    ((number, row, problem),) = lines_of("x.parquet", Path("x.parquet").read_bytes())
    assert (number, problem) == (1, "")
    assert row == {
        "messages": [{"role": "user", "content": "a"}], "meta": {"method": "evolve"}, "prompt": "[not JSON",
        "day": "2026-01-02", "score": None, "raw": "text", "picture": "/wA=",
    }  # fmt: skip


def test_a_value_that_json_cannot_hold_is_a_bad_row_of_a_table() -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"prompt": ["a", "b"], "score": [float("inf"), 1.0]}), "x.parquet")
    bad, good = lines_of("x.parquet", Path("x.parquet").read_bytes())
    assert bad == (1, None, '"score" is infinite, which JSON cannot hold')
    assert good == (2, {"prompt": "b", "score": 1.0}, "")


def test_a_table_that_changes_while_it_is_read_is_an_error() -> None:
    path = Path("x.parquet")
    path.write_bytes(parquet())
    with open_input("x.parquet") as file:
        assert [sum(1 for _ in file_lines("x.parquet", file, "prompt")) for _ in range(2)] == [3, 3]
        path.write_bytes(parquet().replace(b"Blue", b"Pink"))
        with pytest.raises(InputError, match="was changed while it was read"):
            list(file_lines("x.parquet", file, "prompt"))


def test_a_packed_file_of_one_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1 << 20)
    Path("x.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "' + b"a" * (1 << 20)))
    ran = call("respond x.jsonl.gz --model sim -o out.jsonl")
    assert ran.exit_code == 2
    assert "line 1 is longer than 1 MiB" in ran.output


def test_a_csv_without_its_name_is_no_list_of_prompts() -> None:
    Path("rows").write_bytes(csv_of(";"))
    assert texts_through_filter("rows") == TEXTS
    Path("prompts.txt").write_text("Apples, pears and plums\nName them, please\n")
    assert call("respond prompts.txt --model sim -o out.jsonl --overwrite").exit_code == 0
    assert [row["prompt"] for row in rows("out.jsonl")] == ["Apples, pears and plums", "Name them, please"]


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl.zst"])
def test_a_library_that_is_not_installed_is_named_with_what_installs_it(name: str) -> None:
    Path(name).write_bytes(KINDS[name]())
    code = "import sys; sys.modules['pyarrow'] = None; from datagen.__main__ import main; main()"
    command = [sys.executable, "-c", code, "respond", name, "--model", "sim"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: {name}: to read ")
    assert "pyarrow is needed. To install: " in ran.stderr and ran.stderr.endswith("[data]'\n")
    assert ran.stderr.count("\n") == 1


def test_documents_of_every_kind_are_a_corpus() -> None:
    text = "# How bread rises\n\n" + "Yeast eats the sugar in the dough and makes gas, which lifts it. " * 9
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"text": text}]).save_to_disk("saved")
    assert call("convert saved --to parquet -o x.parquet").exit_code == 0
    Path("notes").write_text(text)
    for name in ("saved", "x.parquet", "notes"):
        ran = call(f"backtranslate {name} --model sim -o out.jsonl --overwrite --dry-run")
        assert ran.exit_code == 0, ran.output
        assert "1 row to read" in ran.output


def test_personas_may_be_rows() -> None:
    Path("seeds.jsonl").write_text('{"prompt": "Name a colour.", "response": "Blue"}\n' * 9)
    for name, text in (
        ("p.txt", "a baker\n"),
        ("p.jsonl", '{"persona": "a baker"}\n'),
        ("p.csv", "persona\na baker\n"),
    ):
        Path(name).write_text(text)
        ran = call(f"self-instruct seeds.jsonl -n 2 --personas {name} --model sim --dry-run")
        assert ran.exit_code == 0 and "a baker" in ran.output, ran.output
    Path("p.jsonl").write_text('{"job": "a baker"}\n')
    ran = call("self-instruct seeds.jsonl -n 2 --personas p.jsonl --model sim --dry-run")
    assert 'p.jsonl:1: no text in "persona"' in ran.output
