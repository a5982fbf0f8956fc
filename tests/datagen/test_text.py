"""Words and tokens in every script, and what an exact duplicate is."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.text import count_words, exact_key, is_unspaced, normal, tokens, visible

ASCII = st.text(st.characters(max_codepoint=127))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n\t", 0),
        ("one", 1),
        ("one  two\nthree", 3),
        ("don't stop", 2),
        ("你好世界", 4),
        ("写一首诗 about rain", 6),
        ("我喜欢Python和Rust", 6),
        ("ひらがなカナ", 6),
        ("豈", 1),
        ("안녕 세계", 2),
        ("a\u00a0b\u3000c", 3),
    ],
)
def test_words_are_counted_and_a_chinese_character_is_one(text: str, count: int) -> None:
    assert count_words(text) == count


@given(ASCII.filter(lambda text: re.search("[a-zA-Z0-9]", text)))
def test_plain_english_is_split_as_by_rouge_score(text: str) -> None:
    assert tokens(text) == [token for token in re.split("[^a-z0-9]+", text.lower()) if token]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't use snake_case!", ["don", "t", "use", "snake", "case"]),
        ("写一首诗。", ["写", "一", "首", "诗"]),
        ("用Python写一个GUI程序", ["用", "python", "写", "一", "个", "gui", "程", "序"]),
        ("Ｐｙｔｈｏｎ３", ["python3"]),
        ("日本語のカタカナ", list("日本語のカタカナ")),
        ("한국어 문장입니다", ["한국어", "문장입니다"]),
        ("Où est le café ?", ["où", "est", "le", "café"]),
        ("cafe\u0301", ["café"]),
        ("Привет, мир", ["привет", "мир"]),
        ("हिन्दी में लिखो।", ["हिन्दी", "में", "लिखो"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("🙂 🙂", ["🙂", "🙂"]),
        ("?!", ["?", "!"]),
        (" \n", []),
    ],
)
def test_every_script_has_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(st.text())
def test_only_what_nobody_sees_has_no_token(text: str) -> None:
    assert bool(tokens(text)) == bool(normal(text).strip())


@pytest.mark.parametrize(
    ("text", "unspaced"),
    [
        ("写一首诗", True),
        ("用 Python 写诗", True),
        ("Translate 你好 into English", False),
        ("write a poem", False),
        ("", False),
    ],
)
def test_a_text_is_unspaced_where_characters_are_half_of_its_tokens(text: str, unspaced: bool) -> None:
    assert is_unspaced(tokens(text)) is unspaced


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Write a poem.", "write  a poem"),
        ("写一首诗。", "写一首 诗！"),
        ("Ｗｒｉｔｅ a poem", "Write a poem"),
        ("STRASSE", "straße"),
        ("What is 2+2?", "what is 2 + 2"),
        ("“Hello,” he said", '"Hello" he said'),
        ("Hi!", "hi"),
        ("Name a ri\u00adver.", "Name\u200b a river."),
        ("用 Py\u200bthon 写", "用 Python 写"),
        ("\u2764\ufe0f", "\u2764"),
        ("\u202eabc\u2060", "abc"),
    ],
)
def test_case_spaces_and_punctuation_make_no_difference(one: str, other: str) -> None:
    assert exact_key(one) == exact_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Round 3.5 up", "Round 35 up"),
        ("What is 3 * 4?", "What is 3 / 4?"),
        ("Add 3 4", "Add 34"),
        ("The square of -5", "The square of 5"),
        ("Take 20% of it", "Take 20 of it"),
        ("Hello world in C#", "Hello world in C"),
        ("Hello world in C++", "Hello world in C"),
        ("?", "!"),
        ("🙂", "🙃"),
        ("写诗", "写歌"),
    ],
)
def test_what_asks_for_something_else_is_no_duplicate(one: str, other: str) -> None:
    assert exact_key(one) != exact_key(other)


@given(st.text(min_size=1).filter(lambda text: normal(text).strip()))
def test_a_key_is_never_empty(text: str) -> None:
    assert exact_key(text)


def test_every_mark_of_format_is_invisible_but_those_that_show() -> None:
    """Unicode's category Cf, without the signs that stand before Arabic, Syriac and Kaithi numbers, and shorthand."""
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    shown = "".join(mark for mark in marks if visible(mark))
    assert all(
        "ARABIC" in name or "SYRIAC" in name or "KAITHI" in name or "EGYPTIAN" in name
        for name in map(unicodedata.name, shown)
    )
