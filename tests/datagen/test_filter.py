"""`datagen filter`: rows that pass are unchanged, and every dropped row has its reason."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.engine.job import Outcome, open_job, run_job
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.select.filter import Filter, Options
from datagen.select.novelty import Novelty
from tests.jobs import Quiet, respond, rows

GOOD = {"prompt": "Compute 2 + 3.", "response": "2 + 3 = 5.\nAnswer: 5", "answer": "5"}


def write(*content: Row, path: str = "rows.jsonl") -> Path:
    Path(path).write_bytes(b"".join(map(dump_line, content)))
    return Path(path)


def run(path: Path, output: str = "out.jsonl", **options: Any) -> Outcome:
    with open_job(Filter, str(path), Options(**options), RunOptions(output=output), {}) as job:
        return asyncio.run(run_job(job, Quiet()))


def reasons() -> list[str]:
    return [row["reason"] for row in rows("out.rejected.jsonl")]


def test_a_row_of_ours_that_passes_is_the_very_row_that_came_in() -> None:
    respond(write(GOOD, {**GOOD, "prompt": "Compute 4 * 5 + 1.", "answer": "21"}), "sim", "made.jsonl", strategy="cot")
    run(Path("made.jsonl"))
    assert Path("out.jsonl").read_bytes() == Path("made.jsonl").read_bytes()


def test_a_foreign_row_comes_out_in_our_shape_and_loses_nothing() -> None:
    run(write({"instruction": "Name a bird.", "input": "", "output": "A wren is a bird.", "id": 7, "licence": "CC0"}))
    (row,) = rows("out.jsonl")
    assert (row["prompt"], row["response"]) == ("Name a bird.", "A wren is a bird.")
    assert (row["licence"], row["meta"]["source_id"]) == ("CC0", "7")


@pytest.mark.parametrize("bad", [{"constraints": [{"id": "no:such", "kwargs": {}}]}, {"constraints": "[" * 99_999}])
def test_a_row_that_a_verifier_cannot_read_is_a_bad_line_and_the_rows_behind_it_are_kept(bad: Row) -> None:
    good = [{**GOOD, "prompt": f"Compute {n} + 3."} for n in range(40)]
    path = write(*good[:20], {**GOOD, **bad}, *good[20:])
    outcome = run(path, rule=["none"], verify=["constraints"])
    assert (outcome.result["funnel"]["kept"], outcome.result["funnel"]["unreadable"]) == (40, 1)
    (rejected,) = rows("out.rejected.jsonl")
    assert rejected["record"]["line"] == 21 and "constraint" in rejected["reason"]
    strict = RunOptions(output="s.jsonl", strict=True)
    with open_job(Filter, str(path), Options(verify=["constraints"]), strict, {}) as job:
        assert isinstance(asyncio.run(run_job(job, Quiet())).error, InputError)


def test_rules_are_all_some_or_none() -> None:
    bad = {"prompt": "Explain how tides come about in the sea.", "response": "I'm sorry, but I can't help with that."}
    path = write(GOOD, bad)
    run(path)
    assert reasons() == ["too_short"] or reasons() == ["refusal"]
    for rule, dropped in ((["refusal"], ["refusal"]), (["none"], []), (["repetition"], [])):
        run(path, f"{rule[0]}.jsonl", rule=rule)
        assert [row["reason"] for row in rows(f"{rule[0]}.rejected.jsonl")] == dropped
    with pytest.raises(InputError, match="--rule beauty: expected one of all, none, empty"):
        run(path, rule=["beauty"])


def test_verifiers_drop_what_is_wrong_and_on_demand_what_they_do_not_know() -> None:
    wrong, unknown = {**GOOD, "response": "It is 6.\nAnswer: 6"}, {**GOOD, "response": "Hard to say, really."}
    path = write(GOOD, wrong, unknown)
    run(path, rule=["none"], verify=["answer"])
    assert (len(rows("out.jsonl")), reasons()) == (2, ["wrong:answer"])
    run(path, "only.jsonl", rule=["none"], verify=["answer"], only_verified=True)
    dropped = [row["reason"] for row in rows("only.rejected.jsonl")]
    assert dropped == ["wrong:answer", "unverified:answer"]


def test_like_prompts_are_dropped_after_the_first_and_equal_ones_whatever_their_case() -> None:
    prompts = (
        "Write a poem about the sea.",
        "write a poem about the sea",
        "Write a short poem about the ocean.",
        "Boil an egg.",
    )
    path = write(*({"prompt": prompt} for prompt in prompts))
    run(path, dedup=["0.7"])
    assert [row["prompt"] for row in rows("out.jsonl")] == [prompts[0], prompts[3]]
    assert reasons() == ["duplicate", "similar"]
    run(path, "exact.jsonl", dedup=["1.0"])
    assert [row["prompt"] for row in rows("exact.jsonl")] == [prompts[0], *prompts[2:]]


@settings(max_examples=4)
@given(st.lists(st.text("abcd ", min_size=4, max_size=12).filter(str.strip), min_size=3, max_size=24))
def test_parts_that_are_filtered_one_against_the_others_hold_no_near_duplicates(prompts: list[str]) -> None:
    """The way of docs/novelty.md to divide the work over a large pool."""
    for part in range(3):
        write(*({"prompt": " ".join(text)} for text in prompts[part::3]), path=f"part{part}.jsonl")
        run(Path(f"part{part}.jsonl"), f"kept{part}.jsonl", rule=["none"], dedup=["0.7"])
        pool = [f"kept{before}.jsonl" for before in range(part)]
        run(Path(f"kept{part}.jsonl"), f"new{part}.jsonl", rule=["none"], dedup=["0.7"], pool=pool)
    left = [row for part in range(3) for row in rows(f"new{part}.jsonl")]
    write(*left, path="left.jsonl")
    run(Path("left.jsonl"), "again.jsonl", rule=["none"], dedup=["0.7"])
    assert [row["id"] for row in rows("again.jsonl")] == [row["id"] for row in left]
    assert left[0]["prompt"] == " ".join(prompts[0])


def test_a_large_pool_says_its_time_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datagen.select.novelty.LARGE_POOL", 4)
    path, pool = write(GOOD, {"prompt": SONG}), write({"prompt": "a"}, {"prompt": "b"}, path="pool.jsonl")
    notices = []
    for options in (Options(), Options(dedup=["1"]), Options(dedup=["0.7"]), Options(dedup=["0.7"], pool=[str(pool)])):
        with open_job(Filter, str(path), options, RunOptions(), {}) as job:
            notices.append(job.method.notice(job.reader))
    assert notices[:3] == [None] * 3
    assert "up to 4: about 0.0 ms" in str(notices[3])


def test_chinese_prompts_are_compared_by_their_characters() -> None:
    path = write(
        {"prompt": "请写一首关于大海的诗。"}, {"prompt": "请写一首关于大海的诗！"}, {"prompt": "请解释潮汐是怎么来的。"}
    )
    run(path, dedup=["0.7"])
    assert (len(rows("out.jsonl")), reasons()) == (2, ["duplicate"])


def test_rows_with_a_benchmark_question_are_dropped_and_counted() -> None:
    question = "A farmer has seven crates of apples and sells two of them every day; after how many days are none left?"
    write(
        {"prompt": question},
        {"prompt": "Another question altogether, of which nothing is in the rows here."},
        path="bench.jsonl",
    )
    path = write({"prompt": f"Please tell me this. {question}"}, GOOD)
    outcome = run(path, against=["bench.jsonl"])
    assert reasons() == ["contaminated:bench"]
    assert outcome.result["table"]["bench"] == {
        "rows": 1, "questions": 2, "found": 1, "share": 0.5, "contaminated": True,
    }  # fmt: skip
    run(path, "tagged.jsonl", against=["bench.jsonl"], tag=True)
    tagged = rows("tagged.jsonl")
    assert [row["meta"]["tags"] for row in tagged] == [["contaminated:bench"], []]
    assert tagged[0]["meta"]["hits"][0]["item"] == 0


def test_tags_name_everything_that_was_found_and_drop_nothing() -> None:
    bad = {"prompt": "Explain the tides to me, please.", "response": "As an AI language model, I can't."}
    run(write(bad, GOOD), tag=True)
    assert len(rows("out.jsonl")) == 2 and not reasons()
    assert len(rows("out.jsonl")[0]["meta"]["tags"]) >= 2


def test_no_model_is_asked_and_no_option_about_models_is_there() -> None:
    outcome = run(write(GOOD))
    assert (outcome.run["requests"], outcome.result["usage"]["calls"]) == (0, 0)


@given(st.lists(st.sampled_from(["a b c d", "a b c e", "x y z w", "x y z", "你好世界", "你好世人"]), max_size=8))
def test_what_is_kept_depends_on_what_came_before_alone(prompts: list[str]) -> None:
    rows = [{"id": str(place), "prompt": prompt} for place, prompt in enumerate(prompts)]
    novelty = Novelty(0.7)
    expected = [novelty.drops(row) for row in rows]
    for length in range(len(prompts)):
        again = Novelty(0.7)
        assert [again.drops(row) for row in rows[:length]] == expected[:length]


def test_real_gold_solutions_pass(real_data: Path) -> None:
    outcome = run(real_data / "gsm8k/test_300.jsonl", verify=["equations"], dedup=["0.7"])
    assert outcome.result["funnel"]["kept"] >= 298
    assert "wrong:equations" not in outcome.result["funnel"]["rejected"]
    assert json.loads(Path("out.meta.json").read_text())["result"]["fingerprint"]["command"] == "filter"


OTHER = "Another question of some length, which nobody here has asked so far."
SONG = "How many clips did the seller of clips sell altogether in the months of April and May?"


def test_a_benchmark_says_where_its_questions_stand() -> None:
    body, question = SONG.split(" in the ")
    write({"Story": body, "Ask": f"in the {question}", "Answer": 5}, path="svamp.jsonl")
    path = write({"prompt": f"Tell me. {SONG}"}, GOOD)
    with pytest.raises(InputError, match=r"fields that hold its questions: --against svamp\.jsonl#FIELD,FIELD"):
        run(path, against=["svamp.jsonl"])
    run(path, against=["svamp.jsonl#Story,Ask"])
    assert reasons() == ["contaminated:svamp"]
    with pytest.raises(InputError, match=r"svamp\.jsonl:1: no text in Story, Asks"):
        run(path, "more.jsonl", against=["svamp.jsonl#Story,Asks"])


def test_a_benchmark_with_a_line_that_cannot_be_read_is_refused() -> None:
    write({"prompt": SONG}, {"prompt": 5}, path="bench.jsonl")
    with pytest.raises(InputError, match=r"bench\.jsonl:2: .*fix the line"):
        run(write(GOOD), against=["bench.jsonl"])


def test_another_content_under_the_same_name_is_another_filter() -> None:
    write({"prompt": SONG}, path="bench.jsonl")
    path, fingerprints = write({"prompt": SONG}, GOOD), []
    for question in (SONG, SONG, OTHER):
        write({"prompt": question}, path="bench.jsonl")
        with open_job(Filter, str(path), Options(against=["bench.jsonl"]), RunOptions(), {}) as job:
            fingerprints.append(job.fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_benchmarks_of_one_name_are_reported_apart() -> None:
    for folder, question in (("a", SONG), ("b", OTHER)):
        Path(folder).mkdir()
        write({"prompt": question}, path=f"{folder}/test.jsonl")
    outcome = run(write({"prompt": SONG}), against=["a/test.jsonl", "b/test.jsonl"])
    counts = {name: row["found"] for name, row in outcome.result["table"].items()}
    assert counts == {"a/test.jsonl": 1, "b/test.jsonl": 0}
