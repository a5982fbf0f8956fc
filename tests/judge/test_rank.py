"""Ranking: all answers screened at once, the best ones compared in pairs; also by verifiers and people."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.errors import InputError, ParseError
from datagen.judges.rank import merge_ranks, read_order
from datagen.records.record import Row
from datagen.select import pairs
from tests.jobs import digest, perform, rows
from tests.judge.rows import answers_by_label, judge, sample, write
from tests.server import Message, Server, running

SIX = ("a", "bb", "ccc", "dddd", "eeeee", "ffffff")


def longest_first(labels: dict[str, str]) -> list[str]:
    return sorted(labels, key=lambda label: -len(labels[label]))


def rank_by_length(samples: list[Row], order: str = "", verdict: str = "", **settings: Any) -> tuple[Row, Counter[str]]:
    """Rank by length, unless a reply is passed; return the row, and the number of calls per template."""
    tasks = Counter[str]()

    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        tasks[task] += 1
        best = longest_first(answers_by_label(messages))
        if task == "judge/screen":
            return order or f"Order: {' > '.join(best)}"
        return verdict or f"Verdict: {best[0]}"

    with running(Server(answer=say)) as server:
        judge(samples, "rank", f"judge@{server.url}", **settings)
    return (rows("out.jsonl") or rows("out.rejected.jsonl"))[0], tasks


def test_the_first_three_are_compared_and_the_rest_keep_their_order() -> None:
    row, tasks = rank_by_length([sample(*SIX)])
    assert row["responses"] == [*reversed(SIX)] and row["ranks"] == [1, 2, 3, 4, 5, 6]
    assert tasks == {"judge/screen": 1, "judge/compare": 6}
    assert all(max(comparison["first"], comparison["second"]) < 3 for comparison in row["meta"]["comparisons"])


def test_comparing_has_the_last_word_about_those_that_it_sees() -> None:
    row, _ = rank_by_length([sample(*SIX)], verdict="Verdict: tie")
    assert row["ranks"] == [1, 1, 1, 2, 3, 4]


def test_a_screening_that_cannot_be_read_leaves_all_to_be_compared() -> None:
    row, tasks = rank_by_length([sample(*SIX[:4])], order="They are all fine.")
    assert row["responses"] == [*reversed(SIX[:4])] and tasks["judge/compare"] == 12
    assert row["meta"]["unread"] == 1


def test_without_any_reading_there_is_no_score_and_with_a_screening_alone_there_is_its_order() -> None:
    row, _ = rank_by_length([sample("a", "bb")], order="Who knows?", verdict="Who knows?")
    assert row["reason"] == "judge_unparsed"
    row, _ = rank_by_length([sample(*SIX)], verdict="Who knows?")
    assert row["responses"] == [*reversed(SIX)] and None not in row["scores"]


def test_an_answer_that_no_comparison_could_be_read_of_has_no_score_unless_it_was_screened() -> None:
    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        answers = answers_by_label(messages)
        if task == "judge/screen" or "bb" in answers.values():
            return "Who knows?"
        return f"Verdict: {longest_first(answers)[0]}"

    with running(Server(answer=say)) as server:
        judge([sample("a", "bb", "ccc")], "rank", f"judge@{server.url}")
    (row,) = rows("out.jsonl")
    assert dict(zip(row["responses"], row["scores"], strict=True)) == {"ccc": 1, "a": 0, "bb": None}


def test_no_comparison_is_made_where_none_is_asked_for() -> None:
    row, tasks = rank_by_length([sample(*SIX)], top=0)
    assert row["responses"] == [*reversed(SIX)] and tasks == {"judge/screen": 1}


def test_equal_strengths_share_a_place() -> None:
    assert merge_ranks({0: 1.0, 1: 0.0, 2: 1.0}, [3]) == {0: 1, 2: 1, 1: 2, 3: 3}


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("Order: B2B > C3C", ["B2B", "C3C"]),
        ("**Order:** c3c, b2b", ["C3C", "B2B"]),
        ("Order: B2B > C3C\nNo:\nOrder: C3C > B2B", ["C3C", "B2B"]),
        ("Order: B2B", None),
        ("Order: B2B > B2B", None),
        ("Order: B2B > C3C > D4D", None),
        ("B2B > C3C", None),
    ],
)
def test_an_order_names_every_answer_once(text: str, order: list[str] | None) -> None:
    if order:
        assert read_order(text, ["B2B", "C3C"]) == order
    else:
        with pytest.raises(ParseError):
            read_order(text, ["B2B", "C3C"])


def test_a_verifier_puts_right_above_wrong_and_says_nothing_of_what_it_does_not_know() -> None:
    row_of_four = sample("Answer: 5", "I do not know.", "Answer: 4", "It is 4.\nAnswer: 4.0", answer="4")
    outcome = judge([row_of_four], "verify")
    (row,) = rows("out.jsonl")
    assert (row["scores"], row["ranks"]) == ([1, 1, 0, None], [1, 1, 2, 3])
    assert row["responses"][2:] == ["Answer: 5", "I do not know."]
    assert [answer["verified"] for answer in row["meta"]["responses"]] == [True, True, False, None]
    numbers = {"answers": 4, "right": 2, "wrong": 1, "unknown": 1}
    assert outcome.result["table"] == {**numbers, "models": {"unknown": numbers}} and outcome.run["requests"] == 0


def test_of_several_verifiers_one_that_says_wrong_decides() -> None:
    row_of_three = sample("2 + 2 = 5, so it is that.\nAnswer: 4", "2 + 2 = 4.\nAnswer: 4", "Answer: 4", answer="4")
    judge([row_of_three], "verify", verify=["answer", "equations"])
    assert rows("out.jsonl")[0]["scores"] == [1, 0, None]
    with pytest.raises(InputError, match="verifier taste"):
        judge([row_of_three], "verify", verify=["taste"])


def vote(name: str, by: str, ranks: list[int] | None = None, verdict: str = "order", **fields: Any) -> Row:
    return {"prompt_id": name, "prompt": "Say something.", "responses": ["a", "bb", "ccc"], "ranks": ranks,
            "verdict": verdict, "by": by, "at": "2026-01-01T00:00:00Z", **fields}  # fmt: skip


def by_people(votes: list[Row], samples: list[Row] | None = None) -> list[Row]:
    write(votes, "votes.jsonl")
    judge(samples or [sample("a", "bb", "ccc", id="one")], "human", votes=Path("votes.jsonl"))
    return rows("out.jsonl")


def order(row: Row) -> list[tuple[int, str]]:
    return list(zip(row["ranks"], row["responses"], strict=True))


def test_one_persons_order_is_the_order() -> None:
    (row,) = by_people([vote("one", "kim", [2, 1, 2])])
    assert order(row) == [(1, "bb"), (2, "a"), (2, "ccc")]
    assert row["meta"]["judges"] == ["kim"] and row["meta"]["votes"] == 1


def test_the_last_vote_of_a_person_counts() -> None:
    (row,) = by_people([vote("one", "kim", [1, 2, 3]), vote("one", "kim", [3, 2, 1])])
    assert order(row) == [(1, "ccc"), (2, "bb"), (3, "a")]


def test_several_people_are_weighed_and_circles_are_counted() -> None:
    votes = [vote("one", "kim", [1, 2, 3]), vote("one", "lee", [1, 2, 3]), vote("one", "sam", [3, 2, 1])]
    (row,) = by_people(votes)
    assert order(row) == [(1, "a"), (2, "bb"), (3, "ccc")] and row["meta"]["cycles"] == 0
    circle = [vote("one", "kim", [1, 2, 3]), vote("one", "lee", [3, 1, 2]), vote("one", "sam", [2, 3, 1])]
    (row,) = by_people(circle)
    assert row["ranks"] == [1, 1, 1] and row["meta"]["cycles"] == 1


def test_answers_are_known_by_their_words_whatever_order_the_page_showed() -> None:
    (row,) = by_people([vote("one", "kim", [1, 2, 3], responses=["ccc", "a", "bb"])])
    assert order(row) == [(1, "ccc"), (2, "a"), (3, "bb")]
    write([vote("one", "kim", [1, 2], responses=["x", "y"])], "votes.jsonl")
    outcome = judge([sample("a", "bb", "ccc", id="one")], "human", votes=Path("votes.jsonl"))
    assert outcome.result["funnel"]["unreadable"] == 1
    assert "votes.jsonl:1: votes on other answers" in rows("out.rejected.jsonl")[0]["reason"]


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ([], "no_vote"),
        ([vote("one", "kim", verdict="skip")], "no_vote"),
        ([vote("one", "kim", [1, 2, 3]), vote("one", "kim", verdict="skip")], "no_vote"),
        ([vote("one", "kim", verdict="all_bad")], "all_bad"),
        ([vote("one", "kim", verdict="all_bad"), vote("one", "lee", verdict="all_bad"), vote("one", "sam", [1, 2, 3])],
         "all_bad"),
    ],
)  # fmt: skip
def test_what_nobody_put_in_order_is_dropped(votes: list[Row], reason: str) -> None:
    assert by_people([vote("another", "kim", [1, 2, 3]), *votes]) == []
    assert [row["reason"] for row in rows("out.rejected.jsonl")] == [reason]


def test_a_tie_is_a_tie_and_one_who_finds_all_bad_does_not_outvote_one_who_does_not() -> None:
    (row,) = by_people([vote("one", "kim", verdict="tie")])
    assert row["ranks"] == [1, 1, 1]
    (row,) = by_people([vote("one", "kim", verdict="all_bad"), vote("one", "lee", [1, 2, 3])])
    assert row["ranks"] == [1, 2, 3] and row["meta"]["all_bad"] == 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"verdict": "meh"}, '"verdict" is none of'),
        ({"ranks": [1, 2]}, '"ranks" is not a whole number for each response'),
        ({"by": None}, '"prompt_id" and "by"'),
        ({"responses": "a"}, '"responses" is not a list of texts'),
    ],
)
def test_a_line_that_is_no_vote_is_named(bad: Row, says: str) -> None:
    with pytest.raises(InputError, match=f"votes.jsonl:2: {says}"):
        by_people([vote("one", "kim", [1, 2, 3]), vote("one", "lee", [1, 2, 3]) | bad])


def test_people_need_a_log() -> None:
    with pytest.raises(InputError, match="--votes FILE"):
        judge([sample("a", "b")], "human")


def test_rows_ranked_by_people_become_pairs() -> None:
    by_people([vote("one", "kim", [2, 1, 3]), vote("one", "lee", [2, 1, 2])])
    perform(load_methods("pairs")["best_worst"], Path("out.jsonl"), "sim", "pairs.jsonl", pairs.Options(near=1))
    assert [(row["chosen"], row["rejected"]) for row in rows("pairs.jsonl")] == [("bb", "ccc")]


@pytest.mark.parametrize("variant", ["verify", "human"])
def test_rows_do_not_depend_on_concurrency(variant: str) -> None:
    path = write([sample(f"Answer: {n}", f"Answer: {n + 1}", id=f"row {n}", answer=n) for n in range(40)])
    votes = [vote(f"row {n}", "kim", [2, 1], responses=[f"Answer: {n}", f"Answer: {n + 1}"]) for n in range(0, 40, 3)]
    options: dict[str, Any] = {"votes": write(votes, "votes.jsonl")} if variant == "human" else {}
    for concurrency in ("1", "64"):
        method = load_methods("judge")[variant]
        output = f"{concurrency}/out.jsonl"
        perform(method, path, "sim", output, method.options_type(**options), concurrency=concurrency)
    assert digest("1/out.jsonl") == digest("64/out.jsonl")
    assert len({json.dumps(list(row["meta"])) for row in rows("1/out.jsonl")}) == 1
