"""`datagen pack`: a data set that `datasets` reads, a true and safe card, a journal that makes the rows again."""

import json
import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.publish.data import size_category
from datagen.publish.terms import SIM, UNKNOWN, terms_of
from datagen.report.markdown import fenced, plain, table
from tests.hostile import hostile
from tests.jobs import write_seeds
from tests.server import Faults, Server, running

ROOT = Path(__file__).resolve().parents[1]
JOURNAL = "replay/.datagen/journal.sqlite3"
KEY = "sk-proj-0123456789abcdefghij"
HOSTILE = (
    "```\n</details>\n---\n# Heading",
    "<script>x</script>",
    "````",
    "~~~",
    "| a | b |",
    "你好，世界",
    "\u202ea\x1b[2J",
    "\ud800",
)


def datagen(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), prog_name="datagen", catch_exceptions=False)


def succeed(*lines: str) -> None:
    for line in lines:
        ran = datagen(line)
        assert ran.exit_code == 0, f"{line}\n{ran.output}"


def card_text(folder: str = "ds") -> str:
    return Path(folder, "README.md").read_text()


def card_commands(folder: str = "ds") -> list[str]:
    """Return the commands of the card."""
    (block,) = re.findall(r"```console\n(.*?)\n```", card_text(folder), re.DOTALL)
    first, *commands = block.split("\n")
    assert first == "cd replay"
    return [command.removeprefix("datagen ") for command in commands]


def all_bytes(folder: str) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file())


def tokens(text: str) -> Iterator[Any]:
    for token in MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1]):
        yield token
        yield from token.children or ()


@pytest.fixture
def outputs() -> None:
    """seeds.jsonl, rows.jsonl of evolve, final.jsonl of filter; and other.jsonl, of which nothing may be published."""
    write_seeds(6)
    Path("others.jsonl").write_text('{"prompt": "Describe the zanzibar project in a few sentences."}\n')
    succeed(
        "evolve seeds.jsonl --rounds 2 --model sim:leak=0.2 -o rows.jsonl -q",
        "filter rows.jsonl --dedup 0.7 -o final.jsonl -q",
        "respond others.jsonl --model sim -o other.jsonl -q",
    )


# The journal


def test_others_run_the_commands_again_without_a_server() -> None:
    write_seeds(12)
    with running(Server(faults=Faults(0.2, ("malformed", "empty", "500")))) as server:
        options = f"--model teacher#v2@{server.url} --timeout 2 --param top_k=20"
        succeed(
            f"evolve seeds.jsonl --rounds 3 {options} -o rows.jsonl -q",
            f"respond seeds.jsonl {options} -k 2 -o secret.jsonl -q",
            "filter rows.jsonl --dedup 0.9 -o final.jsonl -q",
            "pack final.jsonl --journal -o ds -q",
        )
        requests = server.requests
    calls = json.loads(Path("rows.meta.json").read_text())["result"]["usage"]["calls"]
    with sqlite3.connect(f"ds/{JOURNAL}") as database:
        assert database.execute("SELECT count(*) FROM replies").fetchone() == (calls,)
        for name in ("runs", "facts", "processes", "claims", "payments", "batches", "leases"):
            assert database.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,), name
    assert server.requests == requests

    shutil.move("ds/replay", "elsewhere")
    first = {name: Path(name).read_bytes() for name in ("rows.jsonl", "rows.rejected.jsonl", "final.jsonl")}
    os.chdir("elsewhere")
    assert server.url not in "".join(card_commands("../ds"))
    succeed(*card_commands("../ds"))
    assert {name: Path(name).read_bytes() for name in first} == first
    assert json.loads(Path("rows.meta.json").read_text())["run"]["requests"] == 0

    # Other thresholds: of a later step, and of the one that asked the model.
    evolve = next(command for command in card_commands("../ds") if command.startswith("evolve"))
    succeed(
        "filter rows.jsonl --dedup 0.3 -o strict.jsonl",
        evolve.replace("rows.jsonl", "short.jsonl").replace("--rounds 3", "--rounds 1"),
        evolve.replace("rows.jsonl", "long.jsonl") + " --reasoning drop",
    )
    assert 0 < len(Path("strict.jsonl").read_bytes()) < len(first["final.jsonl"])
    assert 0 < len(Path("short.jsonl").read_bytes()) < len(first["rows.jsonl"])
    assert json.loads(Path("long.meta.json").read_text())["run"]["requests"] == 0


def test_models_of_a_file_keep_their_parameters_and_lose_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    write_seeds(3)
    monkeypatch.setenv("MY_OWN_KEY", KEY)
    with running(Server()) as server:
        Path("models.toml").write_text(
            f'[models.teacher]\nname = "big"\ntag = "x"\nurl = "{server.url}"\nkey = "MY_OWN_KEY"\n'
            'headers = {X-Team = "blue-team"}\n'
            'params = {temperature = 0.5, stop = ["\\"", "你"]}\n'
        )
        succeed(
            f"evolve seeds.jsonl --rounds 1 --model teacher --judge plain@{server.url} -o rows.jsonl -q",
            "pack rows.jsonl --journal -o ds -q",
        )
    Path("models.toml").unlink()
    for word in ("blue-team", KEY, "MY_OWN_KEY", server.url):
        assert word.encode() not in all_bytes("ds"), word
    expected = Path("rows.jsonl").read_bytes()
    monkeypatch.chdir("ds/replay")
    succeed(*card_commands(".."))
    assert Path("rows.jsonl").read_bytes() == expected


def test_files_that_options_name_are_packed_under_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    write_seeds(3)
    home = Path("home/ada/private")
    home.mkdir(parents=True)
    shutil.move("seeds.jsonl", home / "seeds.jsonl")
    shutil.copy(ROOT / "prompts/rubrics/helpful.en.md", home / "rubric.md")
    place = home.resolve()
    succeed(
        f"respond {place}/seeds.jsonl -k 2 --model sim -o {place}/samples.jsonl -q",
        f"judge {place}/samples.jsonl --rubric {place}/rubric.md --model sim -o ranked.jsonl -q",
        "pack ranked.jsonl --journal -o ds -q",
    )
    assert {path.name for path in Path("ds/replay").iterdir()} == {".datagen", "seeds.jsonl", "rubric.md"}
    for word in ("ada", str(place.parent), "private"):
        assert word.encode() not in all_bytes("ds"), word
    expected = Path("ranked.jsonl").read_bytes()
    monkeypatch.chdir("ds/replay")
    succeed(*card_commands(".."))
    assert Path("ranked.jsonl").read_bytes() == expected


def test_nothing_of_other_outputs_is_published(outputs: None) -> None:
    succeed("pack final.jsonl --journal --rejected -o ds -q")
    assert b"zanzibar" in Path(".datagen/journal.sqlite3").read_bytes()
    assert b"zanzibar" not in all_bytes("ds")
    assert sorted(path.name for path in Path("ds/replay/.datagen").iterdir()) == ["journal.sqlite3"]
    assert not [path for path in Path().iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda: Path("rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n'), "its input rows.jsonl"),
        (lambda: Path("final.jsonl").write_text('{"prompt": "a", "response": "b"}\n'), "which was edited"),
        (lambda: Path("seeds.jsonl").unlink(), "its input seeds.jsonl is not there any more"),
        (lambda: shutil.rmtree(".datagen"), "journal"),
    ],
)  # fmt: skip
def test_a_journal_that_would_not_make_the_rows_is_refused(outputs: None, break_it: Any, says: str) -> None:
    break_it()
    ran = datagen("pack final.jsonl --journal -o ds")
    assert ran.exit_code in (1, 2) and says in ran.output and ran.output.startswith("error: "), ran.output
    assert not Path("ds").exists() and not [path for path in Path().iterdir() if path.name.endswith(".part")]


def test_an_output_whose_failed_candidates_would_be_asked_for_again_is_refused() -> None:
    write_seeds(4)
    with running(
        Server(answer=lambda model, messages, sample, task: "" if "1" in messages[-1]["content"] else "Yes.")
    ) as server:
        datagen(f"respond seeds.jsonl --model m@{server.url} -o rows.jsonl -q")
        ran = datagen("pack rows.jsonl --journal -o ds")
        assert ran.exit_code == 2 and "1 candidates failed" in ran.output, ran.output
        succeed("pack rows.jsonl -o ds -q")


def test_the_key_of_a_call_in_a_recorded_answer_stops_the_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    write_seeds(2)
    with running(Server(answer=lambda model, messages, sample, task: f"The key is {KEY}.")) as server:
        succeed(f"respond seeds.jsonl --model m@{server.url} -o rows.jsonl -q")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ran = datagen("pack rows.jsonl --journal -o ds")
    assert ran.exit_code == 2 and "a row holds a key" in ran.output and KEY not in ran.output
    assert not Path("ds").exists()


def test_no_secret_of_the_environment_is_in_the_folder(outputs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://ada:hunter2hunter2@gpu7.internal.example/v1?token=abcdefabcdef")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefabcdefabcdef")
    monkeypatch.setenv("USER", "ada-lovelace")
    succeed(f"pack {Path('final.jsonl').resolve()} --journal --rejected -o ds -q")
    content = all_bytes("ds")
    for word in (KEY, "hunter2", "gpu7", "abcdef", "ada-lovelace", str(Path().resolve()), str(Path.home()) + "/"):
        assert word.encode() not in content, word


# The data and the card


def test_the_library_reads_every_configuration_with_one_schema(outputs: None) -> None:
    datasets = pytest.importorskip("datasets")
    succeed("pack final.jsonl rows.jsonl --rejected --license cc-by-4.0 -o ds -q")
    for name in ("rows", "final"):
        loaded = datasets.load_dataset(str(Path("ds").resolve()), name, split="train", cache_dir="cache")
        rows = [json.loads(line) for line in Path(f"{name}.jsonl").read_bytes().splitlines()]
        assert list(loaded) == rows
    assert datasets.load_dataset("./ds", split="train", cache_dir="cache").num_rows == len(
        Path("final.jsonl").read_bytes().splitlines()
    )
    rejected = datasets.load_dataset("./ds", "rows_rejected", split="train", cache_dir="cache")
    assert rejected.num_rows == len(Path("rows.rejected.jsonl").read_bytes().splitlines()) > 0
    assert rejected.column_names == ["meta", "status", "reason", "stage", "reply", "record"]


def test_the_card_has_the_head_of_the_hub_and_the_numbers_of_the_files(outputs: None) -> None:
    hub = pytest.importorskip("huggingface_hub")
    succeed("pack rows.jsonl final.jsonl --license cc-by-4.0 --seeds-license 'CC0, *mine*' --title 'My | set' -o ds -q")
    read = hub.DatasetCard.load("ds/README.md")
    assert read.data.license == "cc-by-4.0" and read.data.language == ["en"]
    assert read.data.tags == ["synthetic", "datagen"] and read.data.size_categories == ["n<1K"]
    assert [config["config_name"] for config in read.data.to_dict()["configs"]] == ["rows", "final"]
    funnel = json.loads(Path("rows.meta.json").read_text())["result"]["funnel"]
    usage = json.loads(Path("rows.meta.json").read_text())["result"]["usage"]
    assert f"| rows.jsonl | datagen evolve general | seeds.jsonl | {funnel['asked']} | {funnel['kept']} |" in read.text
    for name, number in funnel["rejected"].items():
        assert f"| {plain(name)} | rejected | {number} |" in read.text
    assert (
        f"| rows.jsonl | {usage['calls']} | {usage['prompt_tokens']:,} | {usage['completion_tokens']:,} | simulated |"
        in read.text
    )
    for sentence in (
        "# My \\| set", "License of the seeds: CC0, \\*mine\\*.", SIM, "unread equality checks: 0 of",
        "not compared with the questions of any benchmark", "No judgement was compared with that of people",
    ):  # fmt: skip
        assert sentence in read.text


def test_what_is_not_given_is_said_to_be_missing(outputs: None) -> None:
    succeed("pack final.jsonl -o ds -q")
    assert "license:" not in card_text() and "**No license was given for this data set.**" in card_text()
    assert "License of the seeds: not known." in card_text()
    assert not Path("ds/replay").exists() and "recorded answers are not part of the data set" in card_text()
    assert (
        "datagen evolve seeds.jsonl --rounds 2 --output rows.jsonl --model sim:leak=0.2\ndatagen filter" in card_text()
    )
    Path("seeds.jsonl").unlink()
    succeed("pack final.jsonl -o ds --overwrite -q")
    assert "`seeds.jsonl` is not there any more" in card_text()


def test_agreement_with_people_position_bias_and_benchmarks_are_on_the_card() -> None:
    write_seeds(8)
    answers = [
        {"prompt": f"Describe thing number {i}.", "chosen": "It is a fine thing, truly.", "rejected": "No."}
        for i in range(8)
    ]
    Path("people.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in answers))
    Path("bench.jsonl").write_text('{"prompt": "Describe thing number 3 in a few words."}\n')
    succeed(
        "judge people.jsonl --by compare --check --model sim -o checked.jsonl -q",
        "respond seeds.jsonl -k 2 --model sim -o samples.jsonl -q",
        "judge samples.jsonl --by compare --model sim:position_bias=0.9 -o ranked.jsonl -q",
        "pack ranked.jsonl checked.jsonl --against bench.jsonl -o ds -q",
    )
    assert "**Agreement of sim/1 with people**" in card_text() and "| kappa |" in card_text()
    assert "No judgement was compared" not in card_text() and "Position bias: " in card_text()
    assert "ranked.jsonl and bench: 1 rows hold 1 of 1 questions (contaminated)." in card_text()
    assert "both orders agree" in card_text()


def test_no_text_of_a_model_is_markup_in_the_card() -> None:
    import yaml

    texts = [text for text in HOSTILE if "\ud800" not in text]
    rows = [{"prompt": f"{text} number {i}", "responses": [f"{text}\nanswer"]} for i, text in enumerate(texts)]
    Path("replies.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("seeds.jsonl").write_text("".join(f"{json.dumps({'prompt': row['prompt']})}\n" for row in rows))
    datagen("respond seeds.jsonl --model replay:replies.jsonl -o rows.jsonl -q")
    for start in range(len(texts)):  # each of them is among the sample rows of one card
        lines = Path("rows.jsonl").read_text().splitlines()
        Path("one.jsonl").write_text(lines[start % len(lines)] + "\n")
        shutil.copy("rows.meta.json", "one.meta.json")
        succeed("pack one.jsonl -o ds --overwrite -q")
        text = card_text()
        assert yaml.safe_load(text.split("---\n")[1])["tags"] == ["synthetic", "datagen"]
        kinds = [token.type for token in tokens(text)]
        assert kinds.count("html_block") == 1 and "html_inline" not in kinds and "hr" not in kinds
        headings = [token for token in tokens(text) if token.type == "heading_open"]
        assert len(headings) == text.count("\n## ") + text.count("\n### ") + 1
        assert not set("\u202e\x1b") & set(text)


@given(st.integers(0, 10**6).map(lambda seed: hostile(Random(seed))) | st.sampled_from(HOSTILE))
def test_a_fence_holds_any_text_and_a_cell_stays_one(text: str) -> None:
    (block,) = MarkdownIt("commonmark").parse(fenced(text, 400).encode(errors="backslashreplace").decode())
    assert block.type == "fence" and block.info == "text"
    parsed = MarkdownIt("commonmark").enable("table").parse(table(["a", "b"], [[text, "end"]]))
    cells = [token for token in parsed if token.type == "td_open"]
    inner = [child.type for token in parsed for child in token.children or ()]
    assert len(cells) == 2 and set(inner) <= {"text", "text_special", "html_entity"}


def test_terms_are_known_for_some_models_and_said_to_be_unknown_for_others() -> None:
    assert terms_of("sim:leak=0.1/1").startswith("none: sim") and terms_of("qwen3:8b") == UNKNOWN
    assert (
        "OpenAI" in terms_of("gpt-4o-mini")
        and "OpenAI" in terms_of("openai/o3-mini")
        and terms_of("gpt-oss-20b") == UNKNOWN
    )
    assert "Anthropic" in terms_of("claude-opus-5#a") and "Google" in terms_of("gemini-3-pro")
    assert "begins with Llama" in terms_of("meta-llama/Llama-3.1-8B-Instruct") and "begins with Llama" in terms_of(
        "llama3.2:3b"
    )
    assert "other than Llama 3" in terms_of("Meta-Llama-3-8B") and terms_of("llama-guard") == UNKNOWN


def test_sizes_have_the_names_of_the_hub() -> None:
    assert [size_category(n) for n in (0, 999, 1_000, 10**6, 10**9)] == [
        "n<1K",
        "n<1K",
        "1K<n<10K",
        "1M<n<10M",
        "n>10M",
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pack nothing.jsonl -o ds", "no such file"),
        ("pack rows.meta.json -o ds", "belongs to an output"),
        ("pack seeds.jsonl -o ds", "has no seeds.meta.json beside it"),
        ("pack rows.jsonl -o .", "which would write"),
        ("pack rows.jsonl -o notes", "was not made by datagen pack"),
        ("pack rows.jsonl -o missing/ds", "no such folder"),
    ],
)
def test_mistakes_end_with_one_line(outputs: None, line: str, says: str) -> None:
    Path("notes").mkdir()
    Path("notes/README.md").write_text("# Mine\n")
    ran = datagen(line)
    assert ran.exit_code == 2 and says in ran.output and ran.output.count("\n") == 1, ran.output
    assert Path("notes/README.md").read_text() == "# Mine\n"


def test_only_a_folder_of_ours_is_replaced(outputs: None) -> None:
    succeed("pack rows.jsonl -o ds -q")
    assert "add --overwrite" in datagen("pack final.jsonl -o ds").output
    succeed("pack final.jsonl -o ds --overwrite -q")
    assert [path.name for path in Path("ds/data").iterdir()] == ["final.parquet"]


def test_the_same_files_make_the_same_bytes(outputs: None) -> None:
    Path("one").mkdir()
    succeed("pack final.jsonl --journal -o one/ds -q", "pack final.jsonl --journal -o ds -q")
    assert all_bytes("one/ds") == all_bytes("ds")
