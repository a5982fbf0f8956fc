"""Charts as SVG: text, so that a diff shows what changed, and any browser shows it.

`plot` and `page` make a file of its own, with its colours as attributes. In a page of HTML (`chart`), a style sheet
replaces the colours by class: `ink` for text, `axis` for frames, `c0`, `c1` ... for what is drawn.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

WIDTH, HEIGHT = 740, 220
LEFT, RIGHT, TOP, BOTTOM = 72, 176, 28, 28
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989", "#1b7c83")
LINE = 13
"""Pixels between the names of two curves."""
BARS_WIDTH, BARS_HEIGHT = 340, 150
SIDE, ABOVE, BELOW = 12, 16, 22
"""Pixels around the bars."""
COLUMN, LABELS = 96, 34
"""Pixels of a group in a chart of intervals, and left of the first."""
Points = Sequence[tuple[float, float]]


class Group(NamedTuple):
    """A group of values in a chart of intervals."""

    name: str
    counts: Mapping[int, int]
    """Value to how often it occurs."""
    mean: float
    low: float | None
    high: float | None


def plot(title: str, curves: Mapping[str, Points]) -> str:
    """Draw curves over one pair of axes as an SVG group, WIDTH by HEIGHT pixels; each has its name at its end."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    (x0, x1), (y0, y1) = (_range([p[axis] for p in points]) for axis in (0, 1))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (point[0] - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - (point[1] - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    placed = {name: [place(point) for point in curve] for name, curve in curves.items() if curve}
    heights = _apart([curve[-1][1] for curve in placed.values()])
    lines = [_curve(name, curve, heights[i], i % len(COLOURS)) for i, (name, curve) in enumerate(placed.items())]
    axes = [_label(LEFT - 6, place((x0, y))[1] + 4, f"{y:.3g}", "end") for y in (y0, (y0 + y1) / 2, y1)]
    axes += [_label(place((x, y0))[0], HEIGHT - 8, f"{x:.4g}", "middle") for x in (x0, x1)]
    frame = _path(f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", "axis", "#8c959f")
    return "\n".join([f"<g>{_label(LEFT, 16, title, 'start', bold=True)}", frame, *axes, *lines, "</g>"])


def page(plots: Sequence[str]) -> str:
    """Put plots below each other in one SVG file."""
    drawn = [group for group in plots if group]
    height = HEIGHT * max(1, len(drawn))
    groups = "\n".join(f'<g transform="translate(0 {HEIGHT * i})">{group}</g>' for i, group in enumerate(drawn))
    style = 'font-family="system-ui, sans-serif" font-size="11" fill="#24292f"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'{head} {style}>\n<rect width="100%" height="100%" fill="white"/>\n{groups}\n</svg>\n'


def chart(group: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Put a group into a page of HTML, as a picture of so many pixels."""
    return (
        f'<svg class="chart" role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}">{group}</svg>'
    )


def bars(title: str, heights: Sequence[float], ticks: Mapping[float, str], colour: int = 0) -> str:
    """Draw bars side by side, as a picture of BARS_WIDTH by BARS_HEIGHT pixels.

    Args:
        title: What is counted.
        heights: Of the bars; the largest one has the whole height, and its number above.
        ticks: The place of a bar, as a number from 0 on, to the label below its left edge.
        colour: The class of the bars.
    """
    step = (BARS_WIDTH - 2 * SIDE) / len(heights)
    floor, top = BARS_HEIGHT - BELOW, max(heights) or 1
    shapes = []
    for place, height in enumerate(heights):
        pixels = height / top * (floor - 2 * ABOVE)
        x, width = SIDE + place * step, max(step - 1, 0.5)
        if height:
            shapes.append(_box(x, floor - max(pixels, 1), width, max(pixels, 1), colour))
    labels = [_label(_within(SIDE + place * step), BARS_HEIGHT - 6, text, "middle") for place, text in ticks.items()]
    highest = heights.index(max(heights))
    labels.append(_label(_within(SIDE + (highest + 0.5) * step), 2 * ABOVE - 3, f"{heights[highest]:,.4g}", "middle"))
    frame = _path(f"M{SIDE} {floor}H{BARS_WIDTH - SIDE}", "axis", "#8c959f")
    group = "".join([_label(SIDE, 11, title, "start", bold=True), *shapes, frame, *labels])
    return chart(group, BARS_WIDTH, BARS_HEIGHT)


def intervals(title: str, groups: Sequence[Group], low: int, high: int) -> str:
    """Draw groups of whole numbers side by side: how often each occurs as bars to both sides, the mean as a point, its
    interval as a line, and a line through the means.

    Args:
        title: What the numbers are.
        groups: At least one.
        low: The smallest number on the axis.
        high: The largest one.
    """
    floor, unit = HEIGHT - BOTTOM, (HEIGHT - TOP - BOTTOM) / (high - low + 1)

    def level(value: float) -> float:
        return floor - (value - low + 0.5) * unit

    marks = [_label(LABELS - 8, level(value) + 4, str(value), "end") for value in range(low, high + 1, 3)]
    frame = _path(f"M{LABELS} {TOP}V{floor}H{LABELS + COLUMN * len(groups)}", "axis", "#8c959f")
    shapes, names, means = [], [], []
    for place, group in enumerate(groups):
        x, most = LABELS + (place + 0.5) * COLUMN, max(group.counts.values())
        for value, count in group.counts.items():
            half = count / most * (COLUMN / 2 - 12)
            shapes.append(_box(x - half, level(value) - unit / 2 + 0.5, 2 * half, unit - 1, 0, "soft"))
        if group.low is not None and group.high is not None:
            shapes.append(_path(f"M{x:.1f} {level(group.low):.1f}V{level(group.high):.1f}", "c1", COLOURS[1], 3))
        means.append((x, level(group.mean)))
        names += [_label(x, HEIGHT - 8, group.name, "middle")]
        names += [_label(x + 8, level(group.mean) - 6, f"{group.mean:.2f}", "start", bold=True)]
    line = _path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in means), "c1", COLOURS[1])
    dots = [f'<circle class="c1" cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS[1]}"/>' for x, y in means]
    group_text = "".join([_label(SIDE, 14, title, "start", bold=True), *shapes, frame, *marks, line, *dots, *names])
    return chart(group_text, LABELS + COLUMN * len(groups) + SIDE, HEIGHT)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _within(x: float) -> float:
    """Keep the middle of a label so far from the edges that it is not cut off."""
    return min(max(x, SIDE + 6), BARS_WIDTH - SIDE - 8)


def _apart(heights: Sequence[float]) -> list[float]:
    """Move names that would overlap down, and those that would then leave the picture up again."""
    moved, floor = list(heights), float(HEIGHT - BOTTOM)
    order = sorted(range(len(moved)), key=lambda i: moved[i])
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + LINE)
    for i in reversed(order):
        moved[i] = min(moved[i], floor)
        floor = moved[i] - LINE
    return moved


def _curve(name: str, places: Points, height: float, number: int) -> str:
    """Draw one curve, with its name behind its end, at the given height."""
    x, y = places[-1]
    end = f'<circle class="c{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{COLOURS[number]}"/>'
    label = _label(x + 8, height + 4, name, "start", colour=number)
    line = _path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places), f"c{number}", COLOURS[number])
    return f"{line}{end}{label}"


def _path(path: str, name: str, colour: str, width: float = 1.5) -> str:
    return f'<path class="{name}" d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _box(x: float, y: float, width: float, height: float, number: int, *more: str) -> str:
    names, colour = " ".join([f"c{number}", *more]), COLOURS[number]
    return f'<rect class="{names}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _label(x: float, y: float, text: str, anchor: str, *, bold: bool = False, colour: int | None = None) -> str:
    weight = ' font-weight="600"' if bold else ""
    name, fill = ("ink", "#24292f") if colour is None else (f"c{colour}", COLOURS[colour])
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{name}" {place} fill="{fill}"{weight}>{escape(text)}</text>'
