"""Self-Instruct: the examples in a prompt, the dropped tasks, and rows that do not depend on the order of replies."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.engine.job import Outcome, open_job, run_job
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.generators.self_instruct import as_text, read_tasks
from datagen.prompts import Prompts
from datagen.records.files import dump_line
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, Row
from datagen.select.novelty import Pool
from datagen.select.task_pool import Task, TaskPool
from tests.jobs import Quiet, digest, rows

METHODS = load_methods("self-instruct")
OPTIONS = ("lag", "threshold", "personas", "topics", "topic_depth")


def seeds(count: int = 12, path: str = "seeds.jsonl") -> Path:
    """Write seed tasks on unrelated subjects."""
    words = "river candle engine violin harvest glacier teapot orchard comet ladder pepper bridge".split()
    tasks = ({"prompt": f"Tell me about a {word} number {at}."} for at, word in enumerate(words[:count]))
    Path(path).write_bytes(b"".join(map(dump_line, tasks)))
    return Path(path)


def run(path: Path, output: str = "out.jsonl", *, mode: str = "paper", model: str = "sim", **options: Any) -> Outcome:
    method = METHODS[mode]
    method_options = {name: options.pop(name) for name in list(options) if name in OPTIONS}
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    run_options = RunOptions(output=output, model=[model], **{"n": 60, **options})
    with open_job(method, str(path), method.options_type(**method_options), run_options, {}) as job:
        return asyncio.run(run_job(job, Quiet()))


@pytest.mark.parametrize("mode", METHODS)
def test_rows_do_not_depend_on_concurrency(mode: str) -> None:
    for concurrency in ("1", "16", "256"):
        run(seeds(), f"{concurrency}/out.jsonl", mode=mode, model="sim:malformed=0.03", concurrency=concurrency)
    assert len({digest(f"{concurrency}/out.jsonl") for concurrency in ("1", "16", "256")}) == 1
    assert len(rows("1/out.jsonl")) == 60


def test_more_rows_begin_with_the_same_rows_and_pay_for_the_new_ones_alone() -> None:
    run(seeds(), "grown/out.jsonl", n=30)
    first = Path("grown/out.jsonl").read_bytes()
    again = run(seeds(), "grown/out.jsonl", n=90)
    undisturbed = run(seeds(), "whole/out.jsonl", n=90)
    assert digest("grown/out.jsonl") == digest("whole/out.jsonl")
    assert Path("grown/out.jsonl").read_bytes().startswith(first)
    assert again.run["requests"] < undisturbed.run["requests"]


def test_the_lag_decides_the_rows_and_concurrency_does_not() -> None:
    run(seeds(), "a/out.jsonl", lag=1)
    run(seeds(), "b/out.jsonl", lag=8)
    assert Path("a/out.jsonl").read_bytes() != Path("b/out.jsonl").read_bytes()


def test_no_kept_task_is_like_another_or_like_a_seed() -> None:
    run(seeds(), n=150)
    pool = Pool(0.7)
    for seed in rows("seeds.jsonl"):
        pool.add(seed["prompt"])
    tasks = dict.fromkeys((row["meta"]["task"], row["meta"]["instruction"]) for row in rows("out.jsonl"))
    for _, instruction in tasks:
        assert pool.is_novel(instruction), instruction
        pool.add(instruction)
    assert {row["reason"] for row in rows("out.rejected.jsonl")} == {"similar"}


def test_a_task_knows_the_seed_that_it_is_most_like() -> None:
    outcome = run(seeds(), n=80)
    people = Pool(0.7)
    with Path("seeds.jsonl").open("rb") as file:
        names = [seed.id for seed in Reader("seeds.jsonl", file, PROMPTS).read() if isinstance(seed, Record)]
    for seed in rows("seeds.jsonl"):
        people.add(seed["prompt"])
    tasks = {row["meta"]["task"]: row["meta"] for row in rows("out.jsonl")}
    for meta in tasks.values():
        match = people.nearest(meta["instruction"], above=0.0)
        expected = (names[match.place], round(match.score, 4)) if match else (None, 0.0)
        assert (meta["nearest_seed"], meta["seed_similarity"]) == expected
    likeness = sorted(meta["seed_similarity"] for meta in tasks.values())
    figures = outcome.result["table"]["seed_similarity"]
    assert figures["mean"] == pytest.approx(sum(likeness) / len(likeness), abs=1e-4)
    assert 0 < figures["median"] <= figures["p90"] <= likeness[-1] <= 0.7


def test_what_is_like_a_task_that_could_be_seen_costs_no_further_call() -> None:
    run(seeds(), n=100, lag=4)
    early = [row for row in rows("out.rejected.jsonl") if row["stage"] == "paper"]
    late = [row for row in rows("out.rejected.jsonl") if row["stage"] == "fold"]
    assert early and late
    assert all(row["meta"]["is_classification"] is None for row in early)
    assert all(row["meta"]["is_classification"] is not None for row in late)


def test_people_fill_up_where_the_machine_has_too_few_tasks_and_two_of_eight_are_its_own_later() -> None:
    run(seeds(), n=120, lag=2)
    people = {row["id"] for row in rows("out.jsonl")}
    first, last = rows("out.jsonl")[0], rows("out.jsonl")[-1]
    assert len(first["meta"]["parents"]) == len(last["meta"]["parents"]) == 8
    assert not people & set(first["meta"]["parents"])
    assert len(people & set(last["meta"]["parents"])) == 2


def test_alpaca_shows_three_tasks_of_people_alone() -> None:
    run(seeds(), mode="alpaca", n=80)
    generated = {row["id"] for row in rows("out.jsonl")}
    assert all(
        len(row["meta"]["parents"]) == 3 and not generated & set(row["meta"]["parents"]) for row in rows("out.jsonl")
    )


def test_belle_thinks_in_chinese() -> None:
    Path("zh.jsonl").write_bytes(
        b"".join(dump_line({"prompt": f"请写一首关于{word}的诗。"}) for word in ("山", "海", "风", "雪"))
    )
    run(Path("zh.jsonl"), mode="belle", n=20)
    assert all(ord(row["prompt"][0]) > 0x4E00 for row in rows("out.jsonl"))


def test_a_persona_is_drawn_for_each_draw() -> None:
    Path("people.txt").write_text("a beekeeper\n\na night nurse\n")
    run(seeds(), personas=Path("people.txt"))
    assert {row["meta"]["persona"] for row in rows("out.jsonl")} == {"a beekeeper", "a night nurse"}


@pytest.mark.parametrize(("content", "says"), [(b"a cook\n\xff\n", "people.txt:2: not UTF-8"), (b" \n", "no personas")])
def test_personas_that_are_none_are_refused(content: bytes, says: str) -> None:
    Path("people.txt").write_bytes(content)
    with pytest.raises(InputError, match=says):
        run(seeds(), personas=Path("people.txt"))


def replay(*entries: Row) -> str:
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, entries)))
    return "replay:replies.jsonl"


def reply(task: str, text: str, **fields: str) -> Row:
    return {"task": f"self_instruct/{task}", "fields": fields, "responses": [text] * 2_000}


def test_every_item_of_a_reply_ends_somewhere() -> None:
    tasks = [
        {"instruction": "Name a town by the sea and say why you chose it."},
        {"instruction": "Draw a map of it."},
        {"instruction": "Too short"},
        {"instruction": "Tell me about a river number 0."},
        {"instruction": "Is this sentence rude or polite?"},
    ]
    model = replay(
        reply("tasks", "\n".join([*map(json.dumps, tasks), "And so on.", '{"instruction": "half a'])),
        reply("classification", "No", instruction=tasks[0]["instruction"]),
        reply("input_first", '{"input": "", "output": "Hull, for its light."}', instruction=tasks[0]["instruction"]),
        reply("classification", "Yes.", instruction=tasks[4]["instruction"]),
        reply("output_first", '{"output": "rude", "input": "Go away."}\n{"output": "polite", "input": "Please stay."}'),
    )
    outcome = run(seeds(), model=model, n=3)
    assert [row["prompt"] for row in rows("out.jsonl")] == [
        "Name a town by the sea and say why you chose it.",
        "Is this sentence rude or polite?\n\nGo away.",
        "Is this sentence rude or polite?\n\nPlease stay.",
    ]
    reasons = outcome.result["funnel"]["rejected"]
    assert reasons["needs_media"] == reasons["too_short"] == reasons["similar"] == 1


@pytest.mark.parametrize("english", [True, False])
def test_tasks_in_another_language_are_dropped_only_where_people_wrote_english(english: bool) -> None:
    path = seeds()
    if not english:
        path.write_bytes(path.read_bytes() + dump_line({"prompt": "Écris un poème sur la mer."}))
    model = replay(
        reply("tasks", json.dumps({"instruction": "写一首关于大海的诗，四行以内。"}, ensure_ascii=False)),
        reply("classification", "No"),
        reply("input_first", '{"input": "", "output": "大海无边。"}'),
    )
    outcome = run(path, model=model, n=1)
    assert [row["prompt"] for row in rows("out.jsonl")] == ([] if english else ["写一首关于大海的诗，四行以内。"])
    assert ("not_english" in outcome.result["funnel"]["rejected"]) == english


def test_a_contradiction_drops_all_of_the_task() -> None:
    lines = ['{"input": "2", "output": "even"}', '{"input": "2", "output": "odd"}', '{"input": "3", "output": "odd"}']
    model = replay(
        reply("tasks", '{"instruction": "Say whether the number is odd or even."}'),
        reply("classification", "no"),
        reply("input_first", "\n".join(lines)),
    )
    outcome = run(seeds(), model=model, n=1)
    assert not rows("out.jsonl")
    assert outcome.result["funnel"]["rejected"]["contradiction"] >= 3


def test_text_with_stop_strings_of_other_tools_survives() -> None:
    text = "It cost 20. In 1999 ### it cost 16.\n20. And so on."
    line = json.dumps({"instruction": "List what it cost ## and when.", "input": "", "output": text})
    assert read_tasks(f"```json\n{line},\n```") == [json.loads(line)]
    assert read_tasks(f"[\n{line},\n{line}\n]") == [json.loads(line)] * 2


def test_without_a_number_of_rows_it_would_not_end() -> None:
    with pytest.raises(InputError, match="give the number of rows with -n"):
        run(seeds(), n=None)


def test_an_answer_that_cannot_be_used_is_an_empty_draw_and_twenty_of_these_end_the_run() -> None:
    outcome = run(seeds(), model=replay(reply("tasks", "")), n=5)
    funnel = outcome.result["funnel"]
    assert (outcome.status, outcome.reason, funnel["failed"]) == ("stopped", "in vain", {})
    assert sum(funnel["rejected"].values()) == 20, "the answer is empty, and other draws have none"


def test_values_with_parts_become_text_by_one_rule() -> None:
    assert [as_text(value) for value in (None, "a", [], ["a", 2, True], {"a": 1}, [["é"]])] == [
        "", "a", "", "a\n2\ntrue", '{"a": 1}', '[["é"]]'
    ]  # fmt: skip


def test_a_seed_of_several_paragraphs_is_shown_whole_and_an_input_is_not() -> None:
    plain = {"prompt": "Here is a function.\n\ndef f(): pass\n\nExplain it."}
    alpaca = {"instruction": "Sort the words.", "input": "tree\n\nyew", "output": "yew tree"}
    Path("seeds.jsonl").write_bytes(dump_line(plain) + dump_line(alpaca))
    with Path("seeds.jsonl").open("rb") as file:
        records = Reader("seeds.jsonl", file, PROMPTS).read()
        pool = TaskPool(0.7)
        draw = METHODS["paper"](METHODS["paper"].options_type(), Prompts()).draw(records, pool, 0)
        assert isinstance(next(draw), Record)
    assert [task.instruction for task in pool.tasks] == [plain["prompt"], "Sort the words."]


def test_further_instances_of_a_task_come_along_and_the_next_task_does_not() -> None:
    tasks = TaskPool(0.7)
    tasks.add(Task("s", "Count the birds on the wire."), seed=True)
    row: Row = {"id": "a", "meta": {"task": "1", "instruction": "Sort these words by their length.", "seen": 1}}
    assert tasks.drops(row) is None and tasks.drops({**row, "id": "b"}) is None
    assert tasks.drops({"id": "c", "meta": {**row["meta"], "task": "2"}}) == "similar"
    assert len(tasks) == 2


def test_the_real_seeds_grow(real_seeds: Path) -> None:
    outcome = run(real_seeds, n=200)
    assert outcome.status == "finished"
    table = outcome.result["table"]
    assert table["distinct_2"] > 0.2 and len(table["leading_words"]) == 10
