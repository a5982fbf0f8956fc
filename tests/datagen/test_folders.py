"""Folders as inputs: all of their files, in the order of their names, with the place of each bad line; nothing else."""

import gzip
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.records.files import input_digest, open_input, output_stem
from tests.jobs import rows


def call(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), prog_name="datagen", catch_exceptions=False)


def write(name: str, *prompts: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps({"prompt": prompt, "response": "r"}) + "\n" for prompt in prompts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def prompts_of(name: str) -> list[str]:
    ran = call(f"filter {name} --rule none -o out.jsonl --overwrite")
    assert ran.exit_code == 0, ran.output
    return [row["prompt"] for row in rows("out.jsonl")]


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names() -> None:
    write("shards/b.jsonl", "two", "three")
    write("shards/a.jsonl.gz", "one")
    write("shards/sub/c.json", "four")
    Path("shards/d.csv").write_text("prompt,response\nfive,r\n")
    for name in ("README.md", "LICENSE", "b.meta.json", "b.rejected.jsonl", ".hidden", "dataset_infos.json"):
        Path("shards", name).write_text("no rows")
    assert prompts_of("shards") == ["one", "two", "three", "five", "four"]


def test_a_bad_line_of_a_folder_has_the_place_in_its_own_file() -> None:
    write("shards/a.jsonl", "one")
    Path("shards/b.jsonl").write_text('{"prompt": "two"}\nbroken\n')
    ran = call("filter shards --rule none -o out.jsonl")
    assert "shards/b.jsonl:2: not JSON" in ran.output
    (bad,) = [row["record"] for row in rows("out.rejected.jsonl")]
    assert (bad["source"], bad["line"]) == ("shards/b.jsonl", 2)


def test_the_outputs_of_a_folder_have_its_name() -> None:
    write("shards/a.jsonl", "one")
    assert call("respond shards/ --model sim").exit_code == 0
    assert Path("shards.respond.jsonl").exists()
    assert call("convert shards").exit_code == 0
    assert Path("shards.trl.jsonl").exists()


@pytest.mark.parametrize(
    "line",
    ["respond shards --model sim -o shards/x.jsonl", "convert shards -o shards/x.jsonl", "respond . --model sim"],
)
def test_nothing_is_written_into_the_folder_that_is_read(line: str) -> None:
    write("shards/a.jsonl", "one")
    ran = call(line)
    assert ran.exit_code == 2
    assert "all of which is read; choose another -o" in ran.output


def test_what_a_folder_holds_is_part_of_a_run() -> None:
    def digest() -> str:
        with open_input("shards") as file:
            return input_digest(file)

    write("shards/a.jsonl", "one")
    before = digest()
    assert digest() == before
    write("shards/b.jsonl", "two")
    assert digest() != before


def test_a_file_that_holds_no_rows_is_refused_and_not_left_out() -> None:
    write("shards/a.jsonl", "one")
    Path("shards/model.safetensors").write_bytes(b"\0" * 99)
    ran = call("respond shards --model sim -o out.jsonl")
    assert ran.exit_code == 2
    assert "shards/model.safetensors: no file of rows" in ran.output


def test_text_and_rows_in_one_folder_are_refused() -> None:
    write("shards/a.jsonl", "one")
    Path("shards/b.txt").write_text("a prompt\n")
    ran = call("respond shards --model sim -o out.jsonl")
    assert ran.exit_code == 2
    assert "holds text (shards/b.txt) and rows (shards/a.jsonl)" in ran.output


def test_splits_are_never_mixed() -> None:
    write("set/data/train-00000-of-00002.jsonl", "one")
    write("set/data/train-00001-of-00002.jsonl", "two")
    write("set/data/test-00000-of-00001.jsonl", "three")
    ran = call("respond set --model sim -o out.jsonl")
    assert ran.exit_code == 2
    assert "set: several splits in one folder (test, train); name one of them, such as set:test" in ran.output
    assert prompts_of("set:train") == ["one", "two"]
    assert prompts_of("set:test") == ["three"]
    assert "no split dev in it (test, train)" in call("respond set:dev --model sim").output
    assert output_stem("set:train") == "set-train"


def test_a_folder_without_rows_is_an_error() -> None:
    Path("empty").mkdir()
    assert "empty: a folder without a file of rows" in call("respond empty --model sim").output


def test_folders_of_datasets_are_read_split_by_split() -> None:
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_list([{"prompt": f"p{n}", "response": "r"} for n in range(5)])
    test = datasets.Dataset.from_list([{"prompt": "t", "response": "r"}])
    train.save_to_disk("one", num_shards=2)
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk("both")
    assert prompts_of("one") == prompts_of("both:train") == prompts_of("both/train") == [f"p{n}" for n in range(5)]
    assert prompts_of("both:test") == ["t"]
    ran = call("respond both --model sim")
    assert ran.exit_code == 2
    assert "both: several splits in one folder (train, test)" in ran.output


def test_a_folder_of_datasets_leads_nowhere_else() -> None:
    write("secret.jsonl", "one")
    Path("set").mkdir()
    Path("set/state.json").write_text('{"_data_files": [{"filename": "../secret.jsonl"}]}')
    ran = call("respond set --model sim")
    assert ran.exit_code == 2
    assert "is no name of a file in this folder" in ran.output


def test_a_folder_serves_wherever_rows_are_read() -> None:
    write("shards/a.jsonl", "How many legs do three spiders have in all?")
    write("rows.jsonl", "How many legs do three spiders have in all?", "Name a colour.")
    assert call("filter rows.jsonl --rule none --against shards -o out.jsonl").exit_code == 0
    assert [row["prompt"] for row in rows("out.jsonl")] == ["Name a colour."]
