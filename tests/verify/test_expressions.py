"""Exact arithmetic; everything else is refused quickly; the Game of 24."""

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import ParseError
from datagen.verify.expressions import MAX_DEPTH, MAX_LENGTH, evaluate, game24, puzzle_numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", "2"),
        ("48/2", "24"),
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("[1 + {2}] * 3", "9"),
        ("10 - 4 - 3", "3"),
        ("100 / 10 / 2", "5"),
        ("1/3 + 1/6", "1/2"),
        ("-5 + 9 * -4 - 0", "-41"),
        ("8 - -4", "12"),
        ("--5", "5"),
        ("+5", "5"),
        ("-2^2", "-4"),
        ("(-2)^2", "4"),
        ("2^3^2", "512"),
        ("2**-1", "1/2"),
        ("20%", "1/5"),
        ("50 * 20%", "10"),
        ("0.2 x 50", "10"),
        ("3x4", "12"),
        ("3 × 4 ÷ 2", "6"),
        ("3 − 4", "-1"),
        ("$1,000 + $500", "1500"),
        ("1,234,567.5", "2469135/2"),
        (".5*4", "2"),
        ("5.*4", "20"),
        ("1.5e3", "1500"),
        ("1e-05", "1/100000"),
        ("１２＋３", "15"),
        (r"\frac{1}{2} \times 4", "2"),
        (r"6 \div 3 \cdot 2", "4"),
        ("0.1 + 0.2", "3/10"),
    ],
)
def test_an_expression_is_worked_out_exactly(text: str, value: str) -> None:
    assert evaluate(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "()",
        "1 +",
        "* 2",
        "1 2",
        "2(3)",
        "(1",
        "1)",
        "1//2",
        "1 = 1",
        "x + 1",
        "1/0",
        "1/(2-2)",
        "0^-1",
        "2^0.5",
        "9**9**9",
        "9^9^9^9",
        "2^65",
        "((9^64)^64)^64",
        "1e9999",
        "1e999999999",
        "1,23",
        "1,2345",
        "٣ + 1",
        "²",
        "2²",
        "五",
        "1_000",
        "0b1",
        "__import__('os')",
        "__import__('os').system('true')",
        "().__class__",
        "lambda: 0",
        "10 and 3",
        "'a'*10",
        "[0, 1][0]",
        "1;1",
        "1\n2",
        "(" * 150 + "1" + ")" * 49,
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "-" * (MAX_LENGTH - 1) + "1",
        "1" * (MAX_LENGTH + 1),
        pytest.param("1+" * 5_000_000 + "1", id="a long sum"),
        pytest.param("(" * 10_000_000, id="a long row of brackets"),
    ],
)
def test_what_is_not_bounded_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        evaluate(text)


def test_brackets_are_read_to_the_depth_that_is_allowed() -> None:
    assert evaluate("1" + "+(1)" * MAX_DEPTH) == MAX_DEPTH + 1
    assert evaluate("(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)) == 1


Worked = tuple[str, Fraction | None]
OPERATORS: dict[str, Callable[[Fraction, Fraction], Fraction | None]] = {
    "+": Fraction.__add__,
    "-": Fraction.__sub__,
    "*": Fraction.__mul__,
    "/": lambda left, right: left / right if right else None,
}
LEAVES: st.SearchStrategy[Worked] = st.integers(0, 999).map(lambda n: (str(n), Fraction(n))) | st.integers(0, 9999).map(
    lambda n: (f"{n / 100:.2f}", Fraction(n, 100))
)


def larger_expressions(parts: st.SearchStrategy[Worked]) -> st.SearchStrategy[Worked]:
    def join(left: Worked, operator: str, right: Worked, space: str) -> Worked:
        value = OPERATORS[operator](left[1], right[1]) if left[1] is not None and right[1] is not None else None
        return f"({left[0]}{space}{operator}{space}{right[0]})", value

    def negate(part: Worked) -> Worked:
        return f"(-{part[0]})", None if part[1] is None else -part[1]

    pairs = st.builds(join, parts, st.sampled_from(sorted(OPERATORS)), parts, st.sampled_from(["", " "]))
    return pairs | parts.map(negate)


@given(st.recursive(LEAVES, larger_expressions, max_leaves=12))
def test_any_tree_of_operations_has_the_value_of_its_fractions(worked: Worked) -> None:
    text, value = worked
    if value is None or len(text) > MAX_LENGTH:
        with pytest.raises(ParseError):
            evaluate(text)
    else:
        assert evaluate(text) == value


@given(st.lists(st.tuples(st.sampled_from("+-*"), st.integers(-99, 99)), min_size=1, max_size=20))
def test_products_bind_before_sums_as_in_python(terms: list[tuple[str, int]]) -> None:
    text = " ".join(f"{operator} {number}" for operator, number in terms)
    assert evaluate(f"7 {text}") == eval(f"7 {text}")


@given(st.text(alphabet="0123456789.,+-*/^%()[]eEx $√²٣", max_size=60) | st.text(max_size=60))
def test_any_text_gives_a_number_or_a_parse_error(text: str) -> None:
    with suppress(ParseError):
        assert isinstance(evaluate(text), Fraction)


FOUR = [Fraction(number) for number in (4, 5, 6, 10)]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Steps:\n10 - 4 = 6 (left: 5 6 6)\nAnswer: (10 - 4) * 5 - 6 = 24", True),
        ("Answer: (10 − 4) × 5 − 6", True),
        ("The answer is $(10-4) \\times 5 - 6 = 24$.", True),
        ("\\boxed{(10 - 4) * 5 - 6}", True),
        ("Answer: (10 - 4) * 5 - 6 = 25", True),
        ("Answer: (10 - 4) * 4 = 24", False),
        ("Answer: (10 - 4) * 5 - 6 + 4 - 4 = 24", False),
        ("Answer: 10 + 4 + 5 + 6 = 24", False),
        ("Answer: 24 = 24", False),
        ("Answer: 4 * 6 * (10 - 5 - 4)", False),
        ("Answer: 104 - 5 * 6", False),
        ("Answer: 10 / (4 - 4) + 5 * 6", False),
        ("Answer: 6^4 - 10 + 5", False),
        ("Answer: 6 * 4 * 5 / 5% ", False),
        ("Answer: None", False),
        ("Answer: There is no solution.", False),
        ("Answer: __import__('os')", False),
        ("(10 - 4) * 5 - 6 = 24", None),
        ("", None),
    ],
)
def test_a_solution_of_24_uses_each_number_once(text: str, verdict: bool | None) -> None:
    assert game24(FOUR, text) is verdict


def test_a_fraction_on_the_way_to_24_is_exact() -> None:
    assert game24([Fraction(n) for n in (3, 3, 8, 8)], "Answer: 8 / (3 - 8 / 3) = 24") is True


def test_powers_and_percent_are_no_way_to_24() -> None:
    assert evaluate("5^2 - 1 * 1") == evaluate("2400% * 1 * 1 * 1") == 24
    assert game24([Fraction(n) for n in (5, 2, 1, 1)], "Answer: 5^2 - 1 * 1") is False
    assert game24([Fraction(n) for n in (2400, 1, 1, 1)], "Answer: 2400% * 1 * 1 * 1") is False


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("4 5 6 10", [4, 5, 6, 10]),
        ("4, 5, 6, 10", [4, 5, 6, 10]),
        ("Use 4, 5, 6 and 10 to make 24.", [4, 5, 6, 10]),
        ("Make 24 of 4, 5, 6, and 10.", [4, 5, 6, 10]),
        ("Input: 1 1 4 6\nAnswer: ...\n\nInput: 4 5 6 10\nAnswer:", [4, 5, 6, 10]),
        ("4 5 6", []),
        ("4.5 5 6 10x", []),
        ("four numbers", []),
    ],
)
def test_the_numbers_of_a_puzzle_are_four_in_a_row(text: str, numbers: list[int]) -> None:
    assert puzzle_numbers(text) == numbers
