"""Topics for new tasks: every leaf gets its turn, whatever the concurrency, and the table says which have rows."""

from collections import Counter
from pathlib import Path

import pytest

from datagen.commands.table import load_methods
from datagen.engine.job import Outcome
from datagen.errors import InputError, ParseError
from datagen.records.files import dump_line
from datagen.select.topics import Coverage, Topics, load_topics, read_topics
from tests.jobs import digest, perform, rows

METHODS = load_methods("self-instruct")


def run(mode: str = "alpaca", output: str = "out.jsonl", n: int = 40, model: str = "sim", **options: object) -> Outcome:
    texts = ("Name a river in Europe.", "Write a short poem about salt.", "Explain how a lock on a canal works.")
    Path("seeds.jsonl").write_bytes(b"".join(dump_line({"prompt": text, "response": "x"}) for text in texts))
    run_options = {name: options.pop(name) for name in list(options) if name in ("concurrency",)}
    method = METHODS[mode]
    return perform(method, Path("seeds.jsonl"), model, output, method.options_type(**options), n=n, **run_options)


def test_each_draw_is_for_one_leaf_of_the_tree() -> None:
    table = run(topics="2", topic_depth=2, n=60).result["table"]
    topics = Counter(row["meta"]["topic"] for row in rows("out.jsonl"))
    assert set(topics) <= {f"topic {a} > topic {a} {b}" for a in range(2) for b in range(2)}
    assert table["topics"] == {
        "leaves": 4, "covered": len(topics), "most": max(topics.values()),
        "fewest": min(topics.values()) if len(topics) == 4 else 0,
    }  # fmt: skip
    assert len(topics) > 1


def test_the_lists_of_a_tree_are_asked_for_once() -> None:
    outcome = run(topics="3", topic_depth=1, n=60)
    spending = outcome.result["spending"]
    (lists,) = [part for part in spending if part["template"] == "self_instruct/topics"]
    assert lists["calls"] >= 1 and outcome.run["requests"] < outcome.result["usage"]["calls"]


@pytest.mark.parametrize("mode", ["paper", "alpaca", "belle"])
def test_rows_do_not_depend_on_concurrency(mode: str) -> None:
    for concurrency in ("1", "64"):
        run(mode, f"{concurrency}/out.jsonl", topics="2", topic_depth=2, n=20, concurrency=concurrency)
    assert digest("1/out.jsonl") == digest("64/out.jsonl")


def test_the_topics_of_a_file_take_turns() -> None:
    Path("topics.txt").write_text("bread\nships\nbread\n")
    run(topics="topics.txt", n=50)
    assert {row["meta"]["topic"] for row in rows("out.jsonl")} == {"bread", "ships"}
    Path("topics.txt").write_text("\n")
    with pytest.raises(InputError, match="no topics; write one per line"):
        run(topics="topics.txt", output="none.jsonl")


def test_every_leaf_has_its_turn_before_one_has_another() -> None:
    topics = Topics(breadth=3, depth=2)
    for number in range(3):
        leaves = [topics.leaf_of(draw, 0) for draw in range(9 * number, 9 * number + 9)]
        assert sorted(leaves) == list(range(9))
    assert [topics.leaf_of(draw, 0) for draw in range(9)] != [topics.leaf_of(draw, 1) for draw in range(9)]


def test_a_list_has_as_many_different_topics_as_were_asked_for() -> None:
    reply = '{"topics": ["Bread", " bread", "Ships", "", "Salt"]}'
    assert read_topics(reply, 3) == ["Bread", "Ships", "Salt"]
    with pytest.raises(ParseError, match="3 different topics in place of 4"):
        read_topics(reply, 4)
    with pytest.raises(ParseError):
        read_topics("Bread, ships and salt.", 1)


def test_a_tree_has_a_bound() -> None:
    assert load_topics(None, 2).count == 0
    assert load_topics("8", 2).count == 64
    for value, depth in (("1", 2), ("0", 1), ("1000", 2), ("9" * 50, 9)):
        with pytest.raises(InputError, match="a tree of 2 to 100,000 leaves"):
            load_topics(value, depth)


def test_coverage_counts_leaves_without_a_row() -> None:
    coverage = Coverage(3)
    assert coverage.as_dict() == {"leaves": 3, "covered": 0, "fewest": 0, "most": 0}
    coverage.rows.update([0, 0, 2])
    assert coverage.as_dict() == {"leaves": 3, "covered": 2, "fewest": 0, "most": 2}
