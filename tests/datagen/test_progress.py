"""The output on the terminal."""

import pytest

from datagen.commands.terminal import columns, funnel_lines
from datagen.printing import printable


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain, naïve, 数据\nnext", "plain, naïve, 数据\nnext"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("back\b\rover", r"back\x08\rover"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("half \ud83d", r"half \ud83d"),
        ("[/bold] {x}", "[/bold] {x}"),
    ],
)
def test_a_terminal_is_given_nothing_to_obey(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_columns_are_aligned() -> None:
    assert columns([["round", "kept"], ["1", "95 %"], ["10", "5 %"]]) == ["round  kept", "1      95 %", "10      5 %"]


def test_the_funnel_names_reasons_by_their_number() -> None:
    funnel = {"asked": 10, "kept": 6, "rejected": {"a": 1, "b": 2}, "failed": {"c": 1}, "unreadable": 2}
    assert funnel_lines(funnel) == [
        "asked             10",
        "kept               6  60.0 %",
        "rejected           3  b 2, a 1",
        "failed             1  c 1",
        "unreadable lines   2",
    ]
