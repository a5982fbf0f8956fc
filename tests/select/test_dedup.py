"""`filter --dedup`: near-duplicates of other families go, a row's own family stays."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.table import load_methods
from datagen.engine.job import open_job, run_job
from datagen.engine.options import RunOptions
from datagen.records.files import dump_line
from datagen.records.layout import pack_meta
from datagen.records.record import Row
from datagen.select.filter import Filter, Options
from datagen.select.novelty import Novelty, Pool, itself, seed_family
from datagen.text import exact_key, tokens
from tests.jobs import Quiet, evolve, perform, rows, write_seeds
from tests.select.test_novelty import rouge

PROMPTS = st.sampled_from(["a b c d", "A b c d.", "a b c e", "x y z w", "x y z"])
ROWS = st.lists(st.builds(lambda *drawn: drawn, PROMPTS, st.sampled_from("pq"), st.sampled_from(["Yes.", "No."])))


def dedup(path: str, output: str = "out.jsonl", *, within_family: bool = False) -> None:
    options = Options(rule=["none"], dedup=["0.7"], within_family=within_family)
    with open_job(Filter, path, options, RunOptions(output=output), {}) as job:
        asyncio.run(run_job(job, Quiet()))


def reason_to_drop(row: Row, kept: list[Row], family_of: Callable[[Row], str]) -> str | None:
    """Compare with every kept row, as the rule is worded."""
    others = [other["prompt"] for other in kept if family_of(other) != family_of(row)]
    own = [other for other in kept if family_of(other) == family_of(row)]
    same_prompt = [other for other in own if exact_key(other["prompt"]) == exact_key(row["prompt"])]
    if exact_key(row["prompt"]) in map(exact_key, others) or row["response"] in [
        row["response"] for row in same_prompt
    ]:
        return "duplicate"
    return "similar" if any(rouge(tokens(row["prompt"]), tokens(other)) > 0.7 for other in others) else None


@given(ROWS, st.sampled_from([itself, seed_family]))
def test_a_row_is_compared_with_every_row_of_another_family(
    drawn: list[tuple[str, str, str]], family_of: Callable[[Row], str]
) -> None:
    novelty = Novelty(0.7, family_of=family_of)
    kept: list[Row] = []
    for place, (prompt, seed, response) in enumerate(drawn):
        row = {"id": str(place), "prompt": prompt, "response": response, "meta": {"seed_id": seed}}
        reason = novelty.drops(row)
        assert reason == reason_to_drop(row, kept, family_of)
        if reason is None:
            kept.append(row)


def test_the_seed_of_a_row_is_named_in_its_meta_or_is_its_only_parent() -> None:
    row = {"id": "r", "meta": {"seed_id": "s", "parents": ["p"]}}
    assert seed_family(row) == "s"
    assert seed_family({"id": "r", "meta": {"seed_id": None, "parents": ["p"]}}) == "p"
    assert seed_family({"id": "r", "meta": {"parents": ["p", "q"]}}) == seed_family({"id": "r", "meta": {}}) == "r"


def test_no_evolved_row_is_dropped_for_its_ancestor() -> None:
    paper = load_methods("self-instruct")["paper"]
    perform(paper, write_seeds(12), "sim", "tasks.jsonl", paper.options_type(), n=12)
    evolve(Path("tasks.jsonl"), "sim", "evolved.jsonl")
    dedup("evolved.jsonl")
    dedup("evolved.jsonl", "strict.jsonl", within_family=True)

    kept = rows("out.jsonl")
    dropped = [row for row in rows("evolved.jsonl") if row["id"] not in {other["id"] for other in kept}]
    for row in dropped:
        assert reason_to_drop(row, [other for other in kept if seed_family(other) != seed_family(row)], seed_family)
    assert len(rows("strict.jsonl")) < 0.8 * len(kept), "most rewrites are near their parents"


def test_a_seed_beside_its_rewrites_is_one_of_the_family() -> None:
    write_seeds(1)
    evolve(Path("seeds.jsonl"), "sim", "evolved.jsonl")
    Path("both.jsonl").write_bytes(Path("seeds.jsonl").read_bytes() + Path("evolved.jsonl").read_bytes())
    dedup("both.jsonl")
    assert len(rows("out.jsonl")) == 1 + len(rows("evolved.jsonl"))


def test_several_answers_to_one_prompt_stay_and_a_repeated_row_goes() -> None:
    answers = [{"id": f"{n:016x}", "prompt": "What is 2 + 3?", "response": f"It is {n}."} for n in (4, 5)]
    ours = [{**row, "meta": pack_meta({"method": "respond", "parents": ["p"]})} for row in answers]
    Path("rows.jsonl").write_bytes(b"".join(map(dump_line, [*ours, ours[0]])))
    dedup("rows.jsonl")
    assert [row["response"] for row in rows("out.jsonl")] == ["It is 4.", "It is 5."]
    assert [row["reason"] for row in rows("out.rejected.jsonl")] == ["duplicate"]


def test_the_pool_leaves_out_one_family() -> None:
    pool = Pool(0.7)
    pool.add("a b c d", family=1)
    assert pool.is_novel("a b c d e", family=1)
    assert not pool.is_novel("a b c d e", family=2)
    assert not pool.is_novel("a b c d e")
