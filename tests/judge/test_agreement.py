"""Checks of a judge reveal its biases, and pairs are not made from unreliable verdicts."""

import json
import tracemalloc
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.table import load_methods
from datagen.judges.agreement import Agreement, Pair, RowSums, counts, measure, read_checks, save_checks
from datagen.records.files import dump_line
from datagen.records.record import Row, keep
from datagen.select import pairs
from tests.jobs import perform, rows

TAIL = " That is what comes out when all of it is added up."
SHARE = st.sampled_from([0.0, 0.5, 1.0])
OPTIONAL_SHARE = st.one_of(st.none(), SHARE)


def write_labelled_sums(count: int, seed: int = 0, name: str = "labelled.jsonl") -> Path:
    """Write sums with a right and a wrong answer, each of them long or short by chance."""
    chance = Random(seed)
    with open(name, "wb") as file:
        for i in range(count):
            a, b = 2 + i, chance.randint(2, 90)
            right, wrong = (str(a + b + off) + TAIL * chance.randint(0, 1) for off in (0, chance.randint(1, 9)))
            file.write(dump_line({"prompt": f"What is {a} + {b}?", "chosen": right, "rejected": wrong}))
    return Path(name)


def check(model: str, path: Path, output: str = "checked.jsonl", variant: str = "compare", **options: Any) -> Row:
    """Check a judge; return the result of the check."""
    method = load_methods("judge")[variant]
    outcome = perform(method, path, model, output, method.options_type(check=True, **options))
    (result,) = outcome.result["table"].values()
    return dict(result)


def figures(check: Row) -> dict[str, float]:
    return {name: figure["value"] for name, figure in check["figures"].items()}


def test_a_judge_without_faults_has_none() -> None:
    measured = figures(check("sim", write_labelled_sums(60)))
    assert measured == {
        **dict.fromkeys(
            ("accuracy", "accuracy, unread wrong", "accuracy, decided", "agreement", "kappa", "kappa, decided"), 1.0
        ),
        **{"swap consistency": 1.0, "position bias": 0.0, "verbosity bias": 0.0},
    }


@pytest.mark.parametrize(
    ("seeds", "count"), [((0,), 300), pytest.param(range(12), 1000, marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_the_interval_of_the_check_covers_the_biases_that_were_put_in(seeds: Sequence[int], count: int) -> None:
    position, verbosity = 0.2, 0.3
    # a verdict that goes by the place does not go by the length
    put_in = {"position bias": position, "verbosity bias": (1 - position) * verbosity}
    method = load_methods("judge")["compare"]
    measured = defaultdict[str, list[Row]](list)
    for seed in seeds:
        model = f"sim:position_bias={position},verbosity_bias={verbosity},skill=0.9"
        perform(
            method, write_labelled_sums(count, seed), model, f"{seed}.jsonl", method.options_type(check=True), seed=seed
        )
        table = Agreement(level=0.99)
        for row in rows(f"{seed}.jsonl"):
            table.add(keep(row))
        (check_figures,) = (figure["figures"] for figure in table.as_dict().values())
        for name in put_in:
            measured[name].append(check_figures[name])
    for name, bias in put_in.items():
        missed = [figure for figure in measured[name] if not figure["low"] <= bias <= figure["high"]]
        assert len(missed) <= len(seeds) // 12, missed  # one interval in a hundred misses, and it may be any of them
        assert all(figure["low"] > 0 for figure in measured[name])
        error = 4 * stdev([figure["value"] for figure in measured[name]]) / len(seeds) ** 0.5 if len(seeds) > 1 else 1
        assert abs(fmean(figure["value"] for figure in measured[name]) - bias) < error


def plain_kappa(verdicts: list[tuple[float, float]]) -> float:
    """Cohen's kappa by its definition."""
    agreed = sum(a == b for a, b in verdicts) / len(verdicts)
    by_chance = sum(
        (sum(a == share for a, _ in verdicts) / len(verdicts)) * (sum(b == share for _, b in verdicts) / len(verdicts))
        for share in (0.0, 0.5, 1.0)
    )
    return (agreed - by_chance) / (1 - by_chance)


@given(st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=30))
def test_the_figures_are_those_of_their_definitions(verdicts: list[tuple[float, float]]) -> None:
    results = measure(RowSums(counts(pair(*shares)) for shares in verdicts))
    measured = {name: figure["value"] for name, figure in results.items()}
    assert measured["agreement"] == pytest.approx(sum(a == b for a, b in verdicts) / len(verdicts), abs=1e-4)
    either_side = [*verdicts, *((1 - a, 1 - b) for a, b in verdicts)]
    if "kappa" in measured:
        assert measured["kappa"] == pytest.approx(plain_kappa(either_side), abs=1e-4)
    labels = [(a, b) for a, b in verdicts if a != 0.5]
    if labels:
        points = [0.5 if b == 0.5 else float(a == b) for a, b in labels]
        assert measured["accuracy"] == pytest.approx(sum(points) / len(points), abs=1e-4)
    decided = [a == b for a, b in labels if b != 0.5]
    assert ("accuracy, decided" in measured) == bool(decided)
    if decided:
        assert measured["accuracy, decided"] == pytest.approx(sum(decided) / len(decided), abs=1e-4)


def pair(
    label: float, verdict: float | None, orders: Any = (), lengths: Any = (5, 5), same_family: Any = (False, False)
) -> Pair:
    return Pair(label, verdict, orders, lengths, same_family)


def swap_share(share: float | None) -> float | None:
    return None if share is None else 1 - share


@given(
    st.lists(
        st.tuples(
            SHARE,
            OPTIONAL_SHARE,
            OPTIONAL_SHARE,
            OPTIONAL_SHARE,
            st.integers(1, 9),
            st.integers(1, 9),
            st.booleans(),
            st.booleans(),
        )
    )
)
def test_which_answer_stands_first_in_the_file_changes_nothing(cases: list[Any]) -> None:
    there, back = defaultdict[str, float](float), defaultdict[str, float](float)
    for label, verdict, forward, backward, long, short, first_is_own, second_is_own in cases:
        one = pair(label, verdict, ((forward, backward),), (long, short), (first_is_own, second_is_own))
        orders = ((swap_share(backward), swap_share(forward)),)
        turned = pair(1 - label, swap_share(verdict), orders, (short, long), (second_is_own, first_is_own))
        for sums, case in ((there, one), (back, turned)):
            for name, count in counts(case).items():
                sums[name] += count
    assert there == back


def test_what_could_not_be_read_is_counted_and_is_no_verdict() -> None:
    result = check("sim:malformed=0.2", write_labelled_sums(100))
    assert result["unread"] > 0
    assert figures(result)["accuracy"] == 1.0, "an unread verdict is neither right nor wrong"
    cases = [pair(1.0, 1.0), pair(1.0, 0.5), pair(0.0, None), pair(0.5, None)]
    both_ways = {name: figure["value"] for name, figure in measure(RowSums(map(counts, cases))).items()}
    assert (both_ways["accuracy"], both_ways["accuracy, unread wrong"]) == (0.75, 0.5)


def test_own_answers_are_reported_apart_by_family() -> None:
    one, both = (True, False), (True, True)
    cases = [
        pair(0.0, 1.0, same_family=one),
        pair(1.0, 1.0, same_family=one),
        pair(1.0, 1.0, same_family=both),
    ]
    assert measure(RowSums(map(counts, cases)))["self-preference"]["value"] == 0.5


def test_scores_and_rankings_are_checked_too_and_a_labelled_tie_counts() -> None:
    path = write_labelled_sums(40)
    with path.open("ab") as file:
        file.write(dump_line({"prompt": "What is 1 + 1?", "responses": ["2", "It is 2."], "ranks": [1, 1]}))
    for variant in ("score", "rank"):
        measured = figures(check("sim", path, f"{variant}.jsonl", variant))
        assert measured["agreement"] == measured["kappa"] == 1.0


def test_rows_without_a_label_are_no_check() -> None:
    Path("samples.jsonl").write_bytes(dump_line({"prompt": "What is 1 + 1?", "responses": ["2", "3"]}))
    perform(
        load_methods("judge")["compare"],
        Path("samples.jsonl"),
        "sim",
        "out.jsonl",
        load_methods("judge")["compare"].options_type(check=True),
    )
    assert [row["reason"] for row in rows("out.rejected.jsonl")] == ["no_label"]


def make_pairs(model: str, output: str, **options: Any) -> Row:
    """Judge samples and make pairs of them; return the result."""
    method = load_methods("judge")["compare"]
    perform(
        method,
        write_labelled_sums(60, seed=7, name="samples.jsonl"),
        model,
        f"{output}.judged.jsonl",
        method.options_type(),
    )
    outcome = perform(
        load_methods("pairs")["best_worst"], Path(f"{output}.judged.jsonl"), [], output, pairs.Options(**options)
    )
    return dict(outcome.result)


def test_pairs_say_how_good_their_judge_is() -> None:
    result = make_pairs("sim", "unchecked.jsonl")
    assert list(result["table"]["judges"].values()) == [None]
    check("sim", write_labelled_sums(100))
    result = make_pairs("sim", "checked-pairs.jsonl")
    (saved,) = result["table"]["judges"].values()
    assert saved["figures"]["accuracy"]["value"] == 1.0
    assert saved == next(iter(read_checks().values()))


def test_pairs_of_a_judge_that_may_be_guessing_are_refused_unless_allowed() -> None:
    guesser = "sim:skill=0"
    result = check(guesser, write_labelled_sums(60))
    assert result["figures"]["accuracy"]["low"] <= 0.5 <= result["figures"]["accuracy"]["high"]
    assert make_pairs(guesser, "refused.jsonl")["funnel"]["rejected"] == {"weak_judge": 60}
    assert make_pairs(guesser, "override.jsonl", weak_judge=True)["funnel"]["kept"] > 0


def test_a_check_holds_for_the_prompts_that_were_asked_alone() -> None:
    check("sim", write_labelled_sums(20), "helpful.jsonl")
    check("sim", write_labelled_sums(20), "honest.jsonl", rubric=["honest"])
    assert len(read_checks()) == 2
    assert len({key.rsplit(" ", 1)[1] for key in read_checks()}) == 2
    assert json.loads(Path(".datagen/judges.json").read_text()) == read_checks()


def test_the_intervals_of_many_rows_take_little_memory() -> None:
    many = [counts(pair(1.0, share)) for share in (1.0, 0.0)] * 5_000
    tracemalloc.start()
    figures = measure(RowSums(many))
    assert tracemalloc.get_traced_memory()[1] < 3_000_000, "a thousand weights for each row are 80 MB"
    tracemalloc.stop()
    assert figures["accuracy"]["low"] < figures["accuracy"]["value"] == 0.5 < figures["accuracy"]["high"]


def save_some(name: str) -> None:
    for number in range(10):
        save_checks({f"{name} {number}": {"figures": {}}})


def test_no_check_of_one_command_is_lost_to_another_that_ends_at_the_same_time() -> None:
    processes = [get_context("spawn").Process(target=save_some, args=(name,)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_checks()) == 40
