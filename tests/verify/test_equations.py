"""Equations in a solution: extraction, correctness, and the computed values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.verify.equations import MAX_TEXT, equation_key, equations, equations_hold


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She sold 48/2 = <<48/2=24>>24 clips.", ["48/2=24"]),
        ("<<48/2=24>> and\n<< 48 + 24 = 72 >>", ["48/2=24", "48+24=72"]),
        ("9 + 9 = 20. <<5*4=20=10*2>>", ["5*4=20", "20=10*2"]),
        ("<<1,000*20%=$200>>", ["1,000*20%=200"]),
        ("<<5 apples + 3 apples = 8 apples>>", ["5+3=8"]),
        ("In total 48 / 2 = 24 clips.", ["48/2=24"]),
        ("48/2=24", ["48/2=24"]),
        ("- 48 / 2 = 24", ["48/2=24"]),
        ("2. 48 / 2 = 24", ["48/2=24"]),
        ("**48 / 2 = 24**", ["48/2=24"]),
        ("`2 ** 3 = 8`", ["2**3=8"]),
        ("(5 + 3 = 8)", ["5+3=8"]),
        ("(5 + 3) * 2 = 16 (left: 4)", ["(5+3)*2=16"]),
        ("5 + 3 = 8, and 8 * 2 = 16.", ["5+3=8", "8*2=16"]),
        ("Total = 4 + 5 = 9 = 3 * 3", ["4+5=9", "9=3*3"]),
        ("Step 1: $1,000 + $500 = $1,500.", ["1,000+500=1,500"]),
        ("5 apples + 3 pears = 8 fruits", ["5+3=8"]),
        ("3 boxes x 4 = 12", ["3*4=12"]),
        ("3 × 4 − 2 = 10", ["3*4-2=10"]),
        (r"\(\frac{1}{2} \times 4 = 2\)", ["(1)/(2)*4=2"]),
        ("20% of 50 = 10", ["20%*50=10"]),
        ("3 times 5 = 15 eggs", ["3*5=15"]),
        ("5/20 = 25%", ["5/20=25%"]),
        ("一共3+5=8个", ["3+5=8"]),
        ("3 + 5 = 8m", ["3+5=8"]),
    ],
)
def test_equations_are_found_among_words_and_units(text: str, expected: list[str]) -> None:
    assert ["=".join(pair) for pair in equations(text)] == expected
    assert equation_key(text) == ";".join(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No sum here.",
        "48 / 2 is 24",
        "x = 5",
        "2x + 3 = 7",
        "x - 3 + 2 = 5",
        "5 + 3 = 8x",
        "5 + 3 = 8 * y",
        "5 + x = 8",
        "sqrt(16) + 1 = 5",
        "f(2 + 3) = 10",
        "x^2 + 1 = 5",
        "2(3 + 5) = 16",
        "5 + 3 ≠ 9",
        "5 + 3 != 9",
        "5 + 3 >= 9",
        "5 + 3 := 9",
        "5 + 3 ≈ 9",
        "5 + 3 == 9",
        "1 hour = 60 minutes",
        "40 nickels = 40 * $0.05",
        "2 hours + 30 minutes = 150 minutes",
        "$0.50 + $0.20 = 70 cents",
        "1.5 million + 1 = 3 million",
        "1,500,000 * 2 = 3 million",
        "13 / 6 = 2 full boxes with a remainder of 1",
        "2 - 1/2 = 1 1/2",
        "17 / 3 = 5 and 2/3",
        "6 / 1/30 = 180",
        "at 6:00 + 48 = 6:48",
        "5 + 3 =",
        "= 8",
        "5 +\n3 = 8",
    ],
)
def test_what_is_not_plain_arithmetic_is_not_listed(text: str) -> None:
    assert equations(text) == []
    assert equations_hold(text) is None and equation_key(text) == ""


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<<48/2=24>>24", True),
        ("<<48/2=25>>25", False),
        ("<<48/2=24>> <<24+1=26>>", False),
        ("<<10/3=3.333>>", True),
        ("<<10/3=3.33>>", False),
        ("<<1/1000=0>>", False),
        ("<<1/1001=0>>", True),
        ("<<50*20%=10>>", True),
        ("<<5/20=25%>>", True),
        ("<<5/20*100=25%>>", True),
        ("<<100-20=80%>>", True),
        ("<<100%-20%=80%>>", True),
        ("<<50+20%=60>>", False),
        ("<<x+2=5>>", None),
        ("<<x+2=5>> <<1+1=2>>", None),
        ("<<x+2=5>> <<1+1=3>>", False),
        ("<<1/0=0>>", None),
        ("<<9**9**9=1>>", None),
        ("<<__import__('os').system('true')=0>>", None),
        ("<<1+1>>", None),
        ("48 / 2 = 24 clips, 48 + 24 = 72 clips", True),
        ("48 / 2 = 24 clips, 48 + 24 = 73 clips", False),
        ("48 / 2 = 25, so <<48/2=24>>24", True),
        ("5 + 3 = 8 + 2 = 10", False),
        ("Let x = 5. Then 5 + 3 = 8.", True),
    ],
)
def test_equations_hold_within_a_thousandth(text: str, verdict: bool | None) -> None:
    assert equations_hold(text) is verdict


def test_another_order_is_another_computation_and_another_format_is_not() -> None:
    assert equation_key("<<3+4=7>>") != equation_key("<<4+3=7>>")
    assert equation_key("1+1=2\n2+2=4") != equation_key("2+2=4\n1+1=2")
    forms = ("<<3*4=12>>", "<<3 × 4 = $12>>", "3 x 4 = 12 eggs", "We get 3 * 4 = 12.", "**3 * 4 = 12**")
    assert {equation_key(form) for form in forms} == {"3*4=12"}


SUMS = st.tuples(st.integers(0, 9999), st.sampled_from("+-*"), st.integers(1, 9999), st.sampled_from([0, 0, 1, -1]))


@given(st.lists(SUMS, min_size=1, max_size=6), st.sampled_from(["<<{}{}{}={}>>{}", "{} {} {} = {} eggs ({})."]))
def test_a_solution_holds_exactly_if_all_its_sums_are_right(sums: list[tuple[int, str, int, int]], form: str) -> None:
    results = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    lines = [form.format(a, sign, b, results[sign](a, b) + wrong, "x") for a, sign, b, wrong in sums]
    assert equations_hold("\n".join(lines)) is all(not wrong for *_, wrong in sums)


@given(st.text(alphabet="0123456789.,+-*/^%()[]<>= x$a\n", max_size=80))
def test_any_text_has_a_verdict_or_none(text: str) -> None:
    assert equations_hold(text) in (True, False, None)


@pytest.mark.parametrize("unit", ["9", "1=", "1+1=2\n", "<<1+1=2>>", "<<a=", "<", "((", "1+", "a=", "1 a = ", " "])
def test_a_long_text_is_read_in_its_stride(unit: str) -> None:
    """Up to MAX_TEXT every line is read, beyond it none; a hang would be the failure."""
    assert equations(unit * (10_000_000 // len(unit))) == []
    count = len(equations(unit * (MAX_TEXT // len(unit))))
    assert count == (MAX_TEXT // len(unit) if "1+1=2" in unit else 0)
