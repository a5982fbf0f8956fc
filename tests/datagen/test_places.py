"""No command destroys a file: what it reads, what somebody else made, and what lies under the names that it writes."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.engine.output import Output
from datagen.records.places import paths_in, refuse_overlap

ROWS = '{"prompt": "What is 1 + 1?", "response": "2"}\n{"prompt": "Name a river.", "response": "The Rhine."}\n'
SAMPLES = '{"prompt": "What is 1 + 1?", "responses": ["2", "3"]}\n'
REPLIES = '{"prompt": "What is 1 + 1?", "responses": ["2"]}\n'
VOTES = '{"prompt_id": "x", "responses": ["2", "3"], "ranks": [1, 2], "verdict": "order", "by": "kim"}\n'
FILES = {
    "rows.jsonl": ROWS,
    "samples.jsonl": SAMPLES,
    "replies.jsonl": REPLIES,
    "votes.jsonl": VOTES,
    "facts.jsonl": '{"text": "Water boils at 100 degrees."}\n',
    "personas.jsonl": "a baker\n",
    "bench.jsonl": '{"question": "What is 1 + 1?"}\n',
    "examples.jsonl": ROWS,
}


def call(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), prog_name="datagen", catch_exceptions=False)


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and ".datagen" not in path.parts}


@pytest.fixture(autouse=True)
def files() -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)


READ = [
    # the input, under each name that the output has
    "respond IN.jsonl --model sim -o IN.jsonl",
    "respond x.rejected.jsonl --model sim -o x.jsonl",
    "respond x.meta.json --model sim -o x.jsonl",
    "respond .datagen/parts/x.jsonl.part --model sim -o x.jsonl",
    "respond .datagen/parts/x.rejected.jsonl.part --model sim -o x.jsonl",
    "filter x.rejected.jsonl -o x.jsonl",
    "filter .datagen/parts/x.jsonl.part -o x.jsonl",
    "convert IN.jsonl -o IN.jsonl",
    "evolve IN.jsonl --model sim -o IN.jsonl",
    "constraints IN.jsonl --model sim -o IN.jsonl",
    "improve IN.jsonl --model sim -o IN.jsonl",
    "backtranslate IN.jsonl --model sim -o IN.jsonl",
    "self-instruct IN.jsonl --model sim -n 2 -o IN.jsonl",
    # other names of the input
    "filter IN.jsonl -o ./IN.jsonl",
    "filter folder/../IN.jsonl -o IN.jsonl",
    "filter IN.jsonl -o hard.jsonl",
    "filter IN.jsonl -o soft.jsonl",
    "filter soft.jsonl -o IN.jsonl",
    "filter hard.jsonl -o soft.jsonl",
    "convert hard.jsonl -o IN.jsonl",
    "convert soft.jsonl -o IN.jsonl",
    # files of options
    "respond rows.jsonl --model replay:replies.jsonl -o replies.jsonl",
    "respond rows.jsonl --model sim --strategy mcr --corpus facts.jsonl -o facts.jsonl",
    "respond rows.jsonl --model sim --strategy cot --examples examples.jsonl -o examples.jsonl",
    "self-instruct rows.jsonl --model sim -n 2 --personas personas.jsonl -o personas.jsonl",
    "filter rows.jsonl --against bench.jsonl#question -o bench.jsonl",
    "judge samples.jsonl --by human --votes votes.jsonl -o votes.jsonl",
    "judge samples.jsonl --by compare --judge replay:replies.jsonl -o replies.jsonl",
    "pairs samples.jsonl --by spin --teacher rows.jsonl -o rows.jsonl",
    "review samples.jsonl --votes samples.jsonl",
]


@pytest.mark.parametrize("line", READ)
def test_what_a_command_reads_is_never_written(line: str) -> None:
    Path("folder").mkdir()
    Path(".datagen/parts").mkdir(parents=True)
    Path("IN.jsonl").write_text('{"text": "A long text about rivers."}\n' if "backtranslate" in line else ROWS)
    os.link("IN.jsonl", "hard.jsonl")
    Path("soft.jsonl").symlink_to("IN.jsonl")
    if (source := Path(shlex.split(line)[1])) and not source.exists():
        source.write_text(ROWS)
    text, before = source.read_bytes(), contents()
    for options in ("", "--overwrite") if not line.startswith("review") else ("",):
        ran = call(f"{line} {options}")
        assert ran.exit_code == 2, ran.output
        assert "is read by this command, which would write" in ran.stderr
    assert source.read_bytes() == text
    assert contents() == before


STRANGERS = [
    "respond rows.jsonl --model sim -o x.jsonl",
    "evolve rows.jsonl --model sim -o x.jsonl",
    "filter rows.jsonl -o x.jsonl",
    "judge samples.jsonl --model sim -o x.jsonl",
    "pairs samples.jsonl -o x.jsonl",
    "magpie -n 2 --model sim -o x.jsonl",
]


@pytest.mark.parametrize("name", ["x.jsonl", "x.rejected.jsonl", "x.meta.json"])
@pytest.mark.parametrize("line", STRANGERS)
def test_a_file_of_somebody_else_under_a_name_of_the_output_stays(line: str, name: str) -> None:
    Path(name).write_text('{"prompt": "mine"}\n')
    before = contents()
    for options in ("", "--overwrite", "--dry-run"):
        if "--dry-run" in options and line.startswith(("filter", "pairs")):
            continue
        ran = call(f"{line} {options}")
        assert ran.exit_code == 2, ran.output
        assert f"{name}: exists and was not made by datagen" in ran.stderr
    assert contents() == before
    assert not Path(".datagen").exists()


NEIGHBOURS = ["x.jsonl.part", "x.rejected.jsonl.part", "x.meta.json.part", "y.jsonl.part", "y.meta.json.part", ".part"]


def test_a_file_that_is_called_like_a_part_is_nobodys_business() -> None:
    for name in NEIGHBOURS:
        Path(name).write_text("mine")
    for options in ("", "--overwrite"):
        assert call(f"respond rows.jsonl --model sim -o x.jsonl {options}").exit_code == 0
        assert call(f"convert rows.jsonl -o y.jsonl {options}").exit_code == 0
    assert [Path(name).read_text() for name in NEIGHBOURS] == ["mine"] * len(NEIGHBOURS)
    assert sorted(path.name for path in Path().glob("*.part")) == sorted(NEIGHBOURS)


@pytest.mark.parametrize("line", ["respond rows.jsonl --model sim -o x.jsonl", "convert rows.jsonl -o x.jsonl"])
def test_a_symlink_stays_one(line: str) -> None:
    Path("store").mkdir()
    Path("x.jsonl").symlink_to("store/rows.jsonl")
    for options in ("", "--overwrite"):
        assert call(f"{line} {options}").exit_code == 0
        assert Path("x.jsonl").is_symlink() and Path("store/rows.jsonl").stat().st_size
    assert [path.name for path in Path("store").iterdir() if path.name != ".datagen"] == ["rows.jsonl"]


def test_overwrite_replaces_what_datagen_made() -> None:
    assert call("respond rows.jsonl --model sim -o x.jsonl").exit_code == 0
    assert call("respond rows.jsonl --model sim -o x.jsonl --seed 1").exit_code == 2
    assert call("respond rows.jsonl --model sim -o x.jsonl --seed 1 --overwrite").exit_code == 0
    assert json.loads(Path("x.meta.json").read_text())["result"]["fingerprint"]["seed"] == 1


def test_what_goes_to_standard_output_is_not_written_to_the_input() -> None:
    """`datagen filter rows.jsonl -o - >> rows.jsonl` would read what it writes."""
    for command in ("filter rows.jsonl -o - >> rows.jsonl", "filter - -o rows.jsonl < rows.jsonl"):
        ran = subprocess.run(
            f"{shlex.quote(sys.executable)} -m datagen {command}", shell=True, capture_output=True, text=True
        )
        assert ran.returncode == 2 and "is read by this command" in ran.stderr, ran.stderr
        assert Path("rows.jsonl").read_text() == ROWS


@pytest.mark.parametrize("registry", ["", "{", "[]", '"text"'])
def test_a_list_of_datasets_that_cannot_be_added_to_is_left_alone(registry: str) -> None:
    Path("dataset_info.json").write_text(registry)
    ran = call("convert rows.jsonl --to llama-factory")
    assert ran.exit_code == 2 and "dataset_info.json: is not a JSON object" in ran.stderr
    assert Path("dataset_info.json").read_text() == registry
    assert not Path("rows.llama-factory.jsonl").exists()


@pytest.mark.parametrize(
    "spec",
    [
        "here", "replay:here", "here#field", "hf:here", "0.5*here", "here:function", "classifier:here#a,logprob",
        "judge:here=model", "judge:rubric=here", "2*judge:r=replay:here", ["other", "here"], ("x", ["here"]), "./here",
    ],
    ids=str,
)  # fmt: skip
def test_a_path_is_found_in_every_form_of_a_spec(spec: object) -> None:
    Path("here").touch()
    assert any(path.exists() for path in paths_in([{"any_option": spec}]))
    assert not any(
        path.exists() for path in paths_in([{"output": spec}, None, 5, "x" * 100_000, "a\0b"]) if is_sane(path)
    )


def is_sane(path: Path) -> bool:
    return "\0" not in str(path) and len(str(path)) < 255


def test_what_the_shell_calls_null_is_no_conflict() -> None:
    refuse_overlap([Path("/dev/null"), Path("x.jsonl")], paths_in(["/dev/null", "x" * 100_000, "a\0b", "nothing"]))


AUDIT = """
import os, sys
def note(event, arguments):
    name, flags = arguments[0] if arguments else None, arguments[2] if event == "open" else os.O_RDWR
    is_name = isinstance(name, str | os.PathLike)
    if event in ("open", "os.rename", "os.remove", "os.truncate") and is_name and flags & (os.O_WRONLY | os.O_RDWR):
        for path in arguments[:2] if event == "os.rename" else [name]:
            print(os.path.realpath(path), file=sys.stderr)
sys.addaudithook(note)
from datagen.__main__ import main
sys.argv = ["datagen", *sys.argv[1:]]
main()
"""
"""A run of the program that prints every file that it opens for writing, renames or removes."""


def test_every_file_that_a_run_writes_is_in_one_list() -> None:
    command = ["respond", "rows.jsonl", "--model", "sim", "-o", "x.jsonl", "--quiet"]
    ran = subprocess.run([sys.executable, "-c", AUDIT, *command], capture_output=True, text=True, check=True)
    here = os.path.realpath(".")
    written = {os.path.relpath(line, here) for line in ran.stderr.splitlines() if line.startswith(here)}
    listed = {str(path) for path in Output(Path("x.jsonl"), Path()).touched}
    listed |= {os.path.relpath(path, here) for path in listed}
    others = {path for path in written - listed if not re.fullmatch(r"\.[0-9a-f]{16}\.part", path)}
    assert others <= {".datagen/.gitignore"}
    assert {"x.jsonl", "x.rejected.jsonl", "x.meta.json", ".datagen/parts/x.jsonl.part"} <= written
