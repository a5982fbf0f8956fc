"""The report of a run: readable curves, and what got worse is marked."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.report.plot import BOTTOM, HEIGHT, LINE, TOP, page, plot
from datagen_train.run.report import worse

SVG = "{http://www.w3.org/2000/svg}"
ENDS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


@given(ENDS)
def test_the_names_of_curves_never_cover_each_other_and_stay_in_the_picture(ends: list[float]) -> None:
    curves = {f"curve {i}": [(0.0, 1.0), (10.0, end)] for i, end in enumerate(ends)}
    document = ElementTree.fromstring(page([plot("loss", curves)]))
    names = [element for element in document.iter(f"{SVG}text") if str(element.text).startswith("curve")]
    heights = sorted(float(element.attrib["y"]) for element in names)
    assert len(heights) == len(ends)
    assert all(after - before >= LINE - 0.11 for before, after in pairwise(heights))
    assert heights[0] > TOP - LINE
    assert heights[-1] <= HEIGHT - BOTTOM + LINE


def test_names_in_a_picture_are_text_and_not_markup() -> None:
    assert "<b>" not in plot("a <b>", {"<b>": [(0, 1)]})
    assert page([plot("empty", {})]).count("<g") == 0


@pytest.mark.parametrize(
    ("name", "before", "after", "is_worse"),
    [
        ("eval_loss", 1.0, 2.0, True),
        ("eval_loss", 2.0, 1.0, False),
        ("eval_exact_match", 0.9, 0.8, True),
        ("eval_exact_match", 0.8, 0.8, False),
        ("reward", 0.1, 0.0, True),
        ("eval_kl", 0.0, 9.0, False),
    ],
)
def test_what_got_worse_is_marked(name: str, before: float, after: float, is_worse: bool) -> None:
    assert bool(worse(name, {name: before}, after)) == is_worse
    assert worse(name, {}, after) == ""
