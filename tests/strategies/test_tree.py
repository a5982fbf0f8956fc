"""Tree of Thoughts: steps, the value of a state, and each search method."""

import json
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.llm.sim.game24 import Term, moves, reachable, read_puzzle
from datagen.parse import parse_verdict
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.strategies.tree.search import VALUES, read_value
from datagen.strategies.tree.tasks import State, can_win, final_expression, is_solvable, next_states, play, start_game
from datagen.verify.expressions import game24
from tests.jobs import digest, respond, rows
from tests.server import Message, Server, running

HAND = start_game([Fraction(n) for n in (4, 9, 10, 13)])


def puzzles(*hands: str, path: str = "puzzles.jsonl") -> Path:
    lines = ({"prompt": f"Make 24 of {hand}.", "numbers": list(map(int, hand.split()))} for hand in hands)
    Path(path).write_bytes(b"".join(map(dump_line, lines)))
    return Path(path)


def all_rows(path: str = "out.jsonl") -> list[Row]:
    return [*rows(path), *rows(Path(path).with_suffix(".rejected.jsonl"))]


def test_a_step_takes_two_numbers_that_are_there_and_is_right() -> None:
    assert [
        state.numbers for state in next_states(HAND, "13 - 9 = 4 (left: 4 4 10)\n* 4 + 9 = 13 (left: 10 13 13)")[0]
    ] == [
        "4 4 10",
        "10 13 13",
    ]
    wrong = ("13 - 9 = 5", "13 + 13 = 26", "9 - 2 = 7", "so 13 - 9 = 4", "13 - 9", "", "4 ** 9 = 262144", "9 / 0 = 1")
    for line in wrong:
        assert play(HAND, line) is None, line
    assert next_states(HAND, "\n".join(wrong))[1] == len([line for line in wrong if line])


HOSTILE = (
    "__import__('os').system('x')",
    "9" * 10_000_000,
    "(" * 100_000 + "1",
    "9**9**9 = 1",
    "1e999999 + 1 = 2",
    "\x1b[2J1 + 1 = 2",
)


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_proposals_are_no_steps(line: str) -> None:
    assert next_states(HAND, line) == ([], 1)


def test_a_state_is_reported_by_its_numbers_and_kept_once() -> None:
    states, illegal = next_states(HAND, "4 + 9 = 13\n9 + 4 = 13\n13 - 4 = 9")
    assert (len(states), illegal) == (2, 0)


hands = st.lists(st.integers(1, 13).map(Fraction), min_size=4, max_size=4)


@given(hands, st.integers(0, 10**6))
def test_whatever_is_played_ends_in_an_expression_of_all_numbers(numbers: list[Fraction], seed: int) -> None:
    random, state = Random(seed), start_game(numbers)
    while len(state.terms) > 1:
        hand = tuple(Term(term.value, str(term.value)) for term in state.terms)
        following = play(state, random.choice(moves(hand)).text)
        assert following is not None
        state = following
    text = f"Answer: {final_expression(state)}"
    assert game24(numbers, text) is (state.terms[0].value == 24)


@given(hands)
def test_two_solvers_agree(numbers: list[Fraction]) -> None:
    assert is_solvable(tuple(sorted(numbers))) == reachable(tuple(sorted(numbers)))


def test_the_last_label_counts_and_a_missing_one_is_no_number() -> None:
    assert read_value("Verdict: sure\nNo, 3 is left.\nVerdict: impossible\nOr so:\nVerdict: likely") == VALUES["likely"]
    with pytest.raises(ValueError, match="no line 'Verdict"):
        read_value("it is sure")


def test_unread_values_count_for_nothing() -> None:
    replies = [
        {
            "task": "tree/propose",
            "fields": {"numbers": "2 6 6"},
            "responses": ["6 + 6 = 12\n6 * 6 = 36"],
        },
        {"task": "tree/value", "fields": {"numbers": "2 12"}, "responses": ["Verdict: sure"] * 3},
        {"task": "tree/value", "fields": {}, "responses": ["Who knows?"] * 3},
        {"task": "tree/propose", "fields": {"numbers": "2 12"}, "responses": ["2 * 12 = 24\n12 - 2 = 10"]},
        {"task": "tree/propose", "fields": {}, "responses": ["none"]},
    ]
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, replies)))
    respond(puzzles("2 6 6"), "replay:replies.jsonl", strategy="tree")
    (row,) = rows("out.jsonl")
    assert row["response"] == "6 + 6 = 12\n2 * 12 = 24\nAnswer: 2 * (6 + 6) = 24"
    values = {node["state"]: node["values"] for node in row["meta"]["nodes"]}
    assert values == {"2 6 6": [], "2 12": [20.0] * 3, "2 36": [], "24": [20.0] * 3, "10": [0.001] * 3}
    assert row["meta"]["unread"] == 3 and row["meta"]["verified"] is True


def test_no_model_is_asked_whether_one_number_is_24() -> None:
    questions: list[str] = []

    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        numbers = messages[-1]["content"]
        questions.append(f"{task} {numbers}")
        return (
            "6 + 6 = 12\n2 * 6 = 12\n2 * 12 = 24\n12 + 2 = 14\n6 + 12 = 18"
            if task == "tree/propose"
            else "Verdict: likely"
        )

    with running(Server(answer=say)) as server:
        respond(puzzles("2 6 6"), f"teacher@{server.url}", strategy="tree")
    (row,) = rows("out.jsonl")
    assert row["meta"]["verified"] is True and row["meta"]["calls"] == len(questions)
    assert not [one for one in questions if one.startswith("tree/value") and " " not in one.removeprefix("tree/value ")]


@pytest.mark.parametrize(("search", "task"), list(product(("bfs", "dfs"), ("game24", "text"))))
def test_rows_do_not_depend_on_concurrency(search: str, task: str) -> None:
    path = puzzles("4 9 10 13", "1 4 8 8", "3 8 9 10")
    for concurrency in ("1", "16", "256"):
        options: dict[str, Any] = {"search": search, "task": task, "concurrency": concurrency}
        respond(path, "sim:skill=0.8,malformed=0.02", f"{concurrency}/out.jsonl", strategy="tree", **options)
    assert len({digest(f"{concurrency}/out.jsonl") for concurrency in ("1", "16", "256")}) == 1


def test_with_good_judgement_the_first_answer_is_right_and_a_wrong_one_is_no_row() -> None:
    path = puzzles("4 9 10 13", "1 4 8 8", "5 5 5 9", "2 3 5 12", "3 8 9 10", "1 2 7 7")
    good = respond(path, "sim", "good.jsonl", strategy="tree")
    assert good.result["table"]["verified_first"] == len(rows("good.jsonl")) >= 4
    respond(path, "sim:skill=0.2", "bad.jsonl", strategy="tree")
    assert all(row["meta"]["verified"] for row in rows("bad.jsonl"))
    assert {row["reason"] for row in rows("bad.rejected.jsonl")} <= {"wrong_answer", "no_path"}


def test_the_budget_is_kept_and_said() -> None:
    for budget in (2, 30, 100):
        respond(puzzles("4 9 10 13"), "sim:skill=0.7", f"{budget}.jsonl", strategy="tree", budget=budget)
        (row,) = all_rows(f"{budget}.jsonl")
        assert row["meta"]["calls"] <= budget
        if budget == 2:
            assert (row["meta"]["budget_spent"], row["reason"]) == (True, "budget_spent")


def record_game(*entries: tuple[str, str, str]) -> str:
    """Write recorded replies: (task, numbers, reply)."""
    lines = (
        {"task": f"tree/{task}", "fields": {"numbers": numbers}, "responses": [text] * 3}
        for task, numbers, text in entries
    )
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, lines)))
    return "replay:replies.jsonl"


def test_depth_first_goes_back_where_a_narrow_beam_is_lost() -> None:
    maybe = "Verdict: likely"
    model = record_game(
        ("propose", "2 3 4", "3 * 4 = 12\n2 * 3 = 6"),
        ("value", "2 12", maybe), ("value", "4 6", maybe),
        ("propose", "2 12", "12 - 2 = 10\n12 + 2 = 14"),
        ("propose", "4 6", "4 * 6 = 24"),
    )  # fmt: skip
    path = puzzles("2 3 4")
    respond(path, model, "narrow.jsonl", strategy="tree", beam=1)
    assert [row["reason"] for row in rows("narrow.rejected.jsonl")] == ["wrong_answer"]
    respond(path, model, "deep.jsonl", strategy="tree", search="dfs")
    assert rows("deep.jsonl")[0]["response"].splitlines()[:2] == ["2 * 3 = 6", "4 * 6 = 24"]
    respond(path, model, "wide.jsonl", strategy="tree", beam=2)
    assert len(rows("wide.jsonl")) == 1


def test_a_good_step_is_preferred_to_a_bad_one_from_the_same_state() -> None:
    respond(puzzles("4 9 10 13", "1 4 8 8"), "sim:skill=0.7", strategy="tree", step_preferences=True)
    preferences = rows("out.jsonl")
    assert len(preferences) >= 2
    for row in preferences:
        state = start_game([Fraction(number) for number in row["numbers"]])
        for line in row["prompt"].splitlines()[2:]:
            following = play(state, line)
            assert following is not None
            state = following
        good, bad = play(state, row["chosen"]), play(state, row["rejected"])
        assert isinstance(good, State) and isinstance(bad, State)
        assert can_win(good) and not can_win(bad)


def test_a_text_is_chosen_by_vote() -> None:
    respond(puzzles("4 9 10 13"), "sim:skill=0.9", strategy="tree", task="text")
    (row,) = rows("out.jsonl")
    votes = [sum(node["values"]) for node in row["meta"]["nodes"] if node["parent"] == 0]
    kept = [node for node in row["meta"]["nodes"] if node["kept"]]
    assert sum(votes) == 5 and len(kept) == 2
    assert row["meta"]["rationale"] == kept[0]["state"]


def test_a_vote_names_one_candidate_whole() -> None:
    assert parse_verdict("Verdict: 2\nNo:\nVerdict: 12\nof all 3", ("2", "3", "12")) == "12"
    for unread in ("Verdict: 2 or 12", "12", "Verdict: 123"):
        with pytest.raises(ValueError, match="no line 'Verdict"):
            parse_verdict(unread, ("2", "3", "12"))


def expansions(nodes: list[Row]) -> int:
    return len({node["parent"] for node in nodes} - {None})


@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_a_state_that_comes_up_again_is_judged_once(search: str) -> None:
    respond(puzzles("4 4 6 6", "2 2 12 12", "3 3 8 8"), "sim:skill=0.6", strategy="tree", search=search, budget=10_000)
    for row in all_rows():
        nodes = row["meta"]["nodes"][1:]
        states = {node["state"] for node in nodes}
        assert len(states) < len(nodes)
        assert row["meta"]["calls"] == expansions(nodes) + 3 * sum(" " in state for state in states)


def test_depth_first_ends_at_the_node_limit() -> None:
    respond(puzzles("2 3 7 11 13"), "sim:skill=0.0", strategy="tree", search="dfs", budget=10_000)
    (row,) = all_rows()
    assert 100 <= len(row["meta"]["nodes"]) <= 107 and not row["meta"]["budget_spent"]


def test_a_sampled_beam_keeps_other_states_than_the_best_and_the_same_ones_each_time() -> None:
    path, kept = puzzles("4 9 10 13", "1 4 8 8", "3 8 9 10"), {}
    for name, sampled in (("best", False), ("drawn", True), ("again", True)):
        respond(path, "sim:skill=0.6", f"{name}.jsonl", strategy="tree", sampled=sampled, beam=2)
        kept[name] = [
            [node["id"] for node in row["meta"]["nodes"] if node["kept"]] for row in all_rows(f"{name}.jsonl")
        ]
    assert kept["best"] != kept["drawn"] == kept["again"]


def test_what_is_spent_is_spent() -> None:
    respond(puzzles("4 9 10 13"), "sim", strategy="tree", budget=27)
    (row,) = all_rows()
    assert row["meta"]["calls"] == 27 and row["meta"]["budget_spent"]
    respond(puzzles("4 9 10 13"), "sim", "few.jsonl", strategy="tree", budget=3)
    (row,) = all_rows("few.jsonl")
    assert row["meta"]["calls"] == 1 and row["reason"] == "budget_spent"


def test_options_that_do_not_fit_are_reported() -> None:
    for options in ({"task": "chess"}, {"search": "astar"}, {"task": "text", "step_preferences": True}):
        with pytest.raises(InputError):
            respond(puzzles("4 9 10 13"), "sim", strategy="tree", **options)
    for text in ("7", "1 2 3 4 5 6"):
        with pytest.raises(InputError, match="for others --task text"):
            respond(puzzles(text), "sim", strategy="tree")
    respond(puzzles("7", "4 9 10 13", "1 2 3 4 5 6"), "sim", "some.jsonl", strategy="tree")
    assert {row["reason"] for row in rows("some.rejected.jsonl")} == {"no_numbers", "too_many_numbers"}


def test_the_teacher_finds_a_puzzle_by_its_words() -> None:
    assert read_puzzle("Make 24 of the numbers 4, 9, 10 and 13.") is not None
    for prompt in ("Compute 12 * 7 + 24.", "What happened in 1924?", "Name 24 birds of 3 kinds."):
        assert read_puzzle(prompt) is None


def test_all_real_puzzles_are_solvable(real_data: Path) -> None:
    path = real_data / "game24/24_550.csv"
    lines = path.read_text().splitlines()[1:]
    assert len(lines) == 550
    assert all(is_solvable(tuple(sorted(map(Fraction, line.split(",")[1].split())))) for line in lines)


def test_real_samples_come_to_what_was_recorded(real_data: Path) -> None:
    recorded = rows(real_data / "game24/gpt4_cot_samples_50x100.jsonl")
    replies = ({"prompt": row["puzzle"], "responses": [chain["text"] for chain in row["samples"]]} for row in recorded)
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, replies)))
    Path("asked.jsonl").write_bytes(b"".join(dump_line({"prompt": row["puzzle"]}) for row in recorded))
    respond(Path("asked.jsonl"), "replay:replies.jsonl", k=100, verify=["game24"])
    verified = [[answer["verified"] is True for answer in row["meta"]["responses"]] for row in rows("out.jsonl")]
    truth = {json.dumps([chain["r"] == 1 for chain in row["samples"]]) for row in recorded}
    assert {json.dumps(answers) for answers in verified} == truth
    assert sum(map(sum, verified)) == 254 and sum(map(any, verified)) == 28
