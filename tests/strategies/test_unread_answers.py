"""An answer in a form that is not understood is not wrong: no strategy treats it as wrong, and it is counted."""

import asyncio
from pathlib import Path

import pytest

from datagen.engine.job import open_job, run_job
from datagen.engine.options import RunOptions
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.select.filter import Filter, Options
from datagen.strategies.strategy import Answer, rejection_reason, with_verdict
from datagen.strategies.vote import vote_keys
from tests.jobs import Quiet, rows

RIGHT = [
    ("So it is \\boxed{\\frac12}.", "\\frac{1}{2}"),
    ("We get \\boxed{2 \\sqrt{2}}.", "2\\sqrt{2}"),
    ("It is \\boxed{3 : 4}.", "3:4"),
    ("The answer is 42 dollars per day, which is more than 30.", "42"),
    ("Hence \\boxed{\\tfrac14}.", "0.25"),
]


@pytest.mark.parametrize(
    ("answer", "reason", "verified"),
    [
        ("1/2", None, True),
        ("\\frac12", None, True),
        ("1/3", "wrong_answer", False),
        ("one half of it", "unverified_answer", None),
        (None, "no_answer", None),
    ],
)
def test_a_chain_whose_answer_is_not_understood_has_no_verdict(
    answer: str | None, reason: str | None, verified: bool | None
) -> None:
    chain = Answer("A half.", None, "", answer)
    assert rejection_reason(chain, "0.5") == reason
    assert with_verdict(chain, reason).verified is verified


def test_votes_for_one_answer_in_several_forms_count_together() -> None:
    keys = vote_keys(["\\frac12", "0.5", None, "3", "1/2", "\\frac{1}{2}", "a half"])
    assert keys[0] == keys[1] == keys[4] == keys[5] and keys[2] is None
    assert len(set(keys)) == 4


def test_right_answers_in_latex_are_kept_and_unread_ones_are_counted() -> None:
    content: list[Row] = [
        {"prompt": f"Question {n}?", "response": text, "answer": known}
        for n, (text, known) in enumerate([*RIGHT, ("The answer is a pair of odd primes.", "\\{3, 5\\}")])
    ]
    Path("rows.jsonl").write_bytes(b"".join(map(dump_line, content)))
    options = Options(rule=["none"], verify=["answer"])
    with open_job(Filter, "rows.jsonl", options, RunOptions(output="out.jsonl"), {}) as job:
        outcome = asyncio.run(run_job(job, Quiet()))
    assert len(rows("out.jsonl")) == len(content)
    assert outcome.result["funnel"]["unobtained"] == {"unverified rows": {"asked": 6, "missing": 1}}
