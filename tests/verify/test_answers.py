"""Extraction of the final answer, and equality of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.verify.answers import MAX_ANSWER, TAIL, answer_key, final_answer, split_answer
from datagen.verify.choices import option_letter, yes_no
from datagen.verify.equality import same_answer


@pytest.mark.parametrize(
    ("text", "rationale", "answer"),
    [
        ("9 * 2 = 18.\n#### 18", "9 * 2 = 18.", "18"),
        ("9 * 2 = 18.\n####18\n", "9 * 2 = 18.", "18"),
        ("#### $1,234 dollars", "", "$1,234 dollars"),
        ("Twice nine.\nA: 18", "Twice nine.", "18"),
        ("Twice nine.\n**A:** 18", "Twice nine.", "18"),
        ("Twice nine. So the answer is 18.", "Twice nine.", "18"),
        ("Twice nine. Therefore, the final answer is: **18**.", "Twice nine.", "18"),
        ("Twice nine. THE ANSWER IS 18!", "Twice nine.", "18"),
        ("Twice nine.\nAnswer: 18", "Twice nine.", "18"),
        ("Twice nine.\n**Answer:** 18", "Twice nine.", "18"),
        ("Twice nine.\n**Answer**: 18", "Twice nine.", "18"),
        ("Twice nine.\n**Final Answer**\n\n18\n", "Twice nine.", "18"),
        ("Twice nine.\nFinal answer:\n\n18\n", "Twice nine.", "18"),
        ("Twice nine.\nThe answer to the question is 18 eggs.", "Twice nine.", "18 eggs"),
        ("The correct answer is option B.", "", "option B"),
        ("My answer = 3.5 miles.", "", "3.5 miles"),
        ("共十八个。所以答案是18。", "共十八个。", "18"),
        ("共十八个。\n答案：18", "共十八个。", "18"),
        ("共十八个。因此，最终答案为：18。谢谢", "共十八个。", "18"),
        (r"We get $\boxed{18}$.", "We get", "18"),
        (r"We get \[\boxed{\frac{3}{4}}\]", "We get", r"\frac{3}{4}"),
        (r"We get \fbox {18}", "We get", "18"),
        (r"Nine. The final answer is $\boxed{18}$. I hope it is correct.", "Nine.", "18"),
        (r"\boxed{17} no, \boxed{18} and \boxed{19", r"\boxed{17} no,", "18"),
        (r"\boxed{\{1, 2\}}", "", r"\{1, 2\}"),
        (r"\boxed{ } \boxed{18} \boxed{}", r"\boxed{ }", "18"),
        ("#### 17\nNo, wait. So the answer is 18.", "#### 17\nNo, wait.", "18"),
        ("The answer is 17.\n#### 18", "The answer is 17.", "18"),
        ("Answer: 18\nAnswer:", "", "18"),
        ("The answer is 6. We are done.", "", "6"),
        ("The answer is 6 because 2 * 3 = 6.", "", "6"),
        ("The answer is 6, since 2 * 3 = 6.", "", "6"),
        ("The answer is 42 dollars per day, which is more than 30.", "", "42 dollars per day"),
        ("The answer is Dr. Who. Yes.", "", "Dr. Who"),
        ("The answer is E. coli.", "", "E. coli"),
        ("The answer is J. K. Rowling.", "", "J. K. Rowling"),
        ("The answer is B. Tallinn lies there.", "", "B"),
        ("#### 18\nI hope that this answer is clear.", "", "18"),
        ("#### 18\nLet me know if the answer is unclear!", "", "18"),
        ("Twice nine. So, the answer is therefore 18.", "Twice nine.", "18"),
        ("Nine.\n### Final Answer\n18", "Nine.", "18"),
        ("Nine.\n#### Answer:\n\n18", "Nine.", "18"),
        ("Answer: (10 - 4) * 5 - 6 = 24", "", "(10 - 4) * 5 - 6 = 24"),
        ("#### Step 1: think\n\nThe answer is 5", "#### Step 1: think", "5"),
        ("> The answer is 5", ">", "5"),
    ],
)
def test_the_last_answer_stated_is_parted_from_its_rationale(text: str, rationale: str, answer: str) -> None:
    assert split_answer(text) == (rationale, answer)
    assert final_answer(text) == answer
    before = f"{'Plain words come first. ' * 40}\n"
    assert final_answer(before + text) == answer


def test_the_innermost_box_holds_the_answer() -> None:
    assert final_answer(r"\boxed{\boxed{18}}") == "18"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "18",
        "It is 18.",
        "I answered 18.",
        "No answer is known",
        "The answer",
        "The answer is",
        "Answer:",
        "####",
        "##### 18",
        "### 18",
        r"\boxed{18",
        r"\boxed{}",
        r"boxed{18}",
        "A: Louis\nB: Bernard",
        "a: 18",
        "PANDA: 18",
        "答案",
        "Answer: " + "long " * MAX_ANSWER,
    ],
)
def test_an_answer_that_is_not_stated_is_not_guessed(text: str) -> None:
    assert split_answer(text) == (text, None)


@given(st.text(max_size=200), st.integers(-999, 999))
def test_an_answer_at_the_end_is_found_after_any_text(text: str, number: int) -> None:
    for form in ("\n#### {}", "\nA: {}", "\nSo the answer is {}.", "\n\\boxed{{{}}}", "\n答案是{}。"):
        assert final_answer(text + form.format(number)) == str(number)


@given(st.text(max_size=300))
def test_any_text_parts_into_a_beginning_and_an_answer_within(text: str) -> None:
    rationale, answer = split_answer(text)
    assert text.startswith(rationale)
    assert answer is None or (answer and answer in text[len(rationale) :])


UNITS = (
    "9",
    " ",
    "\n",
    "{",
    "}",
    "\\",
    r"\boxed{",
    "the answer is ",
    "answer to ",
    "####",
    "#### 5\n",
    "A:\n",
    "答案是",
    "so ",
)


@pytest.mark.parametrize("unit", UNITS)
def test_ten_megabytes_are_read_at_once(unit: str) -> None:
    """The end is searched, and no pattern backtracks over it; a hang would be the failure."""
    text = unit * (10_000_000 // len(unit))
    answer = final_answer(text)
    assert answer is None or len(answer) <= MAX_ANSWER
    assert split_answer(f"{text}\nThe answer is 5.") == (text.rstrip(" \t\r\n*_`$\\[("), "5")
    assert same_answer(text, "5") in (False, None)


def test_an_answer_far_from_the_end_is_not_final() -> None:
    assert final_answer("#### 5" + "\nMore." * 1_000 + " " * TAIL) == "5"
    assert final_answer("#### 5" + "\nMore." * TAIL) is None


SAME = [
    ("145", "145.0", "$145", "145 dollars", "１４５", "145%", "**145**", r"\text{145}", "x = 145", "1.45e2", "145."),
    ("1234", "1,234", "1 234", "1,234.00 km"),
    ("3/4", "0.75", "6/8", r"\frac{3}{4}", "75/100", "¾"),
    ("-5", "−5", "- 5", "-5.0"),
    ("(B)", "b", "B", "B.", "B)", "Option B", "(B) 12/14/1937", "B: Bernard", r"\text{(B)}", "**(B)**", "[B]"),
    ("Yes", "yes", "YES.", "Yes, they meet.", "是", "**Yes**", r"\text{Yes}"),
    ("No", "no.", "No; never", "否"),
    ("True", "true", "正确"),
    ("False", "FALSE."),
    ("oven stove", "oven, stove", "Oven  Stove", '["oven", "stove"]', "oven and stove", "oven; stove", "oven\nstove"),
    ("1 2 3", "1, 2, 3", "[1, 2, 3]", "[1.0,2,3]", "1, 2 and 3"),
    ("12/14/1937",),
    ("(2, 3)", "(2,3)"),
    ("2, 3", "[2, 3]", "2 and 3"),
    ("May 5",),
    ("Room 12",),
    ("Room 13",),
    ("No. 5", "no. 5"),
    ("5x",),
    ("x > 5",),
    ("x < 5",),
    ("E. coli",),
    ("A cat",),
    ("it&t",),
    ("北京", "北京。"),
]


def test_keys_are_equal_for_the_same_answer_and_for_no_other() -> None:
    keys = [{answer_key(form) for form in forms} for forms in SAME]
    assert [len(same_keys) for same_keys in keys] == [1] * len(SAME)
    assert len(set.union(*keys)) == len(SAME)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("18 eggs", "18", True),
        ("18", "18.5", False),
        ("B. Tallinn", "(B)", True),
        ("B because it fits", "(B)", True),
        ("C. Tallinn", "(B)", False),
        ("Tallinn", "(B)", None),
        ("Because", "(B)", None),
        ("B. Tallinn", "Tallinn", None),
        ("No, never", "No", True),
        (None, "18", None),
        ("18", None, None),
        ("", "18", None),
        ("18", " ", None),
        ("...", "18", None),
    ],
)
def test_answers_are_compared_and_a_missing_one_is_no_verdict(
    answer: str | None, reference: str | None, same: bool | None
) -> None:
    assert same_answer(answer, reference) is same


@given(st.text(max_size=80))
def test_a_key_does_not_depend_on_case_or_the_spaces_and_stars_around(text: str) -> None:
    assert answer_key(f"  **{text}** \n") == answer_key(text)
    assert same_answer(text, text) in (True, None)


@given(st.lists(st.from_regex(r"[b-z][a-z]{2,7}", fullmatch=True), min_size=2, max_size=8))
def test_a_list_has_one_key_however_it_is_written(words: list[str]) -> None:
    words = [word for word in words if word not in ("and", "yes", "true", "false")] or ["oven"]
    forms = (" ".join, ", ".join, "; ".join, "\n".join, lambda parts: f"[{', '.join(parts)}]", lambda p: str(list(p)))
    assert len({answer_key(form(words)) for form in forms}) == 1


@pytest.mark.parametrize("text", ["A cat", "E. coli", "Beta", "", "12", "(BC)", "I am", "b", "the B"])
def test_a_word_is_no_letter(text: str) -> None:
    assert option_letter(text) is None


@pytest.mark.parametrize("text", ["No. 5", "nobody", "not true", "yesterday", "", "No one", "truest"])
def test_a_word_is_no_yes_or_no(text: str) -> None:
    assert yes_no(text) is None
