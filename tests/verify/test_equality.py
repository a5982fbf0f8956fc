"""Two answers are the same, other ones, or not understood: never False for equal ones, never True for other ones."""

import random
from collections.abc import Iterator
from fractions import Fraction
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datagen.subprocesses import LineProcess, ProcessEnded
from datagen.verify.algebra import PROCESS, same_formula
from datagen.verify.equality import same_answer
from datagen.verify.formulas import MAX_LENGTH, canonical

SAME = [
    (r"\frac12", r"\frac{1}{2}"),
    (r"\tfrac14", "0.25"),
    (r"2 \sqrt{2}", r"2\sqrt{2}"),
    (r"\left(1, 2\right)", "(1,2)"),
    ("x^2 + x", "x^2+x"),
    ("3 : 4", "6:8"),
    ("2^{10}", "1024"),
    ("10^5", "100,000"),
    (r"\dfrac{\pi}{3}", r"\frac{\pi}{3}"),
    ("50%", "0.5"),
    (r"50\%", "50"),
    ("3 km", "3000 m"),
    ("2 hours", "120 minutes"),
    ("18 eggs", "18"),
    (r"1\frac{1}{2}", "3/2"),
    ("yes", "True"),
    ("Paris", "paris."),
    (r"12\text{ cm}", "12"),
]
OTHER = [
    (r"\frac12", r"\frac13"),
    ("(1,2)", "(2,1)"),
    ("[1,2)", "[1,3)"),
    ("3 : 4", "4:3"),
    ("50%", "0.6"),
    ("3 km", "30 m"),
    ("18", "18.5"),
    ("yes", "False"),
    ("(B)", "(C)"),
    ("Paris", "London"),
    ("oven stove", "stove oven"),
    ("2^{10}", "1023"),
    ("12", "13"),
]
UNREAD = [
    ("B. Tallinn", "Tallinn"),
    ("eighteen", "18"),
    ("USA", "United States of America"),
    ("Paris, France", "Paris"),
    ("0.33", "1/3"),
    ("120 minutes", "2"),
    ("3 km", "3 kg"),
    ("10:30", "21:63"),
    ("3-1", "4-2"),
    ("[1, 2]", "(1, 2)"),
    ("x = 5 or so", "5"),
    ("the set of all primes", r"\{2, 3\}"),
    ("9^9^9^9", "3"),
    ("5!!!!", "3"),
    ("f'(x)", "f(x)"),
    ("2R", "2r"),
    ("1 2", "3"),
    ("1 2", "12"),
    (r"\input{/etc/passwd}", "3"),
]


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [(*pair, verdict) for pairs, verdict in ((SAME, True), (OTHER, False), (UNREAD, None)) for pair in pairs],
)
def test_a_verdict_needs_both_sides_to_be_understood(answer: str, reference: str, verdict: bool | None) -> None:
    assert same_answer(answer, reference) is verdict
    assert same_answer(reference, answer) is verdict


@example("a a()")
@example("s i n x")
@example("p i")
@given(st.text(alphabet="0123456789xyXY+-*/^=<>()[]{}|,;!_\\ $%:.'frackmqtsopil", max_size=30))
def test_a_text_is_never_unlike_itself_and_its_canonical_form_is_one(text: str) -> None:
    assert same_answer(text, f" {text} ") is not False
    formula = canonical(text)
    assert formula is None or canonical(formula) == formula
    assert canonical(f"{text or 'x'}+{'1+' * MAX_LENGTH}1") is None


def test_a_formula_that_does_not_end_is_given_up_and_the_next_one_is_read() -> None:
    """In a thread, as a server or a trainer calls it: an alarm would not work there."""
    process = LineProcess("datagen.verify.algebra_process", 0.5)
    with pytest.raises(ProcessEnded) as ended:
        process.request({"formulas": ["((9^{999})^{999})^{999}", "x"]})
    assert ended.value.is_slow
    process.close()
    verdicts: list[bool | None] = []
    pairs = [
        ("x^{2}+1", "1+x^{2}"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\{1, 2\}", r"\{2, 1\}"),
        (r"\sqrt{2}", r"\sqrt{3}"),
    ]
    thread = Thread(target=lambda: verdicts.extend(same_formula(*pair) for pair in pairs))
    thread.start()
    thread.join()
    assert verdicts == [True, True, True, False]
    PROCESS.close()


def forms(rng: random.Random) -> Iterator[tuple[list[str], list[str]]]:
    """Yield forms of one answer, and answers that are others, by rule."""
    a, b, c = rng.randint(2, 9), rng.randint(11, 19), rng.randint(21, 99)
    value = Fraction(c, a * b)
    yield (
        [rf"\frac{{{c}}}{{{a * b}}}", f"{value}", rf"\dfrac{{{2 * c}}}{{{2 * a * b}}}", f"{c}/{a * b}"],
        [rf"\frac{{{c + 1}}}{{{a * b}}}", f"{a * b}/{c}"],
    )
    yield (
        [
            rf"{a}\sqrt{{{b}}}",
            rf"\sqrt{{{a * a * b}}}",
            rf"{a} \cdot \sqrt{{{b}}}",
            f"{a}√{b}",
            rf"\boxed{{{a}\sqrt{{{b}}}}}",
        ],
        [rf"{a + 1}\sqrt{{{b}}}", rf"\sqrt{{{a * b}}}"],
    )
    yield [f"{a}^{{{b}}}", str(a**b), f"{a}^{b}", f"{a**b:,}"], [f"{a}^{{{b + 1}}}", str(a**b + 1)]
    yield [rf"\{{{a}, {b}, {c}\}}", rf"\{{{c},{a},{b}\}}", rf"\left\{{{b},{c},{a}\right\}}"], [rf"\{{{a}, {b}\}}"]
    yield [f"[{a}, {b})", rf"\left[{a},{b}\right)", f"[{a},{b})"], [f"[{a}, {b}]", f"[{a}, {b + 1})"]
    yield (
        [rf"(-\infty, {a}] \cup [{b}, \infty)", rf"[{b},\infty)\cup(-\infty,{a}]"],
        [rf"(-\infty, {a}) \cup [{b}, \infty)"],
    )
    yield [f"({a}, {b})", rf"\left({a},{b}\right)", f"({a},{b})"], [f"({b}, {a})", f"({a}, {b}, {c})"]
    yield [f"{a}:{b}", f"{a} : {b}", f"{3 * a}:{3 * b}"], [f"{b}:{a}", f"{a}:{b + 1}"]
    yield [f"{c} km", f"{1000 * c} m", rf"{c}\text{{ km}}", str(c)], [f"{c + 1} km", f"{c} m"]
    yield [f"{c}%", rf"{c}\%", f"0.{c}", f"{c} percent"], [f"{c + 1}%", f"0.{c + 1}" if c < 99 else "0.5"]
    yield [rf"{a}\frac{{1}}{{2}}", f"{a} 1/2", f"{a}.5", f"{2 * a + 1}/2"], [rf"{a + 1}\frac{{1}}{{2}}", f"{a}.25"]
    yield [rf"{a}.{c} \times 10^{{4}}", f"{a}.{c}e4", f"{a}{c}00"], [rf"{a}.{c} \times 10^{{5}}", f"{a}{c}0"]
    yield [f"{c},{b}0,000", f"{c}{b}0000", f"{c},{b}0,000.0"], [f"{c}{b}00000"]
    yield [f"(x+{a})^2", f"x^2+{2 * a}x+{a * a}"], [f"(x-{a})^2", f"x^2+{2 * a}x+{a * a + 1}"]
    yield [f"y={a}x+{b}", f"y = {b} + {a}x"], [f"y={a}x-{b}", f"y={b}x+{a}"]
    yield [f"x > {a}", f"{a}<x"], [f"x < {a}", f"x > {a + 1}"]
    yield [rf"\frac{{{a}\pi}}{{{b}}}", rf"{a}\pi/{b}"], [rf"\frac{{{b}\pi}}{{{a}}}", rf"{a}\pi"]
    yield [r"\text{yes}", "Yes."], ["No", r"\text{no}"]


def pairs_of_forms() -> list[tuple[str, str, bool]]:
    """Return 500 pairs and whether they are equal."""
    rng, pairs = random.Random(7), list[tuple[str, str, bool]]()
    while len(pairs) < 500:
        for equal, others in forms(rng):
            first, second = rng.sample(equal, 2)
            pairs += [(first, second, True), (rng.choice(equal), rng.choice(others), False)]
    return pairs[:500]


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
def test_500_pairs_of_many_forms_have_no_wrong_verdict(quarter: int) -> None:
    """And what math-verify finds equal is not called another answer, but for units, which it drops: 3 km and 3 m."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    wrong, disagreements, unread = list[tuple[str, str]](), list[tuple[str, str]](), 0
    for answer, reference, equal in pairs_of_forms()[quarter::4]:
        verdict = same_answer(answer, reference)
        unread += verdict is None
        if verdict is not None and verdict != equal:
            wrong.append((answer, reference))
        sides = [parse(f"${side}$", parsing_timeout=None) for side in (reference, answer)]
        if verdict is False and "m" not in answer + reference and verify(*sides, timeout_seconds=None):
            disagreements.append((answer, reference))
    logging.disable(logging.NOTSET)
    assert (wrong, disagreements) == ([], [])
    assert unread < 12
