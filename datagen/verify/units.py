"""Units of measure: which convert into each other, and by what factor.

Only what answers to word problems are given in. A unit that is not here is a word: it is compared as it is written.
"""

from fractions import Fraction

DIMENSIONS: tuple[dict[str, Fraction | int], ...] = (
    {"s sec second": 1, "min minute": 60, "h hr hour": 3600, "day": 86_400, "week": 604_800},
    {"month": 1, "year yr": 12, "decade": 120, "century": 1200},
    {
        "mm millimeter millimetre": 1,
        "cm centimeter centimetre": 10,
        "m meter metre": 1000,
        "km kilometer": 10**6,
    },
    {"in inch": 1, "ft foot feet": 12, "yd yard": 36, "mi mile": 63_360},
    {"mg milligram": 1, "g gram": 1000, "kg kilogram": 10**6, "t ton tonne": 10**9},
    {"oz ounce": 1, "lb pound": 16},
    {"ml milliliter millilitre": 1, "cl centiliter": 10, "l liter litre": 1000},
    {"cent penny": 1, "dollar buck usd": 100},
    {"degree deg": 1},
)
"""Names of a unit, in the singular, to its size in the smallest unit of its kind."""
IRREGULAR = {"inches": "inch", "pennies": "penny", "centuries": "century", "pence": "penny"}
UNITS = {
    name: (kind, Fraction(size))
    for kind, sizes in enumerate(DIMENSIONS)
    for names, size in sizes.items()
    for name in names.split()
}
"""The name of a unit to its kind and its size."""


def find_unit(words: str) -> tuple[int, Fraction] | None:
    """Return the kind and the size of a unit; None for other words, and for more than one."""
    return UNITS.get(words) or UNITS.get(IRREGULAR.get(words, words.removesuffix("s")))


def conversions(kind: int) -> set[Fraction]:
    """Return the factors between two units of a kind, both ways."""
    sizes = {size for one, size in UNITS.values() if one == kind}
    return {one / other for one in sizes for other in sizes if one != other}
