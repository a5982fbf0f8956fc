"""Typical mistakes at the command line: each is one clear line that names the way out, and leaves the way free."""

import json
import os
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from tests.jobs import rows, write_seeds
from tests.server import Server, running


def call(line: str, **env: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), prog_name="datagen", env=env, catch_exceptions=False)


def write(path: str, *lines: dict[str, Any]) -> None:
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(autouse=True)
def files() -> None:
    """Files of each kind, as a user has them in the working folder."""
    write_seeds(3, "prompts.jsonl")
    write("rows.jsonl", *({"prompt": f"Say {n}.", "response": f"{n}, as you wish."} for n in range(3)))
    write("samples.jsonl", {"prompt": "Say one.", "responses": ["One.", "1"]})
    write("prefs.jsonl", {"prompt": "Say one.", "chosen": "One.", "rejected": "Two."})
    write("texts.jsonl", {"text": "A text of its own."})
    write("keys.jsonl", {"ask": "Say one."})
    Path("empty.jsonl").touch()
    Path("rows.sft").mkdir()
    Path("rows.sft/config.json").write_text("{}")
    Path("rows.sft/model.safetensors").touch()
    Path("rows.reward").mkdir()
    for name in ("config.json", "reward.json", "model.safetensors"):
        Path("rows.reward", name).write_text("{}")


MISTAKES = [
    # a command, an option, a variant
    ("evolv prompts.jsonl", "no such command 'evolv'. Did you mean 'evolve'?"),
    ("sft rows.jsonl", "Did you mean 'train sft'?"),
    ("evolve", "INPUT is missing. For example: datagen evolve seeds.jsonl"),
    ("evolve prompts.jsonl --round 2", "no such option --round. Did you mean --rounds?"),
    ("evolve prompts.jsonl --rounds two", "--rounds two: expected a whole number"),
    ("respond prompts.jsonl -k 100000", "-k 100000: at most 1000"),
    ("respond prompts.jsonl --strategy vot", "Did you mean vote?"),
    ("convert rows.jsonl --to trll", "Did you mean trl?"),
    ("respond prompts.jsonl --concurrency all", "expected auto, or a number from 1 to 10000"),
    ("respond prompts.jsonl --param stop", "expected NAME=VALUE"),
    ("magpie --model sim", "give the number of rows with -n"),
    ("constraints prompts.jsonl --pairs --most 1", "--pairs with --most 1: at least 2"),
    ("respond prompts.jsonl --strategy tree", "for others --task text"),
    ("filter rows.jsonl --rule beauty", "--rule beauty: expected one of all, none, empty"),
    ("filter rows.jsonl --verify truth", "verifier truth: expected one of answer"),
    ("trace 12", "too short for an id"),
    ("trace zzzz", "no row's id begins with zzzz here"),
    # a file, a folder, an output
    ("evolve prompts.json", "prompts.json: no such file (there is prompts.jsonl)"),
    ("evolve .", "no file of rows, in a folder that is read; move it away, or name one file"),
    ("evolve empty.jsonl", "no rows (the file is empty)"),
    ("evolve keys.jsonl", '(found: ask). Prompts are rows with "prompt"'),
    ("respond prompts.jsonl -o new/out.jsonl", "no such folder new"),
    ("convert rows.jsonl -o new/out.jsonl", "-o new/out.jsonl: no such folder new"),
    ("respond prompts.jsonl -o out.txt", "ends in .jsonl"),
    ("respond prompts.jsonl -o prompts.jsonl", "is read by this command, which would write"),
    ("respond prompts.jsonl -o rows.jsonl", "rows.jsonl: exists and was not made by datagen; choose another -o"),
    ("respond prompts.jsonl --prompts mine", "no such folder of prompts"),
    ("filter rows.jsonl --against gsm8k.jsonl", "gsm8k.jsonl: no such file"),
    # rows of another kind
    ("pairs rows.jsonl", "make them with 'datagen respond -k 4'"),
    ("judge prompts.jsonl", "make them with 'datagen respond -k 4'"),
    ("convert samples.jsonl", "Samples go to 'datagen judge', and judged ones to 'datagen pairs'"),
    ("evolve prefs.jsonl", "Preferences go to 'datagen train dpo'"),
    ("respond texts.jsonl", "Documents go to 'datagen train pretrain'"),
    ("review prompts.jsonl", "make them with 'datagen respond -k 4'"),
    # a model
    ("respond prompts.jsonl --model gpt-4o", "OPENAI_API_KEY is not set. Set it, name a server"),
    ("respond prompts.jsonl --model m@ftp://host/v1", "such as qwen3:8b@http://127.0.0.1:11434/v1"),
    ("respond prompts.jsonl --model m@https://me:pw@host/v1", "must not hold a user or a password"),
    ("respond prompts.jsonl --model m@https://host/v1?version=2", "must not hold a query"),
    ("respond prompts.jsonl --model rows.sft", "is a folder; name it as --model hf:rows.sft"),
    ("respond prompts.jsonl --model rows.jsonl", "recorded replies are named as --model replay:rows.jsonl"),
    ("respond prompts.jsonl --model hf:./rows.sfft", "no such folder (there is rows.sft)"),
    ("respond prompts.jsonl --model hf:rows.jsonl", "is a file; a model is a folder"),
    ("respond prompts.jsonl --model replay:none.jsonl", "none.jsonl: no such file"),
    ("respond prompts.jsonl --model sim:fly=1", "expected skill, refuse"),
    ("magpie -n 3 --model m@http://127.0.0.1:9/v1", "use local weights: --asker hf:PATH"),
]


@pytest.mark.parametrize(("line", "says"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_that_names_the_way_out_and_nothing_is_created(line: str, says: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    ran = call(line, OPENAI_API_KEY="")
    assert (ran.exit_code, ran.stdout) == (2, "")
    errors = [text for text in ran.stderr.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and says in errors[0], ran.stderr
    assert ran.stderr.splitlines()[-1] == errors[0]
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_a_missing_http_is_said_and_a_server_that_is_down_is_one_line_and_the_same_command_works_then() -> None:
    with running(Server()) as server:
        address = server.url.removeprefix("http://")
    down = call(f"respond prompts.jsonl --model m@{address} -o out.jsonl")
    assert down.exit_code == 5
    assert f"Taking {server.url} as the address of m." in down.stderr
    assert f"error: m: nothing listens at {server.url}. Is the server running, and is the address right?" in down.stderr
    with running(Server()) as server:
        assert call(f"respond prompts.jsonl --model m@{server.url} -o out.jsonl -q").exit_code == 0
    assert len(rows("out.jsonl")) == 3


def test_a_refused_key_that_was_never_set_is_explained() -> None:
    with running(Server()) as server:
        server.refuse = lambda request: (401, {"error": {"message": "Incorrect API key provided"}})
        ran = call(f"respond prompts.jsonl --model m@{server.url}", OPENAI_API_KEY="")
    assert ran.exit_code == 5
    assert "(HTTP 401): Incorrect API key provided. No key was sent: OPENAI_API_KEY is not set" in ran.stderr


def test_an_address_without_v1_is_explained() -> None:
    with running(Server()) as server:
        bare = server.url.removesuffix("/v1")
        ran = call(f"respond prompts.jsonl --model m@{bare}")
    assert ran.exit_code == 5
    assert f"injected. Does the address end in /v1? {bare}/v1" in ran.stderr


def test_rows_that_an_earlier_filter_tagged_are_filtered_again() -> None:
    write("benchmark.jsonl", {"prompt": "Say 1."})
    assert call("filter rows.jsonl --against benchmark.jsonl --tag -o tagged.jsonl -q").exit_code == 0
    assert any(row["meta"]["hits"] for row in rows("tagged.jsonl"))
    ran = call("filter tagged.jsonl -o again.jsonl")
    assert (ran.exit_code, len(rows("again.jsonl"))) == (0, 3)


def test_a_pipe_with_a_name_is_read_as_a_file() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(Path("prompts.jsonl").read_bytes()))
    writer.start()
    assert call("respond pipe --model sim -o out.jsonl -q").exit_code == 0
    writer.join()
    assert len(rows("out.jsonl")) == 3
