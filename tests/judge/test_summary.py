"""The table of `datagen judge`: wins by model, ties, unread replies, and a planted bias of the judge."""

from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.engine.job import Outcome
from datagen.records.layout import pack_meta
from datagen.records.record import Row
from tests.jobs import perform, rows
from tests.judge.rows import answers_by_label, judge, sample, write
from tests.server import Message, Server, running

GOOD, BAD = "The Rhine flows to the North Sea.", "Dunno."
PROMPTS = 12


def by_models(first: str, second: str, answers: tuple[str, str] = (GOOD, BAD), count: int = PROMPTS) -> list[Row]:
    """Rows of two answers, written by two models."""
    meta = pack_meta({"responses": [{"model": first}, {"model": second}]})
    return [
        sample(*answers, prompt=f"Name river {n}.", meta=meta, id=f"{n:016x}") for n in range(count)
    ]  # an id and meta: rows of ours, whose models are read


def longer_wins(model: str, messages: list[Message], sample: int, task: str) -> str:
    labels = answers_by_label(messages)
    best = max(labels, key=lambda label: len(labels[label]))
    if task == "judge/score":
        return "\n".join(f"{label} helpful: {4 if label == best else 1}" for label in labels)
    return f"Order: {' > '.join(sorted(labels, key=lambda label: label != best))}\nVerdict: {best}"


def judged(samples: list[Row], variant: str, answer: Any = longer_wins, **settings: Any) -> Outcome:
    with running(Server(answer=answer)) as server:
        return judge(samples, variant, f"judge@{server.url}", **settings)


@pytest.mark.parametrize("variant", ["compare", "rank", "score"])
def test_wins_belong_to_the_models_and_swap_with_them(variant: str) -> None:
    for winner, loser, samples in (("a", "b", by_models("a", "b")), ("b", "a", by_models("b", "a"))):
        table = judged(samples, variant).result["table"]
        assert table["rows"] == PROMPTS and table["ties"] == table["unread"] == table["unjudged"] == 0
        assert (table["models"][winner]["best"], table["models"][loser]["best"]) == (PROMPTS, 0)
        if variant == "score":
            assert (table["models"][winner]["mean_points"], table["models"][loser]["mean_points"]) == (4, 1)
            assert table["both_orders_agree"] is None and table["comparisons"]["all"] == 0
        else:
            assert (table["models"][winner]["won"], table["models"][loser]["lost"]) == (PROMPTS, PROMPTS)
            assert (table["both_orders_agree"], table["first_shown_preferred"]) == (1, 0.5)
            assert table["models"][winner]["mean_points"] is None, "strengths are no points"


def test_a_judge_that_prefers_the_first_gives_it_every_verdict() -> None:
    for samples in (by_models("a", "b"), by_models("b", "a"), by_models("a", "b", (BAD, GOOD))):
        outcome = judge(samples, "compare", "sim:position_bias=1", allow_self=True)
        table = outcome.result["table"]
        assert (table["first_shown_preferred"], table["both_orders_agree"]) == (1, 0)
        assert table["ties"] == table["comparisons"]["tied"] == PROMPTS
        assert {counts["best"] for counts in table["models"].values()} == {0}
    (_, judging) = outcome.tables
    assert ["verdicts for the answer shown first", "100.0 %"] in judging


def test_part_of_a_bias_shows_as_its_part() -> None:
    outcome = judge(by_models("a", "b", count=400), "compare", "sim:position_bias=0.4")
    table = outcome.result["table"]
    # 40 % of the verdicts go to the first shown, the rest follow the answers: 0.4 + 0.6 / 2.
    assert table["first_shown_preferred"] == pytest.approx(0.7, abs=0.04)


def test_what_cannot_be_read_is_counted_and_no_win() -> None:
    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        unreadable = any(f"river {n}." in messages[1]["content"] for n in (0, 1, 2))
        return "Who knows?" if unreadable else longer_wins(model, messages, sample, task)

    outcome = judged(by_models("a", "b"), "compare", say)
    table = outcome.result["table"]
    assert (table["rows"], table["unjudged"], table["unread"]) == (PROMPTS - 3, 3, 6)
    assert table["comparisons"] == {"all": PROMPTS, "tied": 0, "unread": 3}
    assert table["models"]["a"]["won"] == PROMPTS - 3
    assert outcome.result["funnel"]["rejected"] == {"judge_unparsed": 3}


def test_the_table_is_printed() -> None:
    models, judging = judged(by_models("a", "b"), "score").tables
    assert models == [
        ["model", "answers", "best of its row", "mean points"],
        ["a", "12", "12", "4.00"],
        ["b", "12", "0", "1.00"],
    ]
    assert ["rows judged", "12"] in judging and ["replies unread", "0"] in judging


def test_pairs_say_which_answers_no_judge_gave_a_score() -> None:
    ranked = [
        sample("x", "yy", "zzz", prompt="P1", scores=[1.0, None, 2.0]),
        sample("x", "yy", prompt="P2", scores=[None, None]),
        sample("x", "yy", prompt="P3", scores=[None, 1.0]),
    ]
    pairs = load_methods("pairs")["all"]
    outcome = perform(pairs, write(ranked), "sim", "out.jsonl", pairs.options_type())
    assert outcome.result["funnel"]["rejected"] == {"unjudged": 2}
    assert outcome.result["table"]["unscored_answers"] == 4
    assert [row["meta"]["unscored"] for row in rows("out.jsonl")] == [1]


def test_improve_counts_what_no_judge_could_decide() -> None:
    improve = load_methods("improve")["edit"]
    inputs = [{"prompt": f"What is {n} + 3?", "response": "It is six, I think."} for n in range(12)]
    outcome = perform(improve, write(inputs), "sim:malformed=1", "out.jsonl", improve.options_type(), max_failed=1000)
    assert outcome.result["funnel"]["failed"], "the writer fails as well"

    def say(model: str, messages: list[Message], sample: int, task: str) -> str:
        return "Who knows?" if task == "judge/compare" else f"{len(messages[-1]['content'])} and more."

    with running(Server(answer=say)) as server:
        models = [f"writer@{server.url}"]
        outcome = perform(
            improve, write(inputs), models, "new.jsonl", improve.options_type(allow_self=True), overwrite=True
        )
    table = outcome.result["table"]
    assert table["new_answers"]["unjudged"] == 12 and table["new_answers"]["accepted"] == 0
    assert ["unjudged", "12"] in outcome.tables[0]
