"""Output files: readable by other tools, put in place at once, and never over a file of somebody else."""

import fcntl
import json
import sys
import tempfile
from io import BytesIO, TextIOWrapper
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.engine.output import differences, named_output, piped_output
from datagen.errors import DatagenError, InputError
from datagen.records.files import dump_line, input_digest, open_input, write_json
from datagen.records.lines import json_lines

FUNNEL = {"asked": 0, "kept": 0, "rejected": {}, "failed": {}, "unreadable": 0, "unobtained": {}}
META: dict[str, Any] = {"result": {"status": "done", "fingerprint": {}, "funnel": FUNNEL}, "run": {}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def names() -> set[str]:
    return {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    "character",
    ["\u2028", "\u2029", "\x85", "\x7f", "\x9b", "\u202e", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x1e"],
    ids=ascii,
)
def test_a_row_is_one_line_to_every_reader(character: str) -> None:
    line = dump_line({"prompt": f"a{character}b"})
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == {"prompt": f"a{character}b"}


def test_a_row_is_readable_utf_8() -> None:
    assert dump_line({"prompt": "你好, é"}) == '{"prompt": "你好, é"}\n'.encode()


def test_half_a_character_survives() -> None:
    line = dump_line({"prompt": "é\ud800\u2028"})
    assert line.isascii()
    assert json.loads(line) == {"prompt": "é\ud800\u2028"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("text", ["a", "\ud800"], ids=ascii)
def test_what_json_cannot_hold_is_an_error(number: float, text: str) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        dump_line({"prompt": text, "score": number})


@given(st.dictionaries(st.text(st.characters()), JSON | st.text(st.characters())))
def test_any_row_comes_back_from_one_line(row: dict[str, Any]) -> None:
    line = dump_line(row)
    assert len(line.decode().splitlines()) == line.count(b"\n") == 1
    assert json.loads(line) == row


@pytest.mark.parametrize(
    ("name", "telling"),
    [("missing.jsonl", "missing.jsonl: no such file"), ("folder", "folder: a folder without a file of rows")],
)
def test_what_cannot_be_opened_is_said(name: str, telling: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(InputError) as raised:
        open_input(name)
    assert str(raised.value) == telling


def test_standard_input_can_be_gone_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"one\ntwo\n")))
    with open_input("-") as file:
        assert [file.read(), file.seek(0), file.read()] == [b"one\ntwo\n", 0, b"one\ntwo\n"]


def test_an_input_is_named_by_all_of_its_bytes() -> None:
    def digest(content: bytes) -> str:
        file = BytesIO(content)
        file.read(3)
        return input_digest(file)

    assert digest(b"a\n") == digest(b"a\n")
    assert len({digest(b"a\n"), digest(b"a"), digest(b""), digest(b"a\n" * (1 << 20))}) == 4


def test_rows_go_to_parts_and_take_their_places_at_the_end() -> None:
    output = named_output(Path("out.jsonl"))
    with output.open_parts():
        output.write_row({"id": "1"})
        output.write_rejected({"id": "2"})
        output.write_row({"id": "3"})
        assert {path.name for path in Path(".datagen/parts").iterdir()} == {
            "out.jsonl.part", "out.rejected.jsonl.part"
        }  # fmt: skip
        assert names() == {".datagen"}
        output.finish(META, complete=True)
    assert names() == {".datagen", "out.jsonl", "out.rejected.jsonl", "out.meta.json"}
    assert not list(Path(".datagen/parts").iterdir())
    assert Path("out.jsonl").read_bytes() == b'{"id": "1"}\n{"id": "3"}\n'
    assert Path("out.rejected.jsonl").read_bytes() == b'{"id": "2"}\n'
    assert (output.rows, output.rejected_rows, output.path.exists()) == (2, 1, True)
    assert output.read_meta() == META


def test_a_run_that_breaks_leaves_the_earlier_output_as_it_was() -> None:
    first = named_output(Path("out.jsonl"))
    with first.open_parts():
        first.write_row({"id": "1"})
        first.finish(META, complete=True)
    second = named_output(Path("out.jsonl"))
    with pytest.raises(TypeError), second.open_parts():
        second.write_row({"id": object()})
    assert Path("out.jsonl").read_bytes() == b'{"id": "1"}\n'
    assert second.read_meta() == META


def test_a_start_begins_its_parts_anew() -> None:
    Path(".datagen/parts").mkdir(parents=True)
    Path(".datagen/parts/out.jsonl.part").write_text("left over")
    output = named_output(Path("out.jsonl"))
    with output.open_parts():
        output.write_row({"id": "1"})
        output.finish(META, complete=True)
    assert Path("out.jsonl").read_bytes() == b'{"id": "1"}\n'


def test_meta_says_writing_until_all_files_are_in_place() -> None:
    """A file that cannot be replaced stops the last step half-way; the output is then not marked as finished."""
    write_json(Path("out.meta.json"), META)
    Path("out.rejected.jsonl").mkdir()
    output = named_output(Path("out.jsonl"))
    with pytest.raises(OSError, match="rejected"), output.open_parts():
        output.finish(META, complete=True)
    meta = output.read_meta()
    assert meta is not None and meta["result"]["status"] == "writing"


def test_two_runs_cannot_write_one_output() -> None:
    first, second = named_output(Path("out.jsonl")), named_output(Path("out.jsonl"))
    with first.open_parts():
        first.write_row({"id": "1"})
        with pytest.raises(DatagenError, match=r"out\.jsonl: another run is writing it"), second.open_parts():
            pass
        first.finish(META, complete=True)
    assert Path("out.jsonl").read_bytes() == b'{"id": "1"}\n'
    with second.open_parts():
        second.finish(META, complete=True)
    assert Path("out.jsonl").read_bytes() == b""


def test_rows_that_another_run_moves_to_their_place_meanwhile_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run ends between the moments in which this one opens the part and locks it."""
    part, flock = Path(".datagen/parts/out.jsonl.part"), fcntl.flock
    part.parent.mkdir(parents=True)
    part.write_text("rows of the other run")

    def end_other_run(file: Any, operation: int) -> None:
        if not Path("out.jsonl").exists():
            part.rename("out.jsonl")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", end_other_run)
    with named_output(Path("out.jsonl")).open_parts():
        assert Path("out.jsonl").read_text() == "rows of the other run"


def test_two_outputs_in_one_folder_do_not_meet() -> None:
    first, second = named_output(Path("a.jsonl")), named_output(Path("b.jsonl"))
    with first.open_parts(), second.open_parts():
        first.write_row({"id": "1"})
        second.write_row({"id": "2"})
        first.finish(META, complete=True)
        second.finish(META, complete=True)
    assert (Path("a.jsonl").read_bytes(), Path("b.jsonl").read_bytes()) == (b'{"id": "1"}\n', b'{"id": "2"}\n')


@pytest.mark.parametrize("name", ["out.json", "out", "out.jsonl.gz", ".jsonl", "out.JSONL"])
def test_an_output_has_its_suffix(name: str) -> None:
    with pytest.raises(InputError, match=r"the name of an output ends in \.jsonl"):
        named_output(Path(name))


def test_an_output_goes_to_a_folder_that_is_there() -> None:
    with pytest.raises(InputError, match="no such folder nowhere"):
        named_output(Path("nowhere/out.jsonl"))
    Path("file").touch()
    with pytest.raises(InputError, match="no such folder file"):
        named_output(Path("file/out.jsonl"))
    Path("link.jsonl").symlink_to("nowhere/out.jsonl")
    with pytest.raises(InputError, match=r"-o link\.jsonl: no such folder .*nowhere"):
        named_output(Path("link.jsonl"))


def test_a_name_with_dots_keeps_its_stem() -> None:
    output = named_output(Path("v1.2.jsonl"))
    assert (output.rejected_path, output.meta_path) == (Path("v1.2.rejected.jsonl"), Path("v1.2.meta.json"))


@pytest.mark.parametrize("name", ["out.jsonl", "out.rejected.jsonl", "out.meta.json"])
def test_a_file_of_somebody_else_is_not_replaced(name: str) -> None:
    output = named_output(Path("out.jsonl"))
    output.refuse_strangers()
    Path(name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: exists and was not made by datagen"):
        output.refuse_strangers()


def test_a_file_that_somebody_makes_while_the_run_lasts_is_not_replaced() -> None:
    output = named_output(Path("out.jsonl"))

    def run() -> None:
        with output.open_parts():
            output.write_row({"id": "1"})
            Path("out.rejected.jsonl").write_text("mine")
            output.finish(META, complete=True)

    with pytest.raises(InputError, match="not made by datagen"):
        run()
    assert Path("out.rejected.jsonl").read_text() == "mine"
    assert Path(".datagen/parts/out.jsonl.part").read_bytes() == b'{"id": "1"}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"{'a': 1}", b"\xff", b"null", b"[]", b"[" * 100_000, b'{"result": 1, "run": {}}',
        b'{"run": {}, "result": {"status": "finished", "fingerprint": [], "funnel": {}}}',
    ],
    ids=lambda content: ascii(content[:20]),
)  # fmt: skip
def test_a_meta_of_another_tool_is_nobodys_but_its_owners(content: bytes) -> None:
    Path("out.meta.json").write_bytes(content)
    output = named_output(Path("out.jsonl"))
    assert output.read_meta() is None
    with pytest.raises(InputError, match=r"out\.meta\.json: exists and was not made by datagen"):
        output.refuse_strangers()


def test_a_symlink_stays_one_and_its_target_gets_the_rows() -> None:
    Path("store").mkdir()
    Path("out.jsonl").symlink_to("store/rows.jsonl")
    output = named_output(Path("out.jsonl"))
    with output.open_parts():
        output.write_row({"id": "1"})
        with pytest.raises(DatagenError, match="another run"), named_output(Path("store/rows.jsonl")).open_parts():
            pass
        output.finish(META, complete=True)
    assert Path("out.jsonl").is_symlink()
    assert Path("store/rows.jsonl").read_bytes() == b'{"id": "1"}\n'


def test_a_folder_of_parts_that_is_removed_loses_no_row() -> None:
    output = named_output(Path("out.jsonl"))
    with output.open_parts():
        output.write_row({"id": "1"})
        rmtree(".datagen")
        output.finish(META, complete=True)
    assert Path("out.jsonl").read_bytes() == b'{"id": "1"}\n'


def test_rows_move_to_another_file_system(tmp_path: Path) -> None:
    """The folder of the parts may be a symlink to a larger disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        Path(".datagen").symlink_to(disk)
        output = named_output(Path("out.jsonl"))
        with output.open_parts():
            output.write_row({"id": "1"})
            output.finish(META, complete=True)
        assert not list(Path(disk, "parts").iterdir())
    assert Path("out.jsonl").read_bytes() == b'{"id": "1"}\n'
    assert {name for name in names() if name.endswith(".part")} == set()


@pytest.mark.parametrize(
    "change", [b'{"prompt": "b"}\n' * 200_000, b'{"prompt": "a"}\n' * 200_001, b"half", b""], ids=len
)
def test_a_file_that_changes_while_it_is_read_is_an_error(change: bytes) -> None:
    path = Path("in.jsonl")
    path.write_bytes(b'{"prompt": "a"}\n' * 200_000)
    with open_input("in.jsonl") as file:
        input_digest(file)
        assert [sum(1 for _ in json_lines("in.jsonl", file)) for _ in range(2)] == [200_000, 200_000]
        path.write_bytes(change)
        with pytest.raises(InputError, match=r"in\.jsonl: was changed while it was read"):
            sum(1 for _ in json_lines("in.jsonl", file))


def test_what_goes_to_standard_output_is_kept_in_the_folder_of_the_journal(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    output = piped_output("evolve", {"seed": 0})
    with output.open_parts():
        output.write_row({"id": "é"})
        output.write_rejected({"id": "2"})
        output.finish(META, complete=True)
    assert capfdbinary.readouterr().out == '{"id": "é"}\n'.encode()
    assert (names(), output.rows, output.rejected_rows) == ({".datagen"}, 1, 1)
    assert output.path.read_bytes() == '{"id": "é"}\n'.encode()
    assert output.rejected_path.read_bytes() == b'{"id": "2"}\n'
    assert output.read_meta() is None
    assert piped_output("evolve", {"seed": 1}).path != output.path


def test_json_is_replaced_in_one_step() -> None:
    path = Path("x.meta.json")
    write_json(path, {"a": "\ud800é"})
    write_json(path, {"a": "\u2028"})
    assert json.loads(path.read_text(encoding="ascii")) == {"a": "\u2028"}
    assert names() == {"x.meta.json"}


BASE: dict[str, Any] = {"command": "evolve", "model": "m", "seed": 0, "n": 10, "max_calls": 100, "max_failed": 5}


@pytest.mark.parametrize(
    "change",
    [
        {}, {"n": 11}, {"n": None}, {"max_calls": 101}, {"max_calls": None}, {"max_failed": 6},
        {"n": 20, "max_calls": 200, "max_failed": 50},
    ],
    ids=str,
)  # fmt: skip
def test_a_raised_limit_is_no_difference(change: dict[str, Any]) -> None:
    assert differences(BASE, BASE | change) == []


@pytest.mark.parametrize(
    ("earlier", "now", "expected"),
    [
        ({}, {"n": 9}, ["n: 10 then, 9 now (it can only be raised)"]),
        ({"n": None}, {"n": 1000}, ["n: None then, 1000 now (it can only be raised)"]),
        ({}, {"max_calls": 99}, ["max_calls: 100 then, 99 now (it can only be raised)"]),
        ({}, {"max_failed": 0}, ["max_failed: 5 then, 0 now (it can only be raised)"]),
        ({}, {"model": "k"}, ["model: 'm' then, 'k' now"]),
        ({}, {"seed": 1, "model": "k", "n": 5}, [
            "model: 'm' then, 'k' now", "seed: 0 then, 1 now", "n: 10 then, 5 now (it can only be raised)"
        ]),
        ({}, {"rounds": 4}, ["rounds: None then, 4 now"]),
        ({"rounds": 4}, {}, ["rounds: 4 then, None now"]),
    ],
)  # fmt: skip
def test_every_other_difference_is_named(earlier: dict[str, Any], now: dict[str, Any], expected: list[str]) -> None:
    assert differences(BASE | earlier, BASE | now) == expected
