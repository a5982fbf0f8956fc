"""A check finds the faults that a judge has, and pairs are not made of guesses."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.main import load_methods
from datagen.judge.agreement import Agreement, Pair, counts, measure, read_checks
from datagen.records.files import dump_line
from datagen.records.record import Row, keep
from datagen.select import pairs
from tests.jobs import perform, rows

TAIL = " That is what comes out when all of it is added up."
SHARE = st.sampled_from([0.0, 0.5, 1.0])
SAID = st.one_of(st.none(), SHARE)


def labelled(count: int, seed: int = 0, name: str = "labelled.jsonl") -> Path:
    """Write sums with a right and a wrong answer, each of them long or short by chance."""
    chance = Random(seed)
    with open(name, "wb") as file:
        for i in range(count):
            a, b = 2 + i, chance.randint(2, 90)
            right, wrong = (str(a + b + off) + TAIL * chance.randint(0, 1) for off in (0, chance.randint(1, 9)))
            file.write(dump_line({"prompt": f"What is {a} + {b}?", "chosen": right, "rejected": wrong}))
    return Path(name)


def check(model: str, path: Path, output: str = "checked.jsonl", way: str = "compare", **options: Any) -> Row:
    """Check a judge; return what its check says."""
    method = load_methods("judge")[way]
    outcome = perform(method, path, model, output, method.options_type(check=True, **options))
    (found,) = outcome.result["table"].values()
    return dict(found)


def figures(found: Row) -> dict[str, float]:
    return {name: each["value"] for name, each in found["figures"].items()}


def test_a_judge_without_faults_has_none() -> None:
    told = figures(check("sim", labelled(60)))
    assert told == {
        **dict.fromkeys(("accuracy", "accuracy, decided", "agreement", "kappa", "kappa, decided"), 1.0),
        **{"swap consistency": 1.0, "position bias": 0.0, "verbosity bias": 0.0},
    }


@pytest.mark.parametrize(
    ("seeds", "count"), [((0,), 300), pytest.param(range(12), 2000, marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_the_interval_of_the_check_covers_the_biases_that_were_put_in(seeds: Sequence[int], count: int) -> None:
    position, verbosity = 0.2, 0.3
    # a verdict that goes by the place does not go by the length
    put_in = {"position bias": position, "verbosity bias": (1 - position) * verbosity}
    method = load_methods("judge")["compare"]
    found = defaultdict[str, list[Row]](list)
    for seed in seeds:
        model = f"sim:position_bias={position},verbosity_bias={verbosity},skill=0.9"
        perform(method, labelled(count, seed), model, f"{seed}.jsonl", method.options_type(check=True), seed=seed)
        table = Agreement(level=0.99)
        for row in rows(f"{seed}.jsonl"):
            table.add(keep(row))
        (told,) = (each["figures"] for each in table.as_dict().values())
        for name in put_in:
            found[name].append(told[name])
    for name, bias in put_in.items():
        missed = [each for each in found[name] if not each["low"] <= bias <= each["high"]]
        assert len(missed) <= len(seeds) // 12, missed  # one interval in a hundred misses, and it may be any of them
        assert all(each["low"] > 0 for each in found[name])
        error = 4 * stdev([each["value"] for each in found[name]]) / len(seeds) ** 0.5 if len(seeds) > 1 else 1
        assert abs(fmean(each["value"] for each in found[name]) - bias) < error


def plain_kappa(verdicts: list[tuple[float, float]]) -> float:
    """Cohen's kappa by its definition."""
    agreed = sum(a == b for a, b in verdicts) / len(verdicts)
    by_chance = sum(
        (sum(a == each for a, _ in verdicts) / len(verdicts)) * (sum(b == each for _, b in verdicts) / len(verdicts))
        for each in (0.0, 0.5, 1.0)
    )
    return (agreed - by_chance) / (1 - by_chance)


@given(st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=30))
def test_the_figures_are_those_of_their_definitions(verdicts: list[tuple[float, float]]) -> None:
    told = {name: each["value"] for name, each in measure([counts(pair(*each)) for each in verdicts]).items()}
    assert told["agreement"] == pytest.approx(sum(a == b for a, b in verdicts) / len(verdicts), abs=1e-4)
    either_side = [*verdicts, *((1 - a, 1 - b) for a, b in verdicts)]
    if "kappa" in told:
        assert told["kappa"] == pytest.approx(plain_kappa(either_side), abs=1e-4)
    labels = [(a, b) for a, b in verdicts if a != 0.5]
    if labels:
        points = [0.5 if b == 0.5 else float(a == b) for a, b in labels]
        assert told["accuracy"] == pytest.approx(sum(points) / len(points), abs=1e-4)
    decided = [a == b for a, b in labels if b != 0.5]
    assert ("accuracy, decided" in told) == bool(decided)
    if decided:
        assert told["accuracy, decided"] == pytest.approx(sum(decided) / len(decided), abs=1e-4)


def pair(label: float, said: float | None, orders: Any = (), lengths: Any = (5, 5), own: Any = (False, False)) -> Pair:
    return Pair(label, said, orders, lengths, own)


def flipped(share: float | None) -> float | None:
    return None if share is None else 1 - share


@given(st.lists(st.tuples(SHARE, SAID, SAID, SAID, st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans())))
def test_which_answer_stands_first_in_the_file_changes_nothing(told: list[Any]) -> None:
    there, back = defaultdict[str, float](float), defaultdict[str, float](float)
    for label, said, forward, backward, long, short, own, other in told:
        one = pair(label, said, ((forward, backward),), (long, short), (own, other))
        turned = pair(
            1 - label, flipped(said), ((flipped(backward), flipped(forward)),), (short, long), (other, own)
        )  # fmt: skip
        for sums, each in ((there, one), (back, turned)):
            for name, count in counts(each).items():
                sums[name] += count
    assert there == back


def test_what_could_not_be_read_is_counted_and_is_no_verdict() -> None:
    found = check("sim:malformed=0.2", labelled(100))
    assert found["unread"] > 0
    assert figures(found)["accuracy"] == 1.0, "an unread verdict is neither right nor wrong"


def test_own_answers_are_told_apart_by_family() -> None:
    own = [pair(0.0, 1.0, own=(True, False)), pair(1.0, 1.0, own=(True, False)), pair(1.0, 1.0, own=(True, True))]
    assert measure([counts(each) for each in own])["self-preference"]["value"] == 0.5


def test_scores_and_rankings_are_checked_too_and_a_labelled_tie_counts() -> None:
    path = labelled(40)
    with path.open("ab") as file:
        file.write(dump_line({"prompt": "What is 1 + 1?", "responses": ["2", "It is 2."], "ranks": [1, 1]}))
    for way in ("score", "rank"):
        told = figures(check("sim", path, f"{way}.jsonl", way))
        assert told["agreement"] == told["kappa"] == 1.0


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
    perform(method, labelled(60, seed=7, name="samples.jsonl"), model, f"{output}.judged.jsonl", method.options_type())
    made = perform(
        load_methods("pairs")["best_worst"], Path(f"{output}.judged.jsonl"), [], output, pairs.Options(**options)
    )
    return dict(made.result)


def test_pairs_say_how_good_their_judge_is() -> None:
    result = make_pairs("sim", "unchecked.jsonl")
    assert list(result["table"]["judges"].values()) == [None]
    check("sim", labelled(100))
    result = make_pairs("sim", "checked-pairs.jsonl")
    (told,) = result["table"]["judges"].values()
    assert told["figures"]["accuracy"]["value"] == 1.0
    assert told == next(iter(read_checks().values()))


def test_pairs_of_a_judge_that_may_be_guessing_are_refused_unless_told() -> None:
    guesser = "sim:skill=0"
    found = check(guesser, labelled(60))
    assert found["figures"]["accuracy"]["low"] <= 0.5 <= found["figures"]["accuracy"]["high"]
    assert make_pairs(guesser, "refused.jsonl")["funnel"]["rejected"] == {"weak_judge": 60}
    assert make_pairs(guesser, "told.jsonl", weak_judge=True)["funnel"]["kept"] > 0


def test_a_check_holds_for_the_prompts_that_were_asked_alone() -> None:
    check("sim", labelled(20), "helpful.jsonl")
    check("sim", labelled(20), "honest.jsonl", rubric=["honest"])
    assert len(read_checks()) == 2
    assert len({key.rsplit(" ", 1)[1] for key in read_checks()}) == 2
    assert json.loads(Path(".datagen/judges.json").read_text()) == read_checks()
