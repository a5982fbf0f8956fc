"""Backtranslation: an instruction for each segment, rated, perhaps rewritten; nothing is paid for a bad segment."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.engine.job import Outcome
from datagen.errors import ParseError
from datagen.generators.backtranslate import Backtranslate, Options, read_instruction, read_points, rejection_reason
from datagen.records.files import dump_line
from tests.datagen.test_segments import GOOD, SENTENCES
from tests.jobs import digest, perform, rows
from tests.server import Server, running

SEED_ROW = {"prompt": "Greet me.", "response": "Hello, nice to see you."}


def corpus(count: int = 12) -> Path:
    """Write a folder of different pages, one of them a stub, one a seed."""
    folder = Path("corpus")
    folder.mkdir(exist_ok=True)
    for n in range(count):
        shuffled = SENTENCES[n % 7 :] + SENTENCES[: n % 7]
        words = " ".join(f"Part {n} of step {i} takes {n * 7 + i} minutes at most." for i in range(12))
        (folder / f"{n:02}.md").write_text(f"# Bread number {n}\n\n{words} {shuffled[0]}\n")
    (folder / "stub.md").write_text("# Stub\n\nToo short.\n")
    (folder / "seeds.jsonl").write_bytes(dump_line(SEED_ROW))
    return folder


def run(model: str = "sim", output: str = "out.jsonl", *, options: Options | None = None, **settings: Any) -> Outcome:
    return perform(Backtranslate, corpus(), model, output, options or Options(), **settings)


def test_a_row_says_where_its_answer_comes_from() -> None:
    run()
    output = rows("out.jsonl")
    augmented = [row for row in output if row["meta"]["op"] == "augmented"]
    assert len(augmented) == 12
    for row in augmented:
        start, end = row["meta"]["span"]
        text = (Path("corpus") / row["meta"]["document"]).read_text()
        assert text[start:end] == row["response"]
        assert "Bread number" in row["meta"]["header"]
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert row["meta"]["rating"] >= 4.5 and len(row["meta"]["ratings"]) == 3
    (seed,) = [row for row in output if row["meta"]["op"] == "seed"]
    assert seed["response"] == SEED_ROW["response"]
    assert seed["prompt"][1]["content"] == SEED_ROW["prompt"]
    assert seed["prompt"][0] != augmented[0]["prompt"][0], "seeds and mined texts get different prompts"


def test_nothing_is_asked_about_a_segment_that_breaks_a_rule() -> None:
    outcome = run()
    assert outcome.result["funnel"]["rejected"] == {"too_short": 1}
    assert outcome.run["requests"] == 12 * 4


def test_the_mean_of_the_ratings_decides_and_one_that_cannot_be_read_is_none() -> None:
    outcome = run("sim:skill=0.6,malformed=0.3", options=Options(threshold=4.0))
    funnel = outcome.result["funnel"]
    assert funnel["rejected"]["low_rating"] > 0
    for row in rows("out.jsonl"):
        assert row["meta"]["rating"] is None or row["meta"]["rating"] >= 4
    for row in rows("out.rejected.jsonl"):
        if row["reason"] == "low_rating":
            assert row["meta"]["rating"] < 4
            assert len(row["meta"]["ratings"]) == 3, "never a mean of fewer"


def test_without_a_threshold_nothing_is_rated() -> None:
    assert run(options=Options(threshold=0)).run["requests"] == 12


def test_a_rewritten_answer_keeps_the_text_that_it_was_made_of() -> None:
    run(options=Options(rewrite=True))
    (first, *_) = [row for row in rows("out.jsonl") if row["meta"]["op"] == "augmented"]
    start, end = first["meta"]["span"]
    assert first["meta"]["text"] == (Path("corpus") / first["meta"]["document"]).read_text()[start:end]
    assert first["meta"]["model"].startswith("sim")


def test_untagged_rows_are_plain_prompts() -> None:
    run(options=Options(untagged=True))
    assert all(isinstance(row["prompt"], str) for row in rows("out.jsonl"))


def test_order_and_concurrency_change_nothing() -> None:
    for concurrency in ("1", "16", "256"):
        run("sim:skill=0.8,malformed=0.1,refuse=0.1", f"{concurrency}/out.jsonl", concurrency=concurrency)
    assert len({digest(f"{concurrency}/out.jsonl") for concurrency in (1, 16, 256)}) == 1


def test_a_trained_backward_model_gets_the_text_alone() -> None:
    requests: list[list[dict[str, str]]] = []

    def answer(model: str, messages: list[dict[str, str]], sample: int, task: str) -> str:
        requests.append(messages)
        return f"What about matter {len(requests)}?"

    with running(Server(answer=answer)) as server:
        options = Options(trained=True, threshold=0, untagged=True)
        perform(Backtranslate, corpus(), f"m@{server.url}", "out.jsonl", options, timeout=5.0)
    texts = [path.read_text().split("\n\n", 1)[1].strip() for path in Path("corpus").glob("[0-9]*.md")]
    assert sorted(message["content"] for (message,) in requests) == sorted(texts)


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("How does bread rise?", None),
        ("Summarise the text above.", "mentions_text"),
        ("What does this article say about yeast?", "mentions_text"),
        ("Write an article about yeast.", None),
        ("How do I document a function?", None),
        ("请总结上面的文章。", "mentions_text"),
        ("请写一篇介绍酵母的文章。", None),
        (f"{SENTENCES[0]}{SENTENCES[1]}", "copies_text"),
        (f"Is it true that {SENTENCES[0]}", None),
    ],
)
def test_an_instruction_stands_without_its_text(instruction: str, reason: str | None) -> None:
    assert rejection_reason(instruction, GOOD) == reason


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Score: 4", 4.0),
        ("**Score:** 4.5 / 5", 4.5),
        ("Score: 2\nOn second thought.\nScore: 3", 3.0),
        ("得分\nscore：5", 5.0),
        ("Score: 6", None),
        ("Score: high", None),
        ("4", None),
        ("The score: 4 is due, I think.", None),
    ],
)
def test_a_rating_is_read_or_is_none(reply: str, expected: float | None) -> None:
    if expected is not None:
        assert read_points(reply) == expected
        return
    with pytest.raises(ParseError):
        read_points(reply)


def test_an_instruction_is_taken_out_of_its_wrapping() -> None:
    assert read_instruction('Instruction: "How does bread rise?"\n') == "How does bread rise?"
    assert read_instruction("指令：介绍面包。") == "介绍面包。"
    for empty in ("", '""', "x" * 3000):
        with pytest.raises(ParseError):
            read_instruction(empty)


def test_real_documents_give_rows_in_four_languages(real_data: Path) -> None:
    documents = real_data / "corpus" / "docs_dev.jsonl"
    outcome = perform(Backtranslate, documents, "sim", "out.jsonl", Options())
    funnel = outcome.result["funnel"]
    assert funnel["kept"] > 150
    licences = {json.loads(line)["license"] for line in documents.read_text().splitlines()}
    assert {row["meta"]["licence"] for row in rows("out.jsonl")} <= licences


def test_the_columns_of_a_seed_are_nothing_but_columns() -> None:
    names = ("kind", "problem", "text", "segment", "seed", "source", "header", "document", "span", "licence", "reason")
    columns = {name: f"the {name}" for name in names}
    Path("seeds.jsonl").write_bytes(
        dump_line({**columns, **SEED_ROW, "id": 7}) + dump_line({"text": GOOD, "kind": "x"})
    )
    perform(Backtranslate, Path("seeds.jsonl"), "sim", "out.jsonl", Options(untagged=True))
    (seed,) = [row for row in rows("out.jsonl") if row["meta"]["op"] == "seed"]
    assert seed.items() >= {**columns, **SEED_ROW}.items() and seed["meta"]["source_id"] == "7"
    assert not [row for row in rows("out.rejected.jsonl") if row["stage"] == "read"]
