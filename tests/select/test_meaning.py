"""`filter --dedup semantic` and `--diverse`: the decisions are those of every pair, and no drop goes unsaid."""

import asyncio
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.engine.job import Outcome, open_job, run_job
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.llm.sim.embed import vector_of
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.select import diversity, vectors
from datagen.select.dedup import Dedup, read_dedup
from datagen.select.diversity import Selection, farthest_first
from datagen.select.filter import Filter, Options
from datagen.select.meaning import Meaning, cosines
from datagen.select.novelty import Novelty, itself, seed_family
from datagen.select.vectors import EmbeddedRow, Vectors
from tests.jobs import Quiet, digest, rows, write_seeds

Numbers = npt.NDArray[np.float32]
THRESHOLD = 0.8
SENTENCES = ("Write a poem about the sea.", "Write poems about the seas.", "Boil an egg.", "Name the capital of Peru.")


def run(path: str | Path, output: str = "out.jsonl", embedder: str | list[str] = "sim", **settings: Any) -> Outcome:
    """Run `datagen filter` with its options and those of every run."""
    options = {name: settings.pop(name) for name in list(settings) if name in Options.__dataclass_fields__}
    names = RunOptions(output=output, **settings)
    models = {"embedder": [embedder] if isinstance(embedder, str) else embedder} if embedder else {}
    with open_job(Filter, str(path), Options(**{"rule": ["none"], **options}), names, models) as job:
        return asyncio.run(run_job(job, Quiet()))


def write(prompts: list[str] | tuple[str, ...], path: str = "rows.jsonl") -> Path:
    Path(path).write_bytes(b"".join(dump_line({"prompt": prompt, "response": "Yes."}) for prompt in prompts))
    return Path(path)


def unit(matrix: npt.NDArray[Any]) -> Numbers:
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    result: Numbers = (matrix / lengths).astype(np.float32)
    return result


def clusters(count: int, seed: int, numbers: int = 24) -> Numbers:
    """Return vectors around a few centres, so that many pairs lie on both sides of the threshold."""
    dice = np.random.default_rng(seed)
    return unit(dice.normal(size=(8, numbers))[dice.integers(8, size=count)] + dice.normal(size=(count, numbers)) * 0.5)


def row_of(place: int, vector: Numbers, family: str = "") -> EmbeddedRow:
    meta = {"seed_id": family or None}
    return EmbeddedRow({"id": f"{place:016x}", "prompt": f"Prompt {place}", "meta": meta}, vector)


def decide(embedded: list[EmbeddedRow], most: int | None = None, threshold: float | None = THRESHOLD) -> list[Any]:
    """Feed the rule as the fold does."""
    kept = Vectors()
    meaning = None if threshold is None else Meaning(kept, threshold, Novelty(1.0, family_of=seed_family))
    selection, verdicts = Selection(kept, meaning, most), []
    for row in embedded:
        selection.add(row)
        verdicts += selection.decided(is_last=False)
    return verdicts + selection.decided(is_last=True)


def brute_force(matrix: Numbers, families: list[str]) -> list[tuple[str, float] | None]:
    """Compare every row with every kept one, one pair at a time."""
    kept: list[int] = []
    verdicts: list[tuple[str, float] | None] = []
    exact = matrix.astype(np.float64)
    for place, vector in enumerate(exact):
        others = [other for other in kept if not families[place] or families[other] != families[place]]
        scores = [float(vector @ exact[o] / np.sqrt((vector @ vector) * (exact[o] @ exact[o]))) for o in others]
        if scores and max(scores) >= THRESHOLD - 1e-9:
            verdicts.append((f"{others[int(np.argmax(scores))]:016x}", max(scores)))
        else:
            kept.append(place)
            verdicts.append(None)
    return verdicts


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("has_families", [False, True])
def test_decisions_are_those_of_every_pair(block: int, has_families: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "BLOCK", block)
    monkeypatch.setattr(vectors, "BLOCK", 32)
    matrix = clusters(300, 1)
    families = [f"s{place % 40}" if has_families else "" for place in range(300)]
    verdicts = decide([row_of(*row) for row in zip(range(300), matrix, families, strict=True)])
    expected = brute_force(matrix, families)
    assert [verdict.reason for verdict in verdicts] == ["similar_meaning" if match else None for match in expected]
    assert 40 < sum(match is not None for match in expected) < 260
    for verdict, match in zip(verdicts, expected, strict=True):
        if match:
            assert verdict.evidence == {"nearest": match[0], "similarity": round(match[1], 4)}


@given(st.lists(st.sampled_from([(1, 0), (0, 1), (4, 3), (-1, 0), (3, 4)]), min_size=1, max_size=12))
def test_a_similarity_at_the_threshold_is_enough(drawn: list[tuple[int, int]]) -> None:
    matrix = unit(np.array(drawn, np.float32))  # (4, 3) and (1, 0) have a cosine of 0.8
    reasons = [verdict.reason for verdict in decide([row_of(*pair) for pair in enumerate(matrix)])]
    assert reasons == ["similar_meaning" if match else None for match in brute_force(matrix, [""] * len(drawn))]


def test_what_meaning_drops_is_forgotten_by_words_too() -> None:
    kept = Vectors()
    meaning = Meaning(kept, THRESHOLD, Novelty(0.7, family_of=itself), itself)
    near, far = unit(np.array([[1, 0]])), unit(np.array([[0, 1]]))
    prompts = ("the first words here", "quite other words there", "quite other words there now")
    embedded = [
        EmbeddedRow({"id": str(place), "prompt": prompt, "meta": {}}, vector)
        for place, (prompt, vector) in enumerate(zip(prompts, (near[0], near[0], far[0]), strict=True))
    ]
    assert [verdict.reason for verdict in meaning.decide(embedded)] == [None, "similar_meaning", None]


@pytest.mark.parametrize("ahead", [1, 8, 500])
def test_the_diverse_rows_are_those_of_the_greedy_algorithm(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "AHEAD", ahead)
    matrix = clusters(120, 2)
    store = Vectors()
    for vector in matrix:
        store.add(vector)
    choice = farthest_first(store, 9)
    exact, chosen = matrix.astype(np.float64), [int((matrix.astype(np.float64) @ matrix.sum(axis=0)).argmax())]
    while len(chosen) < 9:
        nearest = (exact @ exact[chosen].T).max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    assert choice.places == chosen
    assert [int(place) for place in choice.nearest] == [
        chosen[int(place)] for place in (exact @ exact[chosen].T).argmax(axis=1)
    ]


def test_no_choice_covers_the_rows_twice_as_well() -> None:
    matrix = clusters(14, 3, numbers=3)
    store = Vectors()
    for vector in matrix:
        store.add(vector)
    distances = np.linalg.norm(matrix[:, None] - matrix[None], axis=2)
    best = min(distances[:, list(places)].min(axis=1).max() for places in combinations(range(14), 3))
    assert distances[:, farthest_first(store, 3).places].min(axis=1).max() <= 2 * best + 1e-6


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    matrix, orders = clusters(60, 4), [np.arange(60), np.random.default_rng(0).permutation(60)]
    kept = []
    for order in orders:
        verdicts = decide([row_of(int(place), matrix[place]) for place in order], most=10, threshold=None)
        kept.append({int(place) for place, verdict in zip(order, verdicts, strict=True) if verdict.reason is None})
    assert kept[0] == kept[1]
    assert len(kept[0]) == 10


def test_both_rules_together_choose_among_what_the_first_has_kept() -> None:
    matrix = clusters(300, 5)
    alone = decide([row_of(*pair) for pair in enumerate(matrix)])
    both = decide([row_of(*pair) for pair in enumerate(matrix)], most=20)
    assert [verdict for verdict in both if verdict.reason == "similar_meaning"] == [v for v in alone if v.reason]
    assert Counter(verdict.reason for verdict in both)[None] == 20
    kept = {f"{place:016x}" for place, verdict in enumerate(both) if verdict.reason is None}
    assert {verdict.evidence["nearest"] for verdict in both if verdict.reason == "not_diverse"} <= kept


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], Dedup(None, None)),
        (["0.7"], Dedup(0.7, None)),
        (["semantic"], Dedup(None, 0.9)),
        (["semantic:0.92", "1"], Dedup(1.0, 0.92)),
        (["semantic:0"], Dedup(None, 0.0)),
    ],
)
def test_dedup_is_a_number_or_semantic(texts: list[str], expected: Dedup) -> None:
    assert read_dedup(texts) == expected


@pytest.mark.parametrize("text", ["semantics", "semantic:", "semantic:2", "semantic:nan", "2", "-1", "nan", "", "a"])
def test_dedup_is_nothing_else(text: str) -> None:
    with pytest.raises(InputError, match=r"expected a number from 0 to 1, semantic, or such as semantic:0\.92"):
        read_dedup([text])


def test_every_dropped_row_names_the_kept_one_and_the_cosine() -> None:
    outcome = run(write([*SENTENCES, SENTENCES[0].upper()]), dedup=["semantic:0.6"])
    assert outcome.result["funnel"]["rejected"] == {"duplicate": 1, "similar_meaning": 1}
    kept, dropped = rows("out.jsonl"), rows("out.rejected.jsonl")
    assert [row["prompt"] for row in kept] == [SENTENCES[0], *SENTENCES[2:]]
    (similar,) = (row["record"] for row in dropped if row["reason"] == "similar_meaning")
    assert (similar["prompt"], similar["response"]) == (SENTENCES[1], "Yes.")
    first, second = map(vector_of, SENTENCES[:2])
    assert similar["nearest"] == kept[0]["id"]
    assert similar["similarity"] == round(float(cosines(np.array([first], float), second)[0]), 4)


def test_documents_are_compared_by_their_text() -> None:
    texts = ["The tide comes in twice a day.", "The tides come in twice a day.", "Bread rises by yeast."]
    Path("docs.jsonl").write_bytes(b"".join(dump_line({"text": text}) for text in [*texts, texts[2]]))
    run("docs.jsonl", dedup=["semantic:0.6"])
    assert [row["reason"] for row in rows("out.rejected.jsonl")] == ["duplicate", "similar_meaning"]


def test_a_threshold_of_0_is_one() -> None:
    words = [f"word{number}" for number in range(200)]
    texts = [" ".join(words), " ".join([*words[:-1], "another"]), "Bread rises by yeast."]
    Path("docs.jsonl").write_bytes(b"".join(dump_line({"text": text}) for text in texts))
    run("docs.jsonl", dedup=["0"], embedder=[])
    assert [row["reason"] for row in rows("out.rejected.jsonl")] == ["similar"]
    run(write(SENTENCES), "zero.jsonl", dedup=["semantic:0"])
    assert {row["reason"] for row in rows("zero.rejected.jsonl")} == {"similar_meaning"}


def test_rows_dropped_by_a_rule_are_not_embedded() -> None:
    bad: Row = {"prompt": "Explain the tides.", "response": "I'm sorry, but I can't help with that."}
    path = write(SENTENCES)
    path.write_bytes(path.read_bytes() + dump_line(bad))
    outcome = run(path, rule=["refusal"], dedup=["semantic"])
    assert (outcome.result["usage"]["calls"], outcome.result["funnel"]["asked"]) == (4, 5)


def test_a_second_run_pays_nothing_and_concurrency_changes_nothing() -> None:
    path = write_seeds(600)
    settings: dict[str, Any] = {"dedup": ["0.9", "semantic:0.93"], "diverse": 50}
    digests = set()
    for concurrency in ("1", "16", "256"):
        Path(concurrency).mkdir()
        first = run(path, f"{concurrency}/out.jsonl", concurrency=concurrency, **settings)
        assert first.run["requests"] == first.result["usage"]["calls"] == 600
        digests.add(digest(f"{concurrency}/out.jsonl"))
        again = run(path, f"{concurrency}/out.jsonl", overwrite=True, **settings)
        assert (again.run["requests"], again.run["replayed"]) == (0, 600)
        digests.add(digest(f"{concurrency}/out.jsonl"))
    assert len(digests) == 1
    funnel = json.loads(Path("16/out.meta.json").read_text())["result"]["funnel"]
    assert funnel["kept"] == 50 and funnel["rejected"].keys() == {"not_diverse", "similar_meaning"} | (
        funnel["rejected"].keys() & {"similar", "duplicate"}
    )


def test_a_cap_stops_it_and_a_higher_one_goes_on() -> None:
    path = write_seeds(300)
    capped = run(path, dedup=["semantic:0.97"], max_calls=100, concurrency="8")
    assert (capped.reason, capped.result["status"]) == ("cap", "stopped")
    assert 90 <= capped.result["funnel"]["asked"] <= 100
    whole = run(path, dedup=["semantic:0.97"], concurrency="8")
    assert whole.run["requests"] == 300 - capped.run["requests"]
    Path("fresh").mkdir()
    run(path, "fresh/out.jsonl", dedup=["semantic:0.97"])
    assert Path("fresh/out.jsonl").read_bytes() == Path("out.jsonl").read_bytes()


def test_a_vector_that_cannot_be_used_is_a_failed_row() -> None:
    outcome = run(write_seeds(40), embedder="sim:malformed=0.3", dedup=["semantic:0.99"])
    funnel = outcome.result["funnel"]
    assert 0 < funnel["failed"]["no vector"] < 40
    assert outcome.result["status"] == "incomplete"
    failed = [row for row in rows("out.rejected.jsonl") if row["status"] == "failed"]
    assert {row["record"]["error"] for row in failed} == {"a number is not finite, the first at place 0"}
    again = run(write_seeds(40), embedder="sim:malformed=0.3", dedup=["semantic:0.99"])
    assert again.run["requests"] == funnel["failed"]["no vector"], "only the failed ones are asked for again"


def test_mistakes_are_one_line() -> None:
    path = write(SENTENCES)
    with pytest.raises(InputError, match="no model for them is named: --embedder"):
        run(path, embedder=[], model=["sim"], dedup=["semantic"])
    with pytest.raises(InputError, match="give one --embedder"):
        run(path, embedder=["sim", "sim:skill=1"], diverse=2)
    with pytest.raises(InputError, match="--pool is compared by words alone"):
        run(path, dedup=["0.7", "semantic"], pool=[str(path)])
    with pytest.raises(InputError, match="recorded replies hold answers, and no vectors"):
        run(path, dedup=["semantic"], embedder="replay:rows.jsonl")
    with pytest.raises(InputError, match="asks no such model"):
        run(path, dedup=["0.7"])
