"""MinHash finds near-duplicates with the expected probability, short texts too."""

import random

import pytest

from datagen.select.minhash import BANDS, PROMPT, ROWS, NearDuplicates, shingles


def match_probability(jaccard: float) -> float:
    """Return the probability that two texts match whose shingles have this Jaccard similarity."""
    return 1 - (1 - jaccard**ROWS) ** BANDS


@pytest.mark.parametrize(("jaccard", "expected"), [(0.6, 0.21), (0.7, 0.56), (0.75, 0.77), (0.8, 0.92), (0.85, 0.988)])
def test_the_curve_is_that_of_fineweb(jaccard: float, expected: float) -> None:
    assert match_probability(jaccard) == pytest.approx(expected, abs=0.01)


def share_found(common: int, trials: int) -> float:
    """Add pairs of texts with `common` of 20 words in common; return the share of detected pairs."""
    near, matches, rest = NearDuplicates((1,)), 0, 20 - common
    for trial in range(trials):
        shared = [f"{trial}s{number}" for number in range(common)]
        near.add(" ".join([*shared, *(f"{trial}a{number}" for number in range(rest // 2))]))
        like = near.add(" ".join([*shared, *(f"{trial}b{number}" for number in range(rest - rest // 2))]))
        assert like in (None, 2 * trial)
        matches += like is not None
    return matches / trials


@pytest.mark.parametrize("common", [12, 14, 16])
def test_pairs_are_found_with_about_this_probability(common: int) -> None:
    expected, trials = match_probability(common / 20), 1_500
    error = 3 * (expected * (1 - expected) / trials) ** 0.5
    assert share_found(common, trials) == pytest.approx(expected, abs=error)


@pytest.mark.slow
@pytest.mark.parametrize("common", [12, 14, 15, 16, 17])
def test_pairs_are_found_with_this_probability_to_a_point(common: int) -> None:
    assert share_found(common, 25_000) == pytest.approx(match_probability(common / 20), abs=0.01)


def test_a_near_duplicate_is_named_by_its_first_and_another_document_is_not() -> None:
    chance = random.Random(0)
    words = [f"w{chance.randrange(900)}" for _ in range(300)]
    near = NearDuplicates()
    assert near.add(" ".join(words)) is None
    assert near.add(" ".join(chance.sample(words, 300))) is None
    assert near.add(" ".join([*words[:150], "changed", *words[151:]])) == 0
    assert near.add(" ".join(words)) == 0


@pytest.mark.parametrize("text", ["Hi", "写诗", "one two three four", "🙂"])
def test_a_text_without_a_five_gram_is_found_again(text: str) -> None:
    near = NearDuplicates()
    assert [near.add(text), near.add("another text"), near.add(text)] == [None, None, 0]


def test_prompts_have_shingles_of_one_to_three_words() -> None:
    assert shingles("Write a poem", PROMPT) == {"write", "a", "poem", "write a", "a poem", "write a poem"}
    assert shingles("a b c d e f", (5,)) == {"a b c d e", "b c d e f"}
