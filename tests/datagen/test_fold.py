"""The fold by itself: candidates go in, in order; files, counts and the stop come out."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.engine.fold import CANDIDATES_PER_ROW, STALL, Fold, Funnel
from datagen.engine.method import Table, Unique
from datagen.engine.output import Output
from datagen.engine.unobtained import ask
from datagen.errors import CallFailed
from datagen.records.layout import pack_meta, unpack_meta
from datagen.records.record import BadLine, Candidate, fail, keep, reject
from datagen.records.usage import Usage
from tests.jobs import Quiet, rows

FUNNEL = {"asked": 0, "kept": 0, "rejected": {}, "failed": {}, "unreadable": 0, "unobtained": {}}
META: dict[str, Any] = {"result": {"status": "finished", "fingerprint": {}, "funnel": FUNNEL}, "run": {}}
KINDS = st.lists(st.sampled_from(["new", "same", "leaked", "cut"]), max_size=60)


class Counting(Table):
    """A table that records its candidates."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def add(self, candidate: Candidate) -> None:
        self.seen.append((candidate.status, candidate.reason))


def candidate(kind: str, number: int = 0) -> Candidate:
    """Make a candidate that cost one call and as many tokens as its number."""
    record = {"id": f"{number}", "prompt": "Name a river."}
    result = {
        "new": keep({"id": f"{number}", "prompt": f"Name river {number}.", "response": "x", "meta": {"op": "o"}}),
        "same": keep({"id": f"{number}", "prompt": "Name a river.", "response": "y", "meta": {"op": "o"}}),
        "leaked": reject("leaked", stage="rewrite", record=record, reply="z", meta={}),
        "cut": fail(CallFailed("cut answer", stage="answer"), record=record, meta={}),
    }[kind]
    result.usage = Usage(1, number, 2 * number)
    return result


def folded(
    *candidates: Candidate, n: int | None = None, max_failed: int | float = 1000, name: str = "out.jsonl"
) -> tuple[Fold, Counting]:
    """Fold candidates until the fold stops."""
    output, table = Output(Path(name), Path()), Counting()
    fold = Fold(output, table, memory=[Unique("prompt")], n=n, max_failed=max_failed, observer=Quiet())
    with output.open_parts():
        for item in candidates:
            fold.add(item)
            if fold.end:
                break
        fold.funnel.check(output.rows, output.rejected_rows)
        output.finish(META, complete=True)
    return fold, table


def many(kind: str, count: int, start: int = 0) -> list[Candidate]:
    return [candidate(kind, number) for number in range(start, start + count)]


@settings(max_examples=25)
@given(KINDS)
def test_nothing_disappears_whatever_comes(kinds: list[str]) -> None:
    fold, table = folded(*(candidate(kind, number) for number, kind in enumerate(kinds)))
    same = kinds.count("same")
    assert fold.funnel.as_dict() == {
        "asked": len(kinds),
        "kept": kinds.count("new") + min(same, 1),
        "rejected": {
            reason: count
            for reason, count in (("duplicate", max(same - 1, 0)), ("leaked", kinds.count("leaked")))
            if count
        },
        "failed": {"cut answer": kinds.count("cut")} if "cut" in kinds else {},
        "unreadable": 0,
        "unobtained": {},
    }
    assert [row["id"] for row in rows("out.jsonl")] == [
        f"{number}" for number, kind in enumerate(kinds) if kind == "new" or number == _first(kinds, "same")
    ]
    assert [row["record"]["id"] for row in rows("out.rejected.jsonl")] == [
        f"{number}" for number, kind in enumerate(kinds) if kind != "new" and number != _first(kinds, "same")
    ]
    total = sum(range(len(kinds)))
    assert fold.usage == Usage(len(kinds), total, 2 * total)
    assert len(table.seen) == len(kinds)


def _first(kinds: list[str], kind: str) -> int:
    return kinds.index(kind) if kind in kinds else -1


def test_a_duplicate_is_a_rejected_row_with_its_answer_and_its_cost() -> None:
    fold, table = folded(candidate("same", 1), candidate("same", 2))
    (row,) = rows("out.rejected.jsonl")
    assert row == {
        "status": "rejected", "reason": "duplicate", "stage": "fold", 
        "record": {"id": "2", "prompt": "Name a river.", "response": "y"},
        "reply": "y", "meta": unpack_meta(pack_meta({"op": "o"})),
    }  # fmt: skip
    assert fold.usage == Usage(2, 3, 6)
    assert table.seen == [("kept", ""), ("rejected", "duplicate")]


def test_a_dropped_prompt_is_not_remembered() -> None:
    fold, _ = folded(candidate("leaked"), candidate("cut"), candidate("same"))
    assert fold.funnel.kept == 1


@pytest.mark.parametrize("n", [1, 3])
def test_n_kept_rows_are_enough_and_no_candidate_more_is_taken(n: int) -> None:
    fold, _ = folded(*many("leaked", 4), *many("new", 5, 4), n=n)
    assert (fold.end, fold.funnel.kept, fold.funnel.candidates, fold.missing) == ("enough", n, 4 + n, 0)


def test_without_n_there_is_no_end_but_the_inputs() -> None:
    fold, _ = folded(*many("leaked", 3 * STALL))
    assert (fold.end, fold.missing) == (None, float("inf"))


def test_ten_candidates_a_row_are_the_bound() -> None:
    n = 5
    few = [item for start in range(4) for item in (*many("leaked", 11, 20 * start), candidate("new", 20 * start + 19))]
    fold, _ = folded(*few, *many("leaked", 100, 100), n=n)
    assert (fold.end, fold.funnel.candidates, fold.funnel.kept) == ("stall", CANDIDATES_PER_ROW * n, 4)


def test_two_hundred_in_a_row_without_a_kept_one_are_a_stall() -> None:
    fold, _ = folded(candidate("new"), *many("leaked", 2 * STALL, 1), n=1000)
    assert (fold.end, fold.funnel.candidates) == ("stall", 1 + STALL)
    fold, _ = folded(*many("leaked", STALL - 1), candidate("new", 500), *many("cut", STALL - 1, 501), n=1000)
    assert fold.end is None
    fold, _ = folded(candidate("same"), *many("same", STALL, 1), n=1000)
    assert fold.end == "stall", "duplicates gain nothing either"


def test_the_last_wanted_row_is_enough_even_at_the_bound() -> None:
    fold, _ = folded(*many("leaked", CANDIDATES_PER_ROW - 1), candidate("new", 50), n=1)
    assert fold.end == "enough"


@pytest.mark.parametrize("budget", [0, 2])
@pytest.mark.parametrize("n", [None, 100])
def test_more_failures_than_allowed_end_the_run(budget: int, n: int | None) -> None:
    fold, _ = folded(*many("cut", 10), max_failed=budget, n=n)
    assert (fold.end, fold.funnel.failed.total()) == ("failures", budget + 1)


def test_a_share_of_failures_counts_from_a_hundred_candidates_on() -> None:
    assert folded(*many("cut", 10), *many("new", 90, 10), max_failed=0.1)[0].end is None
    fold, _ = folded(*many("cut", 30), max_failed=0.1)
    assert (fold.end, fold.funnel.failed.total()) == ("failures", 11)
    fold, _ = folded(*many("new", 200), *many("cut", 30, 200), max_failed=0.1)
    assert (fold.end, fold.funnel.failed.total()) == ("failures", 23), "23 of 223"


def test_what_was_asked_for_is_added_up_whatever_becomes_of_the_candidates() -> None:
    kinds = ("new", "same", "same", "leaked", "cut")  # the second "same" is a duplicate
    fold, _ = folded(*(ask(candidate(kind, at), "verdicts", 2, at % 2) for at, kind in enumerate(kinds)))
    assert fold.funnel.as_dict()["unobtained"] == {"verdicts": {"asked": 10, "missing": 2}}
    assert ask(candidate("new", 0), "verdicts", 0, 0).asks == {}


def test_rejected_rows_are_no_failures() -> None:
    assert folded(*many("leaked", 50), max_failed=0)[0].end is None


def test_a_bad_line_is_kept_apart_with_its_place() -> None:
    output, observer = Output(Path("out.jsonl"), Path()), Quiet()
    fold = Fold(output, Table(), memory=[], n=None, max_failed=0, observer=observer)
    bad = BadLine("in.jsonl", 7, "not UTF-8", "\\xff")
    with output.open_parts():
        fold.add_bad_line(bad)
        fold.funnel.check(output.rows, output.rejected_rows)
        output.finish(META, complete=True)
    (row,) = rows("out.rejected.jsonl")
    assert row == {
        "status": "rejected", "reason": "not UTF-8", "stage": "read",
        "record": {"source": "in.jsonl", "line": 7, "raw": "\\xff"}, "reply": None, "meta": unpack_meta(pack_meta({})),
    }  # fmt: skip
    assert (fold.funnel.candidates, fold.funnel.unreadable, observer.bad, fold.end) == (0, 1, [bad], None)


@pytest.mark.parametrize(
    ("funnel", "written", "dropped"),
    [
        (Funnel(candidates=2, kept=1), 1, 0),
        (Funnel(candidates=1, kept=1), 0, 0),
        (Funnel(candidates=1, kept=1), 1, 1),
        (Funnel(candidates=0, kept=0, unreadable=1), 0, 0),
    ],
)
def test_a_funnel_that_does_not_add_up_is_an_error(funnel: Funnel, written: int, dropped: int) -> None:
    with pytest.raises(AssertionError, match="the funnel does not add up"):
        funnel.check(written, dropped)


def version(number: int, parent: int, prompt: str) -> Candidate:
    meta = {"op": "o", "parents": [f"{parent:016x}"]}
    return keep({"id": f"{number:016x}", "prompt": prompt, "response": "x", "meta": meta})


def test_a_row_that_is_made_from_a_duplicate_has_the_kept_twin_as_its_parent() -> None:
    folded(
        version(1, 100, "A?"), version(2, 1, "A, and why?"),
        version(3, 200, "A?"), version(4, 3, "A, and when?"), version(5, 4, "A, and when, and why?"),
    )  # fmt: skip
    assert [(row["id"], row["meta"]["parents"]) for row in rows("out.jsonl")] == [
        (f"{name:016x}", [f"{parent:016x}"]) for name, parent in ((1, 100), (2, 1), (4, 1), (5, 4))
    ]
    (duplicate,) = rows("out.rejected.jsonl")
    assert duplicate["reason"] == "duplicate" and duplicate["meta"]["parents"] == [f"{200:016x}"]
