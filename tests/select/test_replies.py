"""The rules on what models write, over replies in the manner of sixteen model families, and over rows of people."""

from pathlib import Path

import pytest

from benchmarks.rules import (
    HELD_OUT,
    ON_PROMPTS,
    PROMPTS,
    SEEN,
    good_rows,
    load,
    outcomes,
    precision,
    recall,
    rule_table,
)
from datagen.select import first_reason
from datagen.select.elimination import BEFORE_ANSWER, Step
from datagen.select.mentions import points_at_text
from datagen.select.wrapping import unwrap, unwrap_answer

ROWS = {name: load(name) for name in (SEEN, HELD_OUT)}
RULES = (*ON_PROMPTS, "read_tasks")
MOST_OF_THOUSAND = 4
"""Good rows that a rule may drop or change, of a thousand."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "floor"), [(SEEN, 1.0), (HELD_OUT, 0.9)])
def test_no_rule_falls_below_its_floor(name: str, floor: float, rule: str) -> None:
    results = [one for one in outcomes(ROWS[name]) if one.rule == rule]
    wrong = [one for one in results if one.got != one.expected]
    assert precision(results) >= floor and recall(results) >= floor, wrong


def test_the_replies_are_of_many_families_and_a_third_of_these_is_held_out() -> None:
    seen, held_out = ({row["family"] for row in rows} for rows in ROWS.values())
    assert len(seen) + len(held_out) >= 12 and not seen & held_out
    assert 2 * len(held_out) >= 0.9 * len(seen)
    assert sum(map(len, ROWS.values())) >= 300


@pytest.mark.parametrize("name", ROWS)
def test_what_is_bare_stays_as_it_is(name: str) -> None:
    """A second rewrite of the same wrapping nests nothing, and no layer comes off a clean prompt."""
    for row in ROWS[name]:
        if row["kind"] == "rewrite":
            bare = unwrap(row["reply"], row["parent"])
            assert unwrap(bare, row["parent"]) == bare


@pytest.mark.parametrize(
    ("reply", "parent", "text"),
    [
        ('Sure! Here\'s a harder version:\n\n**Prompt:** "Name a yew."\n\n(Note: I added nothing.)', "", "Name a yew."),
        ("#Given Prompt#:\nName a tree.\n\n#Rewritten Prompt#:\nName a yew.", "Name a tree.", "Name a yew."),
        ("Option 1: Name a yew.\n\nOption 2: Name an oak.", "Name a tree.", "Name a yew."),
        ("Option 1: yew.\n\nOption 2: oak.", "Option 1: ash.\n\nOption 2: elm.", "Option 1: yew.\n\nOption 2: oak."),
        ('"Name a yew."', '"Name a tree."', '"Name a yew."'),
        (
            "Here is the revised question my teacher wrote: Why?",
            "",
            "Here is the revised question my teacher wrote: Why?",
        ),
        ("```python\nprint(1)\n```", "", "```python\nprint(1)\n```"),
        ("Rewritten Prompt:", "", "Rewritten Prompt:"),
        ("", "", ""),
    ],
)
def test_layers_come_off_in_any_order_and_what_the_parent_has_stays(reply: str, parent: str, text: str) -> None:
    assert unwrap(reply, parent) == text


def test_of_an_answer_the_announcement_alone_comes_off() -> None:
    assert unwrap_answer("Here is the revised answer:\n\n```\nls\n```") == "```\nls\n```"
    assert unwrap_answer("Use `ls`.\n\nI hope this helps!") == "Use `ls`.\n\nI hope this helps!"
    assert unwrap_answer("New answer: 7", "New answer: 8") == "New answer: 7"


@pytest.mark.parametrize(("english", "chinese"), [
    ("Use the given prompt: name a tree.", "请根据给定的提示，说出一种树。"),
    ("I'm sorry, I can't rewrite this request.", "抱歉，我无法改写这个请求。"),
    ("The answer is the yew, an old tree.", "答案是紫杉，一种古老的树。"),
    ("I can't sleep. Name a tree that helps.", "我无法入睡，请说出一种有帮助的树。"),
    ("Name an old tree, and say why it is old.", "说出一种古树，并说明它为什么古老。"),
])  # fmt: skip
def test_each_rule_knows_both_languages(english: str, chinese: str) -> None:
    first, second = (
        first_reason(BEFORE_ANSWER, Step(parent, child))
        for parent, child in (("Name a tree.", english), ("说出一种树。", chinese))
    )
    assert first == second


def test_a_text_that_the_instruction_brings_along_is_not_missing() -> None:
    assert points_at_text("Translate the following paragraph into Latin.")
    assert not points_at_text(
        "Translate the following paragraph into Latin:\n\nThe pump failed at noon and nobody saw."
    )


@pytest.mark.parametrize("rule", ON_PROMPTS)
def test_a_rule_leaves_the_prompts_of_people_alone(real_data: Path, rule: str) -> None:
    rows = good_rows(PROMPTS)
    assert 1000 * sum(bool(ON_PROMPTS[rule](row)) for row in rows) / len(rows) <= MOST_OF_THOUSAND


def test_the_page_shows_this_table(real_data: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text("utf-8")
    assert "\n".join(rule_table()) in page
