"""Which texts are a number and which are not, and that no text takes long."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.verify.numbers import MAX_LENGTH, parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        (" 18. ", "18"),
        ("145.0", "145"),
        (".5", "1/2"),
        ("-.5", "-1/2"),
        ("+7", "7"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("- 5", "-5"),
        ("1,234", "1234"),
        ("1,234,567.89", "123456789/100"),
        ("1 234 567", "1234567"),
        ("1\u202f234", "1234"),
        ("１，２３４．５", "2469/2"),
        ("$18.00", "18"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("US$5", "5"),
        ("€5", "5"),
        ("￥１８", "18"),
        ("18 dollars", "18"),
        ("3km", "3"),
        ("3 km", "3"),
        ("18 miles per hour", "18"),
        ("9.8 m/s^2", "49/5"),
        ("9.8 m/s²", "49/5"),
        ("12 cm2", "12"),
        ("90°", "90"),
        ("18%", "18"),
        ("18 %", "18"),
        ("18 percent", "18"),
        ("3/4", "3/4"),
        ("6/8 of the cake", "3/4"),
        ("-3/4", "-3/4"),
        ("1 1/2", "3/2"),
        ("1 and 1/2", "3/2"),
        ("-1 1/2", "-3/2"),
        ("1½ cups", "3/2"),
        ("½", "1/2"),
        ("1,000/3", "1000/3"),
        ("1e5", "100000"),
        ("1.5E-3", "3/2000"),
        ("3 × 10^8", "300000000"),
        ("3 x 10**8 m/s", "300000000"),
        (r"3 \times 10^{-2}", "3/100"),
        (r"\frac{3}{4}", "3/4"),
        (r"-\dfrac{3}{4}", "-3/4"),
        (r"1\frac{1}{2}", "3/2"),
        (r"\$1{,}234", "1234"),
        (r"18\%", "18"),
        (r"18\text{ dollars}", "18"),
        (r"90^\circ", "90"),
        (r"\(18\)", "18"),
        ("$18$", "18"),
        ("**18**", "18"),
        ("(5)", "5"),
        ("x = 5", "5"),
        ("4 + 5 = 9", "9"),
        ("total cost = $9", "9"),
        ("about 18", "18"),
        ("a total of 18 eggs", "18"),
        ("2 million", "2000000"),
        ("1.5 billion people", "1500000000"),
        ("3 dozen eggs", "36"),
        ("5k", "5000"),
        ("300 K", "300"),
        ("3万", "30000"),
        ("1.5亿元", "150000000"),
        ("2万亿", "2000000000000"),
        ("3千", "3000"),
        ("3千克", "3"),
        ("5千米", "5"),
        ("18元", "18"),
        ("约18个", "18"),
        ("一共18个。", "18"),
        ("百分之20", "20"),
    ],
)
def test_a_number_is_read_whatever_stands_around_it(text: str, number: str) -> None:
    assert parse_number(text) == Fraction(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "eighteen",
        "-",
        ".",
        "$",
        "1,2",
        "1,23",
        "1,2345",
        "1.234,56",
        "1.2.3",
        "5 3",
        "5 feet 3",
        "5 or 6",
        "5 and six",
        "10-15",
        "5 ± 1",
        "12/14/1937",
        "2019-11-12",
        "5:30",
        "5 am",
        "5 p.m.",
        "5 May",
        "May 5",
        "Room 12",
        "Apollo 11",
        "COVID-19",
        "x1",
        "5x",
        "5 x",
        "2π",
        "√2",
        "sqrt(2)",
        "x > 5",
        "x != 5",
        "x ≠ 5",
        "x >= 5",
        "x = 1, y = 2",
        "y = 2x + 3",
        "17 because 9*2 = 18",
        "less than 5",
        "not 5",
        "3 tenths",
        "5/0",
        "1e999999999",
        "1e9999",
        "3 × 10^99999",
        "٣",
        "５²３",
        "5²",
        "5³ m",
        "5 words that go on and on without any end",
        "NaN",
        "inf",
        "0x10",
        "__import__('os')",
    ],
)
def test_what_is_not_one_number_is_none(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize("unit", ["9", " ", "1 ", "1,", "("])
def test_a_text_too_long_for_a_number_is_not_looked_at(unit: str) -> None:
    assert parse_number(unit * 10_000_000) is None
    assert parse_number("9" * MAX_LENGTH) == int("9" * MAX_LENGTH) and parse_number("9" * (MAX_LENGTH + 1)) is None


@pytest.mark.parametrize("unit", list("09 ,.-+$(/\\{%e=*x^a万½　"))
def test_no_short_text_takes_long(unit: str) -> None:
    """Every pattern sees MAX_LENGTH characters at most; a pattern that backtracks would still hang here."""
    for end in ("", "!", "x", "1"):
        parse_number((unit * MAX_LENGTH)[: MAX_LENGTH - 1] + end)
        parse_number((f"1{unit}" * MAX_LENGTH)[: MAX_LENGTH - 1] + end)


INTEGERS = st.integers(-(10**30), 10**30)


FORMS = ("{}", "{:,}", "{}.0", "${}", "{} apples", "**{}**", "about {:,} km", "x = {}", "{}%")


@given(INTEGERS, st.sampled_from(FORMS))
def test_a_whole_number_survives_its_format(number: int, form: str) -> None:
    assert parse_number(form.format(number)) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12))
def test_a_decimal_survives_its_format(number: Decimal) -> None:
    for form in ("{:f}", "{:,f}", "{:E}", "${:,f}", "{:f} kg"):
        assert parse_number(form.format(number)) == Fraction(number)


@given(st.fractions(-(10**9), 10**9), st.sampled_from(["{} / {}", "{}/{} cups", r"\frac{{{}}}{{{}}}"]))
def test_a_fraction_survives_its_format(number: Fraction, form: str) -> None:
    assert parse_number(form.format(number.numerator, number.denominator)) == number


@given(st.integers(1, 999), st.integers(1, 98), st.sampled_from(["", "-"]))
def test_a_mixed_number_is_its_whole_and_its_fraction(whole: int, top: int, sign: str) -> None:
    expected = (whole + Fraction(top, 99)) * (-1 if sign else 1)
    assert parse_number(f"{sign}{whole} {top}/99") == parse_number(rf"{sign}{whole}\frac{{{top}}}{{99}}") == expected


@given(st.text(max_size=250))
def test_any_text_is_a_number_or_none(text: str) -> None:
    assert isinstance(parse_number(text), Fraction | None)
