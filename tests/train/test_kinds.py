"""Trainers read files of every kind: the tokens are those of the rows, never the bytes of the file."""

import csv

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.records.reader import DOCUMENTS
from datagen_train.data.split import read_rows

pa = pytest.importorskip("pyarrow")


def call(line: str) -> Result:
    return CliRunner().invoke(app, line.split(), prog_name="datagen", catch_exceptions=False)


@pytest.fixture(autouse=True)
def files() -> None:
    import pyarrow.parquet

    rows = [{"question": f"What is {n} + {n}?", "answer": f"It is {2 * n}."} for n in range(20)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), "rows.parquet")
    pyarrow.parquet.write_table(pa.table({"text": ["Water boils.", "Ice melts."]}), "texts.parquet")
    with open("rows.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_check_shows_the_rows_of_a_table(name: str) -> None:
    ran = call(f"train check {name} --model tiny")
    assert ran.exit_code == 0, ran.output
    assert "What is 0 + 0?" in ran.output.replace("|", "") and "PAR1" not in ran.output


def test_documents_of_a_parquet_are_read_and_prompts_are_refused() -> None:
    documents, _ = read_rows("texts.parquet", DOCUMENTS)
    assert [document.text for document in documents] == ["Water boils.", "Ice melts."]
    ran = call("train pretrain rows.parquet --model tiny -o out")
    assert ran.exit_code == 2
    assert "rows.parquet: holds prompts, not documents" in ran.output
