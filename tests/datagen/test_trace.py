"""Every row can be followed back to its seed, through files, pipes and drops."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.trace import Archive, word_diff
from datagen.errors import InputError
from datagen.records.files import dump_line
from tests.jobs import evolve, respond, rows, write_seeds


def datagen(*arguments: str, stdin: bytes = b"") -> bytes:
    ran = subprocess.run([sys.executable, "-m", "datagen", *arguments], input=stdin, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


def test_a_row_from_a_pipe_is_traced_to_its_seed() -> None:
    seeds = write_seeds(6)
    model = ("--model", "sim:refuse=0.1,leak=0.1")
    grown = datagen("evolve", str(seeds), "-o", "-", *model)
    answered = datagen("respond", "-", "--strategy", "cot", "-o", "-", *model, stdin=grown)
    datagen("filter", "-", "--dedup", "0.9", "-o", "rows.jsonl", stdin=answered)
    archive = Archive(Path())
    for row in rows("rows.jsonl"):
        path = archive.path(row["id"])
        assert path[0].file.startswith("seeds.jsonl:") and path[0].row["meta"] == {}
        assert [step.row["meta"]["method"] for step in path[1:]] == ["evolve"] * (len(path) - 2) + ["respond"]
        assert path[-1].row["id"] == row["id"]
    output = datagen("trace", rows("rows.jsonl")[-1]["id"][:8]).decode()
    assert output.index("seed") < output.index("evolve") < output.index("respond")
    assert "{+" in output


def test_what_was_dropped_on_the_way_is_reported_with_its_rule() -> None:
    evolve(write_seeds(12), "sim:leak=0.5")
    dropped = next(row for row in rows("out.rejected.jsonl") if row["reason"] == "leaked")
    output = datagen("trace", dropped["record"]["id"]).decode()
    assert "rejected: leaked at rewrite" in output


def test_the_steps_are_there_for_programs_too() -> None:
    respond(write_seeds(1), "sim", strategy="cot")
    steps = [json.loads(line) for line in datagen("trace", rows("out.jsonl")[0]["id"], "--json").splitlines()]
    assert [step["prompt"] for step in steps] == ["Describe thing number 0 in a few words."] * 2


def test_an_id_that_is_none_or_too_short_is_reported() -> None:
    evolve(write_seeds(3), "sim")
    archive = Archive(Path())
    for start in ("0123456789abcdef", rows("out.jsonl")[0]["id"][:2]):
        with pytest.raises(InputError, match=r"^no row's id begins with 0|: too short for an id"):
            archive.find(start)


def test_nothing_that_a_model_wrote_reaches_the_terminal_raw() -> None:
    Path("replies.jsonl").write_bytes(dump_line({"prompt": "Hi.", "responses": ["\x1b[31mred\x1b[0m \u202eevil"]}))
    Path("one.jsonl").write_bytes(dump_line({"prompt": "Hi."}))
    respond(Path("one.jsonl"), "replay:replies.jsonl")
    output = datagen("trace", rows("out.jsonl")[0]["id"]).decode()
    assert "\x1b" not in output and "\u202e" not in output and "\\x1b[31mred" in output


@given(st.text(alphabet="ab ", max_size=30), st.text(alphabet="ab ", max_size=30))
def test_both_texts_can_be_read_off_a_word_diff(before: str, after: str) -> None:
    diff = word_diff(before, after)
    if before.split() == after.split():
        assert diff == after
        return
    old, new = [], []
    where = "both"
    for word in diff.replace("[-", " [- ").replace("-]", " -] ").replace("{+", " {+ ").replace("+}", " +} ").split():
        if word in ("[-", "{+", "-]", "+}"):
            where = {"[-": "old", "{+": "new"}.get(word, "both")
            continue
        old += [word] if where != "new" else []
        new += [word] if where != "old" else []
    assert (old, new) == (before.split(), after.split())


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"run": 1}', '{"run": {"input": 5}, "result": {}}', '{"a": ' * 50_000], ids=len
)
def test_files_of_other_tools_in_the_folder_are_passed_over(content: str) -> None:
    seeds = write_seeds(2)
    evolve(seeds, "sim", "out.jsonl", rounds=1)
    for name in ("other", "torn"):
        Path(f"{name}.meta.json").write_text(content)
        Path(f"{name}.jsonl").write_text(f'{content}\n[1]\n{{"id": 5}}\n{{"id": "0123456789abcdef"}}\n')
        Path(f"{name}.rejected.jsonl").write_text('{"record": [1]}\n{"record": "x"}\nnull\n')
    Path("out.rejected.jsonl").write_bytes(Path("out.rejected.jsonl").read_bytes() + b'{"record": "x"}\n{\n')
    archive, name = Archive(Path()), rows("out.jsonl")[0]["id"]
    assert archive.outputs == [Path("out.jsonl")]
    assert [step.file.partition(":")[0] for step in archive.path(archive.find(name))] == ["seeds.jsonl", "out.jsonl"]


def test_a_prefix_of_two_ids_is_refused_and_a_whole_id_is_found() -> None:
    respond(write_seeds(2), "sim", strategy="cot")
    first, second = rows("out.jsonl")
    seed = first["meta"]["parents"][0]
    near = seed[:15] + ("0" if seed[15] != "0" else "1")
    Path("out.jsonl").write_text(Path("out.jsonl").read_text().replace(second["id"], near))
    archive = Archive(Path())
    with pytest.raises(InputError, match="2 rows have an id that begins so"):
        archive.find(seed[:8])
    assert (archive.find(near), archive.find(seed)) == (near, seed)
    assert [step.row["id"] for step in archive.path(near)] == [second["meta"]["parents"][0], near]
