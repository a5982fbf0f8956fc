"""The process of algebra.py: compares formulas with math-verify and sympy.

math-verify compares generously, and returns False for whatever it cannot prove equal, also where it has dropped a part
of the text. So it sees formulas of a closed grammar alone (formulas.py), and False needs a witness: a point at which
two expressions have other values, an element of one set that is not in the other. Neither, or both, is None.
"""

import sys
from typing import Any

from datagen.subprocesses import Row, serve

FLOAT_TOLERANCE, TOLERANCE = 0.02, 1e-9
"""Relative: a decimal may be rounded, what is written exactly is not."""
STEP = 997
"""Points beside the ends of a set are 1 / STEP away."""


def compare(request: Row) -> Row:
    """Return the verdict on two formulas, in the process."""
    one, other = map(read_formula, request["formulas"])
    if one is None or other is None or not comparable(one, other):
        return {"verdict": None}
    from math_verify import verify

    equal = verify(other, one, timeout_seconds=None) or verify(one, other, timeout_seconds=None)
    different = differ(one, other)
    return {"verdict": None if equal == different else equal}


def read_formula(formula: str) -> Any:
    """Return a formula as an object of sympy; None where it cannot be read."""
    from math_verify import LatexExtractionConfig, parse
    from sympy import EmptySet

    objects = parse(f"${formula}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    if len(objects) != 1 or (objects[0] == EmptySet and "emptyset" not in formula):  # [3, 1) has no element
        return None
    return objects[0]


def comparable(one: Any, other: Any) -> bool:
    """Return whether an equation is compared with an equation, or gives a value to a name: x = 5 and 5."""
    from sympy import Eq

    is_equation = [isinstance(side, Eq) for side in (one, other)]
    names = [side.lhs.is_Symbol for side, equation in zip((one, other), is_equation, strict=True) if equation]
    return all(is_equation) or all(names)


def differ(one: Any, other: Any) -> bool:
    """Return whether two objects are shown to differ; False is no proof that they are equal."""
    from sympy import Eq, Expr, FiniteSet, MatrixBase, Set, Tuple
    from sympy.logic.boolalg import Boolean

    if isinstance(one, Eq) and not isinstance(other, Eq):
        return one.lhs.is_Symbol and differ(one.rhs, other)
    if isinstance(other, Eq) and not isinstance(one, Eq):
        return differ(other, one)
    if isinstance(one, Boolean) and isinstance(other, Boolean):
        return relations_differ(one, other)
    if isinstance(one, Expr) and isinstance(other, Expr):
        return expressions_differ(one, other)
    if isinstance(one, MatrixBase) and isinstance(other, MatrixBase):
        return one.shape != other.shape or any(map(differ, one.flat(), other.flat()))
    if isinstance(one, Tuple) and isinstance(other, Tuple):
        return len(one) != len(other) or any(map(differ, one, other))
    if isinstance(one, FiniteSet) and isinstance(other, FiniteSet):
        return lacks(one, other) or lacks(other, one)
    return isinstance(one, Set) and isinstance(other, Set) and sets_differ(one, other)


def relations_differ(one: Any, other: Any) -> bool:
    """Return whether two equations or inequalities of the same name have other solutions."""
    from sympy import Eq

    if isinstance(one, Eq) and isinstance(other, Eq) and one.lhs.is_Symbol and other.lhs.is_Symbol:
        return one.lhs.name == other.lhs.name and differ(one.rhs, other.rhs)
    names = {symbol.name for side in (one, other) for symbol in side.free_symbols}
    return len(names) == 1 and sets_differ(one.as_set(), other.as_set())


def expressions_differ(one: Any, other: Any) -> bool:
    """Return whether two expressions have other values at one of three points."""
    from sympy import Float, Rational

    names = [{symbol.name for symbol in side.free_symbols} for side in (one, other)]
    if not (names[0] <= names[1] or names[1] <= names[0]):
        return False  # 2n + 1 and 2k + 1 may mean the same
    rounded = one.has(Float) or other.has(Float)
    for point in range(3):
        values = {
            name: Rational(7 * at + 5 * point + 3, 6 + point) for at, name in enumerate(sorted(set.union(*names)))
        }
        first, second = (value_at(side, values) for side in (one, other))
        scale = max(abs(first), abs(second), 1e-300)
        if abs(first - second) > (FLOAT_TOLERANCE if rounded else TOLERANCE) * scale:
            return True  # no comparison with a NaN is true
    return False


def value_at(expression: Any, values: dict[str, Any]) -> complex:
    """Return the value of an expression where its symbols have values; NaN if it has none."""
    point = {symbol: values[symbol.name] for symbol in expression.free_symbols}
    try:
        return complex(expression.subs(point).doit().evalf(30))
    except (TypeError, ValueError, OverflowError):
        return complex("nan")


def lacks(one: Any, other: Any) -> bool:
    """Return whether an element of a finite set differs from all of another."""
    return any(all(differ(element, candidate) for candidate in other) for element in one)


def sets_differ(one: Any, other: Any) -> bool:
    """Return whether a point at, or beside, the ends of two sets of numbers is in one of them alone."""
    from sympy import Rational

    ends = [end for side in (one, other) for end in (side if side.is_FiniteSet else side.boundary)]
    points = [end + step for end in ends if end.is_finite for step in (0, Rational(1, STEP), Rational(-1, STEP))]
    inside = [[side.contains(point) for side in (one, other)] for point in points]
    return any(first in (True, False) and second in (True, False) and first != second for first, second in inside)


if __name__ == "__main__":
    import logging

    import math_verify  # noqa: F401  the limit is for a pair, not for the import

    logging.disable(logging.CRITICAL)  # it warns that there is no timeout
    serve(compare, float(sys.argv[1]))
