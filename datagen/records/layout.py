"""The layout of our rows on disk: every row of a kind has the same columns, and each column one type.

Readers of JSON lines (`datasets`, pyarrow, polars) take the columns and types of a data set from the first rows of its
first file. A null, an empty list, an object with other keys or a column that comes later would make two of our files
two data sets. So a column of ours without a value holds the blank of its type, and what differs from method to method
stands as JSON in one text. `meta` has seven keys, all of them texts, "" where there is nothing to say:

    method      the command, such as "evolve"; "input" for a row of somebody else
    op          how it made the row: an operator, a strategy, a rule for pairs
    model       the model that wrote the text, where it is one
    parents     the ids of the rows that it was made from, separated by a space
    seed_id     the id of the seed that it descends from
    source_id   the id that the seed had in the file that it came from
    details     everything else that the method knows: {"round": 1, "usage": {...}, ...}

Outside this module nobody knows this layout: the fold packs rows, the reader unpacks them.
"""

import json
from collections.abc import Mapping
from typing import Any

from datagen.records.record import Row

BLANKS: Mapping[str, Row] = {
    "response": {"reasoning": ""},
    "responses": {"reasoning": []},
    "chosen": {"chosen_reasoning": "", "rejected_reasoning": "", "margin": 0.0, "soft_label": 1.0},
}
"""The column that tells a kind of row, to the optional columns of that kind and what they hold without a value. No
margin of ours is 0, which is a tie; a soft label of 1 is a preference without doubt. Beside `responses` stands one
text each in `reasoning`."""
TEXTS = ("method", "op", "model", "parents", "seed_id", "source_id")
PARENTS, DETAILS = "parents", "details"
META_KEYS = (*TEXTS, DETAILS)
encode_details = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False).encode


def pack_row(row: Row) -> Row:
    """Return a row as it is written: `meta` packed, and before it the columns of its kind that it has no value for."""
    blanks = next((columns for name, columns in BLANKS.items() if name in row), {})
    packed: Row = {}
    for name, value in row.items():
        if name == "meta":
            packed |= {column: blank for column, blank in blanks.items() if row.get(column) is None}
            value = pack_meta(value)
        if value is not None or name not in blanks:
            packed[name] = value
    if "responses" in row:
        packed["reasoning"] = [text or "" for text in row.get("reasoning") or [None] * len(row["responses"])]
    return packed


def pack_rejected(row: Row) -> Row:
    """Return a line of x.rejected.jsonl as it is written: with the row that it was made from in its layout, too."""
    record = row["record"]
    return {**row, "record": pack_row(record) if record.get("meta") else record, "meta": pack_meta(row["meta"])}


def unpack_row(row: Row) -> Row:
    """Return a row of ours as `pack_row` was given it, without what is blank; any other row as it is.

    Raises:
        ValueError: Somebody has edited `meta`, so that it cannot be read.
    """
    if not is_meta(row.get("meta")):
        return row
    blanks = {column: blank for name, columns in BLANKS.items() if name in row for column, blank in columns.items()}
    filled = {name: value for name, value in row.items() if name not in blanks or value != blanks[name]}
    filled["meta"] = unpack_meta(row["meta"])
    if isinstance(reasonings := filled.get("reasoning"), list):
        filled["reasoning"] = [text or None for text in reasonings]
        if not any(reasonings):
            del filled["reasoning"]
    return filled


def pack_meta(meta: Row) -> Row:
    """Return the form on disk of what `Method.row_meta` makes."""
    texts: Row = {name: meta.get(name) or "" for name in TEXTS}
    if texts[PARENTS]:
        texts[PARENTS] = " ".join(texts[PARENTS])
    return texts | {DETAILS: encode_details({name: value for name, value in meta.items() if name not in texts})}


def unpack_meta(meta: Row) -> Row:
    """Return what `pack_meta` was given; "" becomes None. Raises ValueError as `unpack_row` does."""
    if not all(isinstance(meta[name], str) for name in META_KEYS):
        raise ValueError(f'"meta" holds something else than text as {", ".join(META_KEYS)}')
    try:
        details = json.loads(meta[DETAILS])
    except (ValueError, RecursionError):
        details = None
    if not isinstance(details, dict):
        raise ValueError('"details" in "meta" is not a JSON object as text')
    return {name: meta[name] or None for name in TEXTS} | {PARENTS: meta[PARENTS].split()} | details


def is_meta(value: Any) -> bool:
    """Is this the `meta` of a row of ours? That of another tool has other keys."""
    return isinstance(value, dict) and value.keys() == set(META_KEYS)
