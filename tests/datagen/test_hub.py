"""Data sets of the hub as inputs: one split at one commit, asked for as far as it is read, the same each time."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import DatagenError
from datagen.records.files import input_digest, output_stem
from datagen.records.hub import HubRows, is_on_hub
from datagen.records.kinds import count_rows, file_lines
from tests.hub_server import hub
from tests.jobs import rows

pytest.importorskip("datasets")


def run(address: str, line: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: the libraries read the address of the hub when they are imported."""
    path = Path("home")
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(path.absolute()), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-P", "-m", "datagen", *line.split()]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_split_of_a_data_set_is_an_input() -> None:
    train = b"".join(json.dumps({"question": f"q{n}", "answer": f"a{n}"}).encode() + b"\n" for n in range(5))
    with hub({"train.jsonl": train, "test.jsonl": b'{"question": "t", "answer": "x"}\n'}) as address:
        ran = run(address, "filter hf://me/set:train --rule none")
        assert ran.returncode == 0, ran.stderr
        assert [row["prompt"] for row in rows("set-train.filter.jsonl")] == [f"q{n}" for n in range(5)]
        ran = run(address, "filter hf://me/set --rule none -o out.jsonl")
        assert ran.returncode == 2
        assert "hf://me/set: several splits (train, test); name one of them, such as hf://me/set:train" in ran.stderr


def test_rows_are_asked_for_as_they_are_read_and_are_the_same_each_time() -> None:
    def source() -> Iterator[dict[str, Any]]:
        for number in range(100_000):
            drawn.append(number)
            yield {"prompt": f"p{number}", "score": float("nan")}

    drawn: list[int] = []
    with BufferedReader(HubRows("hf://me/set", "hf://me/set@default:train#1", source())) as file:
        for _ in range(2):
            first = [line.row for line, _ in zip(file_lines("hf://me/set", file, "prompt"), range(9), strict=False)]
            assert first == [{"prompt": f"p{number}", "score": None} for number in range(9)]
        assert len(drawn) < 10_000
        assert count_rows("hf://me/set", file) is None
        assert input_digest(file) != input_digest(BufferedReader(HubRows("hf://me/set", "another commit", [])))


def test_a_stream_that_breaks_is_an_error_and_no_end() -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield {"prompt": "a"}
        raise OSError("connection lost")

    file = BufferedReader(HubRows("hf://me/set", "1", source()))
    with file, pytest.raises(DatagenError, match="hf://me/set: cannot be read from the hub: connection lost"):
        list(file_lines("hf://me/set", file, "prompt"))


@pytest.mark.parametrize(
    ("name", "stem"),
    [("hf://gsm8k", "gsm8k"), ("hf://openai/gsm8k@main:train", "gsm8k-main-train"), ("hf:/openai/gsm8k", "gsm8k")],
)
def test_outputs_have_the_name_of_the_data_set(name: str, stem: str) -> None:
    assert is_on_hub(name)
    assert output_stem(name) == stem
