"""Languages: right on whole sentences, never wrong on short ones, and unknown where nobody could know."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datagen.verify.constraints.checks import same_language
from datagen.verify.languages import NAMES, detect

SENTENCES: list[tuple[str, str]] = [
    (row["language"], row["text"])
    for row in map(json.loads, (Path(__file__).parents[1] / "data" / "languages.jsonl").read_text("utf-8").splitlines())
]
"""Eight sentences in each language."""
NEIGHBOURS = ("id it", "ro fr", "sr ru", "be uk", "gl pt")
"""Languages, and a language that each was once taken for."""
NO_LANGUAGE = (
    "", "   ", "42", "OK.", "Yes", "Nein.", "Paris", "Toyota Corolla 2019", "Berlin, Paris, Madrid, Roma", "E = mc^2",
    "α + β = γ", "東京", "Hello 你好", "https://example.org/a/b/c?d=e", "git commit -m wip && git push origin main",
    "for i in range(10): print(i)", "SELECT name, age FROM users WHERE age > 30 ORDER BY name;",
    "class Report(Base):\n    def __init__(self, name):\n        self.name = name\n    def run(self):\n",
    "const x = await fetch(url).then(r => r.json());", '{"id": 1, "name": "x", "tags": ["a", "b"]}',
    "```\nthe and of to is in that it for was with this are be\n```",
)  # fmt: skip


def first_half(text: str) -> str:
    words = text.split()
    return " ".join(words[: len(words) // 2]) if len(words) > 3 else text[: len(text) // 2]


def verdicts(cut: Callable[[str], str]) -> Counter[bool | None]:
    """Count right, wrong and unknown languages of the sentences, cut by a function."""
    detected = [(code, detect(cut(text))) for code, text in SENTENCES]
    return Counter(None if one is None else one == code for code, one in detected)


def test_the_language_of_a_sentence_is_right_or_unknown() -> None:
    counts = verdicts(str)
    assert Counter(code for code, _ in SENTENCES) == {code: 8 for code, _ in SENTENCES}
    assert counts[False] == 0 and counts[True] >= 0.94 * counts.total()


@pytest.mark.parametrize("cut", [first_half, lambda text: " ".join(text.split()[:3])])
def test_the_language_of_a_part_of_a_sentence_is_never_wrong(cut: Callable[[str], str]) -> None:
    counts = verdicts(cut)
    assert counts[False] == 0 and counts[True] >= 0.4 * counts.total()


def test_a_text_of_several_sentences_has_a_language() -> None:
    for code in {code for code, _ in SENTENCES}:
        text = " ".join(text for language, text in SENTENCES if language == code)
        assert detect(text) == code and code in NAMES


@pytest.mark.parametrize("pair", NEIGHBOURS)
def test_a_language_is_not_taken_for_its_neighbour(pair: str) -> None:
    code, neighbour = pair.split()
    texts = [text for language, text in SENTENCES if language == code]
    assert True not in {same_language(text, neighbour) for text in texts}
    assert same_language(" ".join(texts), neighbour) is False


@pytest.mark.parametrize("text", NO_LANGUAGE)
def test_nothing_is_known_about_code_and_short_texts(text: str) -> None:
    assert detect(text) is None
    assert same_language(text, "en") is None


def test_threads_see_the_same_languages() -> None:
    texts = [text for _, text in SENTENCES]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(detect, texts)] == [*map(detect, texts)]
