"""Sample rows in a page, each beside the rows that it was made from, and samples of what was rejected."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datagen.records.record import Row
from datagen.records.seen import short_digest
from datagen.report.lineage import Ancestry
from datagen.report.rows import CutText, Sample, positioned_rows, prompt_text, texts_of, unpacked
from datagen.report.text import Shown, shown

MOST_ANSWERS = 6
"""Answers of one row."""
MOST_REASONS, PER_REASON = 12, 2
"""Reasons with samples, the most frequent ones, and the samples of each."""
SHORT, SHORT_REST = 260, 600
"""Characters of the texts of rejected rows and of ancestors, as FIRST and REST in text.py."""
ROW = "row"
"""What made a row that does not say it."""
MOST_LETTERS = 100
"""Characters of what stands above the texts of a row, each: our own rows have fewer."""
Sentence = Callable[[str], str | None]


@dataclass(frozen=True)
class Card:
    """One row: what made it, and its texts."""

    title: str
    id: str
    notes: list[str]
    """What `meta` says in a word or two: the operator, the round, the model."""
    texts: list[tuple[str, Shown]]
    """Each with the name of its column, and with its score and rank where it has them."""
    is_own: bool = False
    """Whether it is the row itself, or an answer of it, and no row that it was made from."""


@dataclass(frozen=True)
class SampleRow:
    """A row behind the rows that it was made from, its seed first."""

    path: list[str]
    """What made each of these rows, and the row."""
    cards: list[Card]
    """Those with a prompt of their own, and the row: several answers have a card each."""


@dataclass(frozen=True)
class RejectedGroup:
    """Samples of the rows that one rule rejected, or one error."""

    reason: str
    status: str
    number: int
    sentence: str
    cards: list[Card]


def fitting(samples: Iterable[Any], most: int, budget: int) -> list[Any]:
    """Return the first samples that are small enough: at most `most`, and their markup `budget` bytes together."""
    fit = list[Any]()
    for sample in samples:
        size = sum(size_of(view) for one in sample.cards for _, view in one.texts)
        if len(fit) < most and size <= budget:
            fit.append(sample)
            budget -= size
    return fit


def size_of(view: Shown) -> int:
    """Return the bytes of a text in the page."""
    return len(view.first.encode(errors="replace")) + len((view.rest or "").encode(errors="replace"))


def sample_row(row: Row, ancestry: Ancestry) -> SampleRow:
    """Return a row with its history."""
    cards, path, before = [], list[str](), None
    for step in ancestry.history(row):
        prompt, view = prompt_text(step.row.get("prompt")), card(step.row)
        view = view if view.title != ROW else replace(view, title="seed")
        path.append(" ".join([view.title, *view.notes[:1]]))
        if prompt is None or prompt != before:
            texts = [(name, shown(text, SHORT, SHORT_REST)) for name, text in texts_of(step.row)[:1]]
            cards.append(replace(view, texts=texts))
        before = prompt
    view, texts = replace(card(row), is_own=True), [(name, full(text)) for name, text in labelled_texts(row)]
    path.append(" ".join([view.title, *view.notes[:1]]))
    if cards and prompt_text(row.get("prompt")) == before:
        texts = texts[1:]  # the card before it has the prompt
    prompts = [text for text in texts if text[0] == "prompt"]
    answers = texts[len(prompts) :]
    if len(answers) < 2:
        return SampleRow(path, [*cards, replace(view, texts=texts)])
    cards += [replace(view, texts=prompts)] if prompts else []
    return SampleRow(path, cards + [Card(name, "", [], [("", text)], is_own=True) for name, text in answers])


def full(text: str) -> Shown:
    """Return a text as it is shown; of one that was cut when it was read, how much is missing is counted."""
    view = shown(text)
    return view._replace(omitted=view.omitted + text.length - len(text)) if isinstance(text, CutText) else view


def labelled_texts(row: Row) -> list[tuple[str, str]]:
    """Return the texts of a row; those of several answers with score and rank."""
    texts = [(name, text) for name, text in texts_of(row) if name != "response" or "responses" not in row]
    responses, scores, ranks = (list_of(row.get(name)) for name in ("responses", "scores", "ranks"))
    for place, text in enumerate(responses[:MOST_ANSWERS]):
        if isinstance(text, str):
            marks = [f"rank {value}"[:MOST_LETTERS] for value in ranks[place : place + 1]]
            marks += [f"score {value}"[:MOST_LETTERS] for value in scores[place : place + 1]]
            texts.append((" · ".join(["response", *marks]), text))
    return texts


def list_of(value: Any) -> list[Any]:
    """Return a list of a row; an empty one if it is none."""
    return value if isinstance(value, list) else []


def card(row: Row) -> Card:
    """Return the card of a row, without its texts."""
    meta = row.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    notes = [str(meta["op"])] if meta.get("op") else []
    notes += [f"{name} {meta[name]}" for name in ("round", "difficulty", "margin") if meta.get(name) is not None]
    notes += [str(meta["model"])] if meta.get("model") else []
    title, name, *notes = (
        str(text)[:MOST_LETTERS] for text in (meta.get("method") or ROW, row.get("id") or "", *notes)
    )
    return Card(title, name, notes, [])


def rejected_groups(path: Path, funnel: Row, sentence: Sentence, budget: int) -> list[RejectedGroup]:
    """Return samples of the rejected and failed rows of an output, the most frequent reasons first.

    Args:
        path: The file of rejected rows.
        funnel: As in x.meta.json.
        sentence: Returns what a reason means.
        budget: The most bytes of their texts in the page.
    """
    counts = [
        (status, reason, number) for status in ("rejected", "failed") for reason, number in funnel[status].items()
    ]
    top = sorted(counts, key=lambda item: (-item[2], item[1]))[:MOST_REASONS]
    samples = {reason: Sample(PER_REASON) for _, reason, _ in top}
    if path.is_file():
        for _, raw, row in positioned_rows(path, {}):
            if row and (sample := samples.get(str(row.get("reason")))):
                sample.add(short_digest(raw.decode(errors="replace")), row)
    groups = list[RejectedGroup]()
    for status, reason, number in top:
        cards = [*map(rejected_card, samples[reason].rows)]
        budget -= sum(size_of(view) for one in cards for _, view in one.texts)
        shown_cards = cards if budget >= 0 else []
        groups.append(RejectedGroup(reason, status, number, sentence(reason) or "", shown_cards))
    return groups


def rejected_card(row: Row) -> Card:
    """Return the card of a rejected row: what it was made from, and what the rule saw."""
    record = row.get("record")
    record = parsed_record(unpacked(record)) if isinstance(record, dict) else {}
    texts = texts_of(record)[:1]
    texts += [(name, record[name]) for name in ("child", "chosen", "rejected", "error") if record.get(name)]
    texts += [("reply", row["reply"])] if row.get("reply") else []
    views = [(name, shown(str(text), SHORT, SHORT_REST)) for name, text in texts]
    view = card({"id": record.get("id"), "meta": row.get("meta")})
    return replace(view, title=str(row.get("stage") or "")[:MOST_LETTERS], texts=views)


def parsed_record(record: Row) -> Row:
    """Return the row that a rejected one was made from; an unusable line has its text under "raw"."""
    return {"text": str(record["raw"]), **record} if "raw" in record else record
