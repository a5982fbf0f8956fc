"""Every strategy works as in its paper, and no row depends on the order of the replies."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.strategies.rft import select_diverse
from datagen.verify.answers import final_answer
from datagen.verify.equations import equation_key
from tests.jobs import digest, respond, rows

STRATEGIES = ("direct", "cot", "vote", "rft", "star")


def questions(count: int, path: str = "questions.jsonl") -> Path:
    """Write sums with their answers."""
    sums = ((n % 7 + 2, n % 11 + 3, n) for n in range(count))
    lines = ({"prompt": f"Compute {a} * {b} + {c}.", "answer": str(a * b + c)} for a, b, c in sums)
    Path(path).write_bytes(b"".join(map(dump_line, lines)))
    return Path(path)


def rejected_rows(path: str = "out.rejected.jsonl") -> list[Row]:
    return rows(path)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_do_not_depend_on_concurrency_or_on_what_was_paid_before(strategy: str) -> None:
    model = "sim:skill=0.7,malformed=0.05,refuse=0.05"
    for name, concurrency in (("a", "1"), ("b", "256"), ("b", "16")):
        respond(questions(30), model, f"{name}/out.jsonl", strategy=strategy, concurrency=concurrency, overwrite=True)
    assert digest("a/out.jsonl") == digest("b/out.jsonl")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cap_raised_gives_what_one_run_gives(strategy: str) -> None:
    path = questions(12)
    respond(path, "sim:skill=0.7", "whole/out.jsonl", strategy=strategy, max_calls=1000)
    for cap in (20, 60, 1000):
        respond(path, "sim:skill=0.7", "capped/out.jsonl", strategy=strategy, max_calls=cap)
    assert digest("whole/out.jsonl") == digest("capped/out.jsonl")


def test_a_chain_of_thought_is_kept_apart_from_its_answer() -> None:
    respond(questions(5), "sim", strategy="cot", verify=["answer"])
    for row in rows("out.jsonl"):
        meta = row["meta"]
        assert row["response"] == f"{meta['rationale']}\nAnswer: {meta['answer']}"
        assert (meta["answer"], meta["verified"]) == (row["answer"], True)


def test_direct_looks_for_no_final_answer() -> None:
    Path("replies.jsonl").write_bytes(dump_line({"prompt": "Compute 2 * 3.", "responses": ["The answer is 6."]}))
    Path("one.jsonl").write_bytes(dump_line({"prompt": "Compute 2 * 3."}))
    respond(Path("one.jsonl"), "replay:replies.jsonl")
    (row,) = rows("out.jsonl")
    assert (row["response"], row["meta"]["answer"]) == ("The answer is 6.", None)


def test_an_answer_that_is_not_stated_is_asked_for_once_more() -> None:
    Path("replies.jsonl").write_bytes(
        dump_line({"prompt": "Compute 2 * 3 + 0.", "responses": ["Two times three is six."]})
        + dump_line({"task": "cot/extract", "fields": {}, "responses": ["Answer: 6"]})
    )
    respond(questions(1, "q.jsonl"), "sim", "q.out.jsonl", strategy="cot")  # the question is the one recorded
    Path("one.jsonl").write_bytes(dump_line({"prompt": "Compute 2 * 3 + 0."}))
    outcome = respond(Path("one.jsonl"), "replay:replies.jsonl", strategy="cot")
    (row,) = rows("out.jsonl")
    assert row["response"] == "Two times three is six.\n\nAnswer: 6"
    assert (row["meta"]["rationale"], row["meta"]["answer"]) == ("Two times three is six.", "6")
    assert outcome.run["requests"] == 2


def test_a_single_answer_that_is_wrong_is_dropped_and_among_several_it_is_marked() -> None:
    path = questions(40)
    respond(path, "sim:skill=0.5", "one.jsonl", strategy="cot", verify=["answer"])
    right, wrong = rows("one.jsonl"), rejected_rows("one.rejected.jsonl")
    assert {row["meta"]["verified"] for row in right} == {True}
    assert {row["reason"] for row in wrong} == {"wrong_answer"}
    assert len(right) + len(wrong) == 40 and 10 < len(wrong) < 30
    respond(path, "sim:skill=0.5", "four.jsonl", strategy="cot", verify=["answer"], k=4)
    for row in rows("four.jsonl"):
        answers = row["meta"]["responses"]
        assert len(row["responses"]) == len(answers) == 4
        truth = [final_answer(response) == row["answer"] for response in row["responses"]]
        assert [answer["verified"] for answer in answers] == truth


def test_teachers_are_balanced_within_each_prompt() -> None:
    respond(questions(9), ["sim", "sim:skill=0.5", "sim:skill=0.9"], strategy="cot", k=6)
    for row in rows("out.jsonl"):
        assert set(Counter(answer["model"] for answer in row["meta"]["responses"]).values()) == {2}


def test_a_vote_is_right_more_often_than_one_chain() -> None:
    path = questions(150)
    respond(path, "sim:skill=0.6", "one.jsonl", strategy="cot", verify=["answer"])
    respond(path, "sim:skill=0.6", "vote.jsonl", strategy="vote", k=9, least_share=0.0)
    voted = rows("vote.jsonl")
    right = sum(final_answer(row["response"]) == row["answer"] for row in voted)
    assert right / 150 > len(rows("one.jsonl")) / 150 + 0.2


def test_a_vote_counts_answers_by_value_and_drops_ties_and_minorities() -> None:
    def vote(*answers: str) -> tuple[list[Row], list[Row]]:
        chains = [f"So be it.\nAnswer: {answer}" if answer else "I cannot say." for answer in answers]
        Path("replies.jsonl").write_bytes(dump_line({"prompt": "How many?", "responses": chains}))
        Path("one.jsonl").write_bytes(dump_line({"prompt": "How many?"}))
        respond(Path("one.jsonl"), "replay:replies.jsonl", strategy="vote", k=len(answers), overwrite=True)
        return rows("out.jsonl"), rejected_rows()

    (row,), _ = vote("4", "1,000", "1000 apples", "$1000.00")
    assert row["response"].endswith("1,000") and row["meta"]["vote_share"] == 0.75
    assert row["meta"]["votes"] == [{"answer": "1000", "votes": 3}, {"answer": "4", "votes": 1}]
    for answers, reason in (("4 4 5 5", "no_agreement"), ("4 4 5 6 7", "no_agreement")):
        assert vote(*answers.split())[1][0]["reason"] == reason
    assert vote("", "")[1][0]["reason"] == "no_answer"
    assert vote("4", "", "", "")[1][0]["reason"] == "no_agreement"


def solutions(question: str, gold: str, *chains: str) -> list[tuple[str, str]]:
    """Run rft over recorded chains; return each path as ("kept" or the reason, text)."""
    Path("replies.jsonl").write_bytes(dump_line({"prompt": question, "responses": list(chains)}))
    Path("one.jsonl").write_bytes(dump_line({"question": question, "answer": gold}))
    respond(Path("one.jsonl"), "replay:replies.jsonl", strategy="rft", k=len(chains), overwrite=True)
    return [("kept", row["response"]) for row in rows("out.jsonl")] + [
        (row["reason"], row["reply"]) for row in rejected_rows()
    ]


def test_rft_keeps_right_chains_with_right_equations_one_for_each_path() -> None:
    gold = "There are <<2*3=6>>6.\n#### 6"
    chains = {
        "2 * 3 = 6\nAnswer: 6": "same_path",
        "3 + 3 = 6\nAnswer: 6": "kept",
        "2 * 3 = 7 and then it is six\nAnswer: 6": "wrong_equation",
        "2 * 4 = 8\nAnswer: 8": "wrong_answer",
        "It is clearly six.": "no_answer",
        "Two and two and two.\nAnswer: 6": "kept",
        "Three and three.\nAnswer: 6": "kept",
    }
    outcomes = solutions("How many?", gold, *chains)
    assert ("kept", gold) in outcomes
    assert {text: reason for reason, text in outcomes if text != gold} == chains


def test_of_two_chains_of_one_path_the_one_that_differs_more_stays() -> None:
    near, far = "1 + 1 = 2\nAnswer: 2", "Add one to one, which makes two: 1 + 1 = 2\nAnswer: 2"
    other = "4 - 2 = 2\nAnswer: 2"
    assert diverse([other, near, far], 0) == {0, 2}
    assert diverse([other, far, near], 0) == {0, 1}
    assert diverse([near, other, far], 1) == {0, 1}  # the gold path stays
    assert diverse([near, far, other], 0) == {0, 2}  # as in the public code: no other path so far, so the first stays


def diverse(chains: list[str], gold: int) -> set[int]:
    return select_diverse(chains, list(map(equation_key, chains)), gold)


@given(st.lists(st.sampled_from(["1 + 1 = 2", "2 * 1 = 2", "3 - 1 = 2", "words", "other words"]), max_size=8))
def test_one_chain_stays_for_each_path(chains: list[str]) -> None:
    stay = diverse(chains, 0)
    paths = [equation_key(chain) or chain for chain in chains]
    assert len(stay) == len(set(paths))
    assert {paths[place] for place in stay} == set(paths)


def test_a_question_without_a_known_answer_costs_rft_and_star_nothing() -> None:
    Path("open.jsonl").write_bytes(dump_line({"prompt": "Compute 2 * 3 + 1."}))
    for strategy in ("rft", "star"):
        outcome = respond(Path("open.jsonl"), "sim", f"{strategy}.jsonl", strategy=strategy)
        assert outcome.run["requests"] == 0
        assert [row["reason"] for row in rejected_rows(f"{strategy}.rejected.jsonl")] == ["no_gold"]


def test_star_reasons_again_with_the_answer_and_never_shows_it() -> None:
    path = questions(60)
    respond(path, "sim:skill=0.6", "plain.jsonl", strategy="star", no_hint=True)
    respond(path, "sim:skill=0.6", "hinted.jsonl", strategy="star")
    plain, hinted = rows("plain.jsonl"), rows("hinted.jsonl")
    assert len(hinted) > len(plain) + 8
    again = [row for row in hinted if row["meta"]["rationalised"]]
    assert len(again) == len(hinted) - len(plain)
    assert all(row["prompt"].startswith("Compute") and "As you said" not in row["response"] for row in hinted)
    assert "mentions_hint" in {row["reason"] for row in rejected_rows("hinted.rejected.jsonl")}


def test_orca_gives_each_prompt_a_system_message_and_the_row_keeps_it() -> None:
    respond(questions(200), "sim", strategy="direct", system="orca")
    systems = Counter(
        row["prompt"][0]["content"] if isinstance(row["prompt"], list) else "none" for row in rows("out.jsonl")
    )
    assert len(systems) == 16 and max(systems.values()) < 30
    respond(questions(3), "sim", "override.jsonl", strategy="direct", system="Be brief {{ braces }}.")
    assert {row["prompt"][0]["content"] for row in rows("override.jsonl")} == {"Be brief {{ braces }}."}


def test_worked_examples_stand_before_the_prompt_and_a_bad_file_is_reported() -> None:
    Path("examples.jsonl").write_bytes(dump_line({"prompt": "Compute 1 + 1.", "response": "1 + 1 = 2.\nAnswer: 2"}))
    ran = datagen("respond", str(questions(1)), "--strategy", "cot", "--examples", "examples.jsonl", "--dry-run")
    messages = json.loads(ran.stdout)["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[1]["content"] == "Compute 1 + 1."
    Path("examples.jsonl").write_bytes(dump_line({"prompt": "Compute 1 + 1."}))
    with pytest.raises(InputError, match=r"examples\.jsonl:1: a worked example needs"):
        respond(questions(1), "sim", strategy="vote", examples=Path("examples.jsonl"))


def test_an_unknown_strategy_or_verifier_is_reported_with_the_known_ones() -> None:
    ran = datagen("respond", str(questions(1)), "--strategy", "magic")
    assert (ran.returncode, ran.stderr.startswith("error: --strategy magic: expected one of direct, cot")) == (2, True)
    ran = datagen("respond", str(questions(1)), "--verify", "taste")
    assert ran.returncode == 2 and "answer" in ran.stderr


def test_every_strategy_has_its_own_number_of_samples() -> None:
    path = questions(2)
    for strategy, calls in (("direct", 2), ("vote", 16), ("rft", 16)):
        assert respond(path, "sim", f"{strategy}.jsonl", strategy=strategy).result["usage"]["calls"] == calls
    ran = datagen("respond", str(path), "--strategy", "vote", "-o", "cli.jsonl", "--json")
    assert json.loads(ran.stdout)["result"]["usage"]["calls"] == 16


def datagen(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "datagen", *arguments, "--model", "sim"]
    return subprocess.run(command, capture_output=True, text=True)


def read_solutions(real_data: Path) -> list[Row]:
    path = real_data / "gsm8k/test_300_model_solutions.jsonl"
    if not path.exists():
        pytest.skip("the real data are not here: ../shared/data/gsm8k")
    return rows(path)


MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def write_recorded(solutions_of_models: list[Row]) -> Path:
    """Write the recorded solutions of four real models as replies, and their questions with the known answers."""
    replies: list[dict[str, Any]] = []
    for row in solutions_of_models:
        chains = [row[model]["solution"].replace("A: ", "Answer: ") for model in MODELS]
        replies.append({"prompt": row["question"], "responses": chains})
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, replies)))
    lines = ({"question": row["question"], "answer": row["ground_truth"]} for row in solutions_of_models)
    Path("asked.jsonl").write_bytes(b"".join(map(dump_line, lines)))
    return Path("asked.jsonl")


def test_real_solutions_are_judged_as_they_were_recorded(real_data: Path) -> None:
    recorded_rows = read_solutions(real_data)
    respond(write_recorded(recorded_rows), "replay:replies.jsonl", strategy="direct", k=4, verify=["answer"])
    truth = {row["question"]: [row[model]["is_correct"] for model in MODELS] for row in recorded_rows}
    verified = {
        row["prompt"]: [answer["verified"] is True for answer in row["meta"]["responses"]] for row in rows("out.jsonl")
    }
    assert verified == truth


def test_rft_on_real_solutions_keeps_only_recorded_right_ones(real_data: Path) -> None:
    recorded_rows = read_solutions(real_data)
    outcome = respond(write_recorded(recorded_rows), "replay:replies.jsonl", strategy="rft", k=4)
    right = sum(row[model]["is_correct"] for row in recorded_rows for model in MODELS)
    table, reasons = outcome.result["table"], outcome.result["funnel"]["rejected"]
    assert table["right"] + reasons.get("wrong_equation", 0) == right
    kept = [row for row in rows("out.jsonl") if row["meta"]["model"]]
    assert table["paths"] == len(kept) < table["right"]
    keys = Counter((row["prompt"], row["meta"]["equations"]) for row in kept if row["meta"]["equations"])
    assert set(keys.values()) == {1}
