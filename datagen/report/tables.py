"""The tables of a page: the funnel, what it cost, and a method's own counts as x.meta.json holds them.

The counts of most methods are nested tables of numbers, which are shown as they are: a new method needs nothing here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from datagen.llm.prices import dollars
from datagen.records.record import Row

MOST_LINES = 40
"""Lines of a table; a server or a model may name any number of things."""
MOST_LETTERS = 120
"""Characters of a cell."""
SHARES = {
    "both_orders_agree": "both orders agree",
    "order_decides": "the order decides: a tie",
    "first_shown_preferred": "verdicts for the answer shown first",
    "chosen_longer": "chosen is the longer",
    "share": "share",
}
"""Numbers that are shares, and their names."""
NAMES = {
    "unjudged": "rows without a score",
    "unscored_answers": "other answers without a score",
    "unread": "replies unread",
    "rows": "rows judged",
    "ties": "first rank shared",
    "all": "pairs compared",
    "tied": "pairs tied",
    "best": "best of its row",
}
"""What the numbers of a judge are called in the terminal, too."""


@dataclass(frozen=True)
class PageTable:
    """A table: the first cell of a line names it, the others are numbers, or texts in the columns of `texts`."""

    title: str
    head: list[str]
    lines: list[list[str]]
    texts: frozenset[int] = frozenset()
    """Columns of text beside the first."""
    omitted: int = 0
    """Lines that are left out."""


@dataclass(frozen=True)
class Outcome:
    """One line of the funnel."""

    name: str
    status: str
    number: int
    share: float
    """Of what was asked for, in percent."""
    sentence: str


def table(title: str, head: list[str], lines: Iterable[list[str]], texts: Iterable[int] = ()) -> PageTable:
    """Make a table of at most MOST_LINES lines."""
    cells = [[cell if len(cell) <= MOST_LETTERS else f"{cell[:MOST_LETTERS]}…" for cell in line] for line in lines]
    return PageTable(title, head, cells[:MOST_LINES], frozenset(texts), max(0, len(cells) - MOST_LINES))


def outcomes(funnel: Row, sentence: Callable[[str], str | None]) -> list[Outcome]:
    """Return what became of the candidates: kept, then rejected and failed by reason, the most frequent first."""
    total = funnel["asked"] or 1
    reasons = [
        (status, name, number)
        for status in ("rejected", "failed")
        for name, number in sorted(funnel[status].items(), key=lambda item: (-item[1], item[0]))
    ]
    lines = [Outcome("kept", "kept", funnel["kept"], 100 * funnel["kept"] / total, "")]
    lines += [
        Outcome(name[:MOST_LETTERS], status, number, 100 * number / total, sentence(name) or "")
        for status, name, number in reasons[:MOST_LINES]
    ]
    if rest := sum(number for _, _, number in reasons[MOST_LINES:]):
        lines.append(Outcome("other reasons", "rejected", rest, 100 * rest / total, ""))
    return lines


def spending_tables(spending: list[Row]) -> list[PageTable]:
    """Return what was spent by role and model, and by round, where there are several."""
    roles = table(
        "Answers by role and model", ["role", "answers", "prompt tokens", "completion tokens", "cost", "model"],
        (
            [str(role), *spent, str(model)]
            for (role, model), spent in sums(spending, lambda part: (part["role"], part["model"]))
        ),
        texts=[5],
    )  # fmt: skip
    by_round = [part for part in spending if "round" in part]
    rounds = table(
        "Answers by round",
        ["round", "answers", "prompt tokens", "completion tokens", "cost"],
        ([str(number), *spent] for number, spent in sums(by_round, lambda part: part["round"])),
    )
    return [one for one in (roles, rounds) if one.lines]


def sums(spending: Iterable[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[str]]]:
    """Add up parts of the spending that have one key; return them as cells, in the order of the keys."""
    groups: dict[Any, list[float]] = {}
    for part in spending:
        total = groups.setdefault(key(part), [0, 0, 0, 0, 0])
        names = ("calls", "prompt_tokens", "completion_tokens", "cost", "unpriced")
        groups[key(part)] = [old + (part.get(name) or 0) for old, name in zip(total, names, strict=True)]
    return [
        (name, [*(f"{int(number):,}" for number in numbers[:3]), "unknown" if numbers[4] else dollars(numbers[3])])
        for name, numbers in sorted(groups.items())
    ]


def method_tables(counts: Row) -> list[PageTable]:
    """Return the tables of a method's own counts: `result.table` of x.meta.json."""
    if set(counts) >= {"rounds", "operators", "words"}:
        return round_tables(counts)
    if counts and all(isinstance(one, dict) and "figures" in one for one in counts.values()):
        return [agreement_table(one) for one in counts.values()]
    return [one for one in nested_tables("", counts) if one.lines]


def round_tables(counts: Row) -> list[PageTable]:
    """Return the tables of Evol-Instruct, as the terminal shows them."""
    names = {name for line in counts["rounds"].values() for name in line} - {"asked", "kept"}
    reasons = ["kept", *sorted(names)]

    def shares(line: Row) -> list[str]:
        return [f"{line['asked']:,}", *(f"{100 * line.get(name, 0) / line['asked']:.0f} %" for name in reasons)]

    rounds = table(
        "By round",
        ["round", "asked", *reasons, "words"],
        ([number, *shares(line), growth(counts, number)] for number, line in counts["rounds"].items()),
    )
    operators = table(
        "By operator",
        ["operator", "asked", *reasons],
        ([name, *shares(line)] for name, line in counts["operators"].items()),
    )
    return [rounds, operators]


def growth(counts: Row, number: str) -> str:
    """Return the mean words of a round's kept prompts, before and after."""
    words, kept = counts["words"].get(number, {}), counts["rounds"][number].get("kept", 0)
    return f"{words['before'] / kept:.0f} → {words['after'] / kept:.0f}" if words and kept else "-"


def agreement_table(check: Row) -> PageTable:
    """Return the table of `judge --check`."""
    title = f"Agreement of {' + '.join(map(str, check['judges']))} with people"
    lines = [
        [name, f"{figure['value']:.3f}", f"{figure['low']:.3f} to {figure['high']:.3f}"]
        for name, figure in check["figures"].items()
    ]
    lines += [["pairs", f"{check['pairs']:,}", ""], ["verdicts unread", f"{check['unread']:,}", ""]]
    return table(title, ["", "value", "95 %"], lines)


def nested_tables(title: str, counts: Mapping[str, Any]) -> list[PageTable]:
    """Return tables of nested counts: the plain values first, then each part."""
    if isinstance(agree := counts.get("both_orders_agree"), float):
        counts = {**counts, "order_decides": 1 - agree}
    plain = [[label(name), cell(name, value)] for name, value in counts.items() if not isinstance(value, dict)]
    own = table(title.capitalize(), ["", ""], [line for line in plain if line[1]])
    parts = [part for name, value in counts.items() if isinstance(value, dict) for part in part_tables(name, value)]
    return [own, *parts]


def part_tables(name: str, part: Mapping[str, Any]) -> list[PageTable]:
    """Return the tables of one part: a line for each of its own parts, if all of them are tables of numbers."""
    if name == "judges":  # of preferences: each with its check, if it has one
        lines = [[judge.rsplit(" ", 1)[0], accuracy(check)] for judge, check in part.items()]
        return [table("Judges", ["judge", "accuracy against people"], lines, texts=[1])]
    inner = [value for value in part.values() if isinstance(value, dict)]
    if not part or len(inner) < len(part) or any(isinstance(v, dict) for line in inner for v in line.values()):
        return nested_tables(label(name), part)
    columns = list(dict.fromkeys(column for line in inner for column in line if line[column] is not None))
    rates = [win_rate(line) for line in inner]
    head = [label(name).removesuffix("s"), *map(label, columns), *(["win rate"] if any(rates) else [])]
    lines = [
        [str(key), *(cell(column, line.get(column)) for column in columns), *([rate or "-"] if any(rates) else [])]
        for (key, line), rate in zip(part.items(), rates, strict=True)
    ]
    return [table(label(name).capitalize(), head, lines)]


def accuracy(check: Any) -> str:
    """Say how well a judge agrees with people, by its check."""
    figure = check["figures"].get("accuracy") if isinstance(check, dict) else None
    return f"{figure['value']:.3f}, {figure['low']:.3f} to {figure['high']:.3f}" if figure else "never checked"


def win_rate(line: Mapping[str, Any]) -> str | None:
    """Return the share of a model's comparisons that it won, a tie as half of one; None where it had none."""
    won, tied, lost = (line.get(name) for name in ("won", "tied", "lost"))
    if not all(isinstance(number, int) for number in (won, tied, lost)) or not won + tied + lost:  # type: ignore[operator]
        return None
    return f"{100 * (won + tied / 2) / (won + tied + lost):.1f} %"  # type: ignore[operator]


def label(name: str) -> str:
    """Return the name of a number in words."""
    return SHARES.get(name) or NAMES.get(name) or name.replace("_", " ")


def cell(name: str, value: Any) -> str:
    """Write a value of a table."""
    if value is None or isinstance(value, list | tuple):
        return ", ".join(map(str, value)) if value else "-"
    if name in SHARES and isinstance(value, int | float):
        return f"{100 * value:.1f} %"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
