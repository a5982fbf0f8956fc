"""Rows stay the same when they are converted and read again; what a format cannot hold is counted."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.convert import Options, run
from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.layout import pack_meta
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Row
from tests.jobs import rows

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda text: text.strip() and "Human:" not in text and "Assistant:" not in text
)
TURN = st.tuples(WORDS, WORDS)
PROMPT = st.one_of(
    WORDS,
    st.builds(
        lambda system, turns, last: [
            *([{"role": "system", "content": system}] if system else []),
            *(
                {"role": role, "content": text}
                for turn in turns
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ),
            {"role": "user", "content": last},
        ],
        st.none() | WORDS,
        st.lists(TURN, max_size=2),
        WORDS,
    ),
)


def write(*new_rows: Row, path: str = "rows.jsonl") -> str:
    Path(path).write_bytes(b"".join(map(dump_line, new_rows)))
    return path


def convert(path: str, to: str, output: str = "converted.jsonl") -> Path:
    assert run(path, Options(to=to, output=output, overwrite=True, quiet=True)) == 0
    return Path(output)


def read(path: Path | str, kind: Kind[Any], shape: str | None = None) -> list[Any]:
    with open(path, "rb") as file:
        return list(Reader(str(path), file, kind, shape).read())


def texts_of(row: Any) -> tuple[Any, ...]:
    """Return the texts of a row; a single user message is a string."""
    assert not isinstance(row, BadLine), row
    prompt = row.prompt
    plain = prompt[0]["content"] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    return plain, getattr(row, "response", None), getattr(row, "chosen", None), getattr(row, "rejected", None)


@pytest.mark.parametrize("to", ["trl", "openai", "alpaca", "llama-factory", "axolotl", "medicalgpt"])
@given(prompt=PROMPT, response=WORDS)
def test_prompts_and_responses_come_back(to: str, prompt: Any, response: str) -> None:
    path = write({"prompt": prompt, "response": response})
    assert [texts_of(row) for row in read(convert(path, to), PROMPTS)] == [texts_of(row) for row in read(path, PROMPTS)]


@pytest.mark.parametrize("to", ["trl", "llama-factory", "medicalgpt", "hh"])
@given(prompt=PROMPT, chosen=WORDS, rejected=WORDS)
def test_preferences_come_back(to: str, prompt: Any, chosen: str, rejected: str) -> None:
    if chosen.strip() == rejected.strip():
        return
    path = write({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    if to == "hh" and isinstance(prompt, list) and prompt[0]["role"] == "system":
        with pytest.raises(InputError, match="no row could be used: a transcript cannot hold a system message"):
            convert(path, to)
        return
    converted = convert(path, to)
    assert [texts_of(row) for row in read(converted, PREFERENCES)] == [texts_of(row) for row in read(path, PREFERENCES)]


def test_the_parts_of_an_alpaca_prompt_are_parted_again() -> None:
    meta = pack_meta({"instruction": "Sort.", "input": "b a"})
    path = write({"id": "0" * 16, "prompt": "Sort.\n\nb a", "response": "a b", "meta": meta})
    assert rows(convert(path, "alpaca")) == [{"instruction": "Sort.", "input": "b a", "output": "a b"}]


def test_documents_go_where_documents_go() -> None:
    path = write({"text": "One line."}, {"text": "Two\nlines."})
    assert [row.text for row in read(convert(path, "trl"), DOCUMENTS)] == ["One line.", "Two\nlines."]
    assert convert(path, "medicalgpt", "converted.txt").read_text() == "One line.\n"


def test_llama_factory_is_reported_of_the_file_and_of_others_still() -> None:
    Path("dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    convert(write({"prompt": "A?", "chosen": "b", "rejected": "c"}), "llama-factory", "pairs.jsonl")
    known = json.loads(Path("dataset_info.json").read_text())
    assert known["mine"] == {"file_name": "mine.json"}
    assert known["pairs"]["ranking"] is True and known["pairs"]["columns"]["chosen"] == "chosen"


def test_a_sheet_to_audit_has_the_four_questions_and_runs_nothing() -> None:
    formula = '=HYPERLINK("http://example.org")'
    write({"prompt": "A?", "response": formula}, *({"prompt": f"{n}?", "response": "yes"} for n in range(300)))
    sheet = list(csv.reader(StringIO(convert("rows.jsonl", "audit", "sheet.csv").read_text())))
    assert (len(sheet), len(sheet[0])) == (201, 8)
    assert all(cells[4:] == [""] * 4 for cells in sheet[1:])
    assert not any(cell.startswith("=") for cells in sheet for cell in cells)


def test_what_a_shape_cannot_hold_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    write({"prompt": "A?"}, {"prompt": "B?", "response": "b"})
    run("rows.jsonl", Options(to="trl"))
    assert "1 row; left out: no response 1" in capsys.readouterr().err
    assert Path("rows.trl.jsonl").exists()


def test_errors_say_what_would_do() -> None:
    path = write({"prompt": "A?", "response": "b"})
    pairs = write({"prompt": "A?", "chosen": "b", "rejected": "c"}, path="pairs.jsonl")
    with pytest.raises(InputError, match="holds preferences; audit has a shape for prompts alone"):
        run(str(pairs), Options(to="audit"))
    with pytest.raises(InputError, match="--to xml: expected one of trl, openai"):
        run(path, Options(to="xml"))
    with pytest.raises(InputError, match="holds prompts; hh has a shape for preferences alone"):
        run(path, Options(to="hh"))
    convert(path, "trl", "there.jsonl")
    with pytest.raises(InputError, match="exists already"):
        run(path, Options(to="trl", output="there.jsonl"))


FILES = (
    "prefs/hhh_dev.jsonl",
    "prefs/dpo_sharegpt_en_dev.json",
    "prefs/oasst_zh_rank_dev.json",
    "formats/medicalgpt_reward_v3.jsonl",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("to", ["trl", "llama-factory", "medicalgpt"])
def test_real_preferences_come_back(real_data: Path, name: str, to: str) -> None:
    before = [texts_of(row) for row in read(real_data / name, PREFERENCES) if not isinstance(row, BadLine)]
    assert [texts_of(row) for row in read(convert(str(real_data / name), to), PREFERENCES)] == before


def test_a_preference_with_a_soft_label_is_converted_as_a_preference() -> None:
    pair = {"prompt": "A?", "chosen": "b", "rejected": "c", "margin": 1.0, "soft_label": 0.9, "chosen_reasoning": "So."}
    (row,) = rows(convert(write(pair), "trl"))
    assert [
        row[name][0]["content"] if isinstance(row[name], list) else row[name] for name in ("chosen", "rejected")
    ] == ["b", "c"]
