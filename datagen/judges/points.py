"""Reading the points that a judge gives: lines `K7M helpful: 3`, as models write them.

Read are the lines of the form, with Markdown, a unit or a reason ("4 points", "4/5", "4 out of 5 (clear)"), aspects in
lists below a label, tables, and JSON of any layout that names labels and aspects. Under one aspect its name may be
missing. Of two numbers for one thing the last counts; one that is no number of points (a range, another scale, more
than can be had) makes it unknown. Numbers in sentences are not read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from datagen.errors import ParseError
from datagen.json_replies import listed_values, read_value
from datagen.parse import PLAIN
from datagen.records.record import Row
from datagen.schemas import Schema

Key = tuple[str, str]
"""Label and aspect."""
Points = dict[Key, float]
UNIT = r"(?:points?\b|pts\b|分)"
GAP = r"\s{0,8}"
POINTS = re.compile(
    rf"(?P<points>\d{{1,3}}(?:\.\d{{1,3}})?)(?![\d%]|\.\d){GAP}{UNIT}?{GAP}"
    rf"(?:(?:/|out of|of){GAP}(?P<top>\d{{1,4}})(?!\d))?{GAP}(?:{UNIT}|(?:of the )?statements?\b)?",
    re.IGNORECASE,
)
ENDING = re.compile(
    r"\s*(?:\Z|[.,;:!(\[\]})|\"'—]|[–-]\s(?!\s?\d)|(?:because|since|as|for|hold|are)\b|[^\w\s+/%<>=~～–-])",
    re.IGNORECASE,
)
"""What may follow points."""
BETWEEN = r"[\s\"'’()\[\],–-]{1,6}"
SCORE = r"(?:(?:score|points|rating|得分|分数)[\s\"']{0,3})?"
SEPARATOR = r"[\s\"')\]]{0,6}[:=|]{1,2}[\s\"'(\[$]{0,6}"
START = r"(?:[\s>+•—–({\[\"-]|\d{1,2}[.)](?!\d)|answer\b|回答)*"
"""What a line may begin with."""
NAMED_POINTS = ("points", "score", "rating")
MOST_VALUES = 10_000
"""Values of a JSON reply that are looked at."""


class Entry(NamedTuple):
    """Points in a reply; `start` is their place in the text, None in JSON."""

    value: float | None
    start: int | None


class Names:
    """The patterns of one call's labels and aspects.

    Args:
        labels: The labels of the answers.
        most: Aspect to the most points that it allows.
    """

    def __init__(self, labels: Sequence[str], most: Mapping[str, int]) -> None:
        self.most = most
        self.labels = {label.lower(): label for label in labels}
        self.aspects = {words(aspect): aspect for aspect in most}
        label = f"(?<![a-z0-9])({'|'.join(map(re.escape, labels))})(?![a-z0-9])"
        aspect = "|".join(r"[\s-]{1,3}".join(map(re.escape, name.split())) for name in self.aspects)
        self.only = next(iter(most)) if len(most) == 1 else None
        """The aspect that a label alone means."""
        self.label = re.compile(label, re.IGNORECASE)
        self.heading = re.compile(rf"{START}{label}[\s\"')\]:{{]{{0,9}}\Z", re.IGNORECASE)
        self.whole = re.compile(
            rf"{label}(?:{BETWEEN}|:\s{{0,3}})({aspect})(?:\s{{0,3}}{SCORE}{SEPARATOR}|\s(?=\d))", re.IGNORECASE
        )
        self.aspect = re.compile(rf"{START}({aspect})\s{{0,3}}{SCORE}{SEPARATOR}", re.IGNORECASE)
        self.alone = re.compile(rf"{START}{label}\s{{0,3}}{SCORE}{SEPARATOR}", re.IGNORECASE)

    def label_of(self, value: object) -> str | None:
        """Return the label that a text is, if it is one."""
        return self.labels.get(value.strip().lower()) if isinstance(value, str) else None

    def aspect_of(self, value: str) -> str | None:
        """Return the aspect that a text names, if it does."""
        return self.aspects.get(words(value))


def words(name: str) -> str:
    """Write a name in lower case, with single blanks for hyphens and underscores."""
    return " ".join(re.split(r"[\s_-]+", name.lower().strip()))


def read_points(text: str, labels: Sequence[str], most: Mapping[str, int], schema: Schema | None = None) -> Points:
    """Read the points of every answer under every aspect.

    Args:
        text: A judge's reply.
        labels: The labels of the answers.
        most: Aspect to the most points that it allows.
        schema: Of the JSON that was asked for. Other layouts and lines are read all the same where a judge writes them.

    Raises:
        ParseError: Some points are missing.
    """
    if schema:
        try:
            return points_of(read_value(text, schema).value["answers"], labels, most)
        except ParseError:
            pass
    entries = find_points(text, labels, most)
    known = {key: one.value for key, one in entries.items() if one.value is not None}
    missing = [f"{label} {aspect}" for label in labels for aspect in most if (label, aspect) not in known]
    if missing:
        raise ParseError(f"no points for {', '.join(missing)}")
    return known


def points_of(answers: Sequence[Row], labels: Sequence[str], most: Mapping[str, int]) -> Points:
    """Return the points of every answer under every aspect; of two for one answer the last counts.

    Raises:
        ParseError: An answer is missing.
    """
    by_label = {str(answer["answer"]).strip().lower(): answer["points"] for answer in answers}
    missing = [label for label in labels if label.lower() not in by_label]
    if missing:
        raise ParseError(f"no points for {', '.join(missing)}")
    return {(label, aspect): float(by_label[label.lower()][aspect]) for label in labels for aspect in most}


def find_points(text: str, labels: Sequence[str], most: Mapping[str, int]) -> dict[Key, Entry]:
    """Find the last points for each answer and aspect in lines, and where there are none, in JSON.

    The arguments are those of `read_points`.
    """
    names = Names(labels, most)
    entries = dict(points_in_lines(text.translate(PLAIN), names))
    if len(entries) < len(labels) * len(most) and "{" in text:
        return {key: Entry(value, None) for key, value in points_in_json(listed_values(text), names)}
    return entries


def points_in_lines(plain: str, names: Names) -> Iterator[tuple[Key, Entry]]:
    """Yield the points in the lines of a text whose signs are plain."""
    label, columns = None, dict[int, str]()
    for line in re.finditer(r"[^\n]+", plain):
        if heading := names.heading.match(line[0]):
            label = names.labels[heading[1].lower()]
        elif line[0].count("|") > 1 and not names.whole.search(line[0]):
            columns = columns_of(line[0], names) or columns
            entries = points_in_row(line[0], columns, names)
        else:
            entries = points_in_line(line[0], label, names)
        for key, at in () if heading else entries:
            yield key, points_at(line, at, names.most[key[1]], names)


def points_in_line(line: str, label: str | None, names: Names) -> list[tuple[Key, int]]:
    """Return where points stand in a line: behind label and aspect, behind an aspect below a label, or, under one
    aspect, behind a label alone."""
    matches = [*names.whole.finditer(line)]
    entries = [((names.labels[one[1].lower()], names.aspects[words(one[2])]), one.end()) for one in matches]
    below, alone = names.aspect.match(line), names.alone.match(line)
    if below and label and not entries:
        entries = [((label, names.aspects[words(below[1])]), below.end())]
    elif alone and names.only and not entries:
        entries = [((names.labels[alone[1].lower()], names.only), alone.end())]
    return [(key, at) for key, at in entries if line[at : at + 1].isdecimal()]


def columns_of(row: str, names: Names) -> dict[int, str]:
    """Return the columns of a table that hold points, by their aspects, if the row is its head."""
    if names.label.search(row):
        return {}
    aspects = {at: names.aspect_of(cell) for at, cell in enumerate(row.split("|"))}
    return {at: aspect for at, aspect in aspects.items() if aspect}


def points_in_row(row: str, columns: Mapping[int, str], names: Names) -> list[tuple[Key, int]]:
    """Return where points stand in a row of a table: below their aspects, or as its only number."""
    cells = row.split("|")
    label = next(filter(None, map(names.label_of, cells)), None)
    aspect = next(filter(None, map(names.aspect_of, cells)), names.only)
    numbers = [at for at, cell in enumerate(cells) if cell.strip()[:1].isdecimal()]
    if not columns and aspect and len(numbers) == 1:
        columns = {numbers[0]: aspect}
    places = accumulate((len(cell) + 1 for cell in cells), initial=0)
    starts = [place + len(cell) - len(cell.lstrip()) for place, cell in zip(places, cells, strict=False)]
    return [((label, name), starts[at]) for at, name in columns.items() if label and at in numbers]


def points_at(line: re.Match[str], at: int, most: int, names: Names) -> Entry:
    """Read the points at a place of a line; the value is None if what stands there is no number of points."""
    match = POINTS.match(line[0], at)
    value = number_of(match, most) if match else None
    if match and not ENDING.match(line[0], match.end()) and not names.label.match(line[0][match.end() :].lstrip()):
        value = None
    return Entry(value, line.start() + at)


def number_of(match: re.Match[str], most: int) -> float | None:
    """Return the number of points; None if it is higher than can be had, or of another scale."""
    value = float(match["points"])
    return value if value <= most and int(match["top"] or most) == most else None


def points_in_json(values: Sequence[Any], names: Names) -> Iterator[tuple[Key, float | None]]:
    """Yield the points in JSON values: numbers under a label and an aspect, in any layout."""
    stack: list[tuple[Any, str | None]] = [(value, None) for value in reversed(values)]
    for _ in range(MOST_VALUES):
        if not stack:
            return
        value, label = stack.pop()
        if isinstance(value, list):
            stack += [(one, label) for one in reversed(value)]
        elif isinstance(value, dict):
            label = next(filter(None, map(names.label_of, value.values())), label)
            for key, inner in reversed(value.items()):
                if isinstance(inner, dict | list):
                    stack.append((inner, names.label_of(key) or label))
                elif at := key_of(key, label, names):
                    yield at, json_number(inner, names.most[at[1]])


def key_of(key: str, label: str | None, names: Names) -> Key | None:
    """Return which points a key of JSON names, below a label or with one of its own."""
    own, _, rest = key.strip().partition(" ")
    label, rest = (names.label_of(own), rest) if names.label_of(own) else (label, key)
    named = not rest or words(rest) in NAMED_POINTS
    aspect = names.aspect_of(rest) or (names.only if named else None)
    return (label, aspect) if label and aspect else None


def json_number(value: object, most: int) -> float | None:
    """Return the points of a JSON value: a number, or a text that is one."""
    match = POINTS.fullmatch(str(value).strip()) if isinstance(value, int | float | str) else None
    return number_of(match, most) if match else None
