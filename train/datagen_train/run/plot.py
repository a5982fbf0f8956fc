"""Curves as SVG: text, so that a diff shows what changed, and any browser shows it."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 740, 220
LEFT, RIGHT, TOP, BOTTOM = 72, 176, 28, 28
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989", "#1b7c83")
LINE = 13
"""Pixels between the names of two curves."""
Points = Sequence[tuple[float, float]]


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
    lines = [
        _curve(name, curve, heights[i], COLOURS[i % len(COLOURS)]) for i, (name, curve) in enumerate(placed.items())
    ]
    axes = [_label(LEFT - 6, place((x0, y))[1] + 4, f"{y:.3g}", "end") for y in (y0, (y0 + y1) / 2, y1)]
    axes += [_label(place((x, y0))[0], HEIGHT - 8, f"{x:.4g}", "middle") for x in (x0, x1)]
    frame = f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#8c959f"/>'
    return "\n".join([f"<g>{_label(LEFT, 16, title, 'start', bold=True)}", frame, *axes, *lines, "</g>"])


def page(plots: Sequence[str]) -> str:
    """Put plots below each other in one SVG file."""
    drawn = [group for group in plots if group]
    height = HEIGHT * max(1, len(drawn))
    groups = "\n".join(f'<g transform="translate(0 {HEIGHT * i})">{group}</g>' for i, group in enumerate(drawn))
    style = 'font-family="system-ui, sans-serif" font-size="11" fill="#24292f"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'{head} {style}>\n<rect width="100%" height="100%" fill="white"/>\n{groups}\n</svg>\n'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


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


def _curve(name: str, places: Points, height: float, colour: str) -> str:
    """Draw one curve, with its name behind its end, at the given height."""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    x, y = places[-1]
    end = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
    label = _label(x + 8, height + 4, name, "start", colour=colour)
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>{end}{label}'


def _label(x: float, y: float, text: str, anchor: str, *, bold: bool = False, colour: str = "#24292f") -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'
