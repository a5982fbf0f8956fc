"""Texts with their labels, for classification.

    labelled      {"text", "label"}: a label is text or a whole number
    answered      {"prompt", "response"} or {"instruction", "input", "output"}: the response is the label

Many public sets hold the number of a label in "label" and its name in "label_text": then the name counts.
"""

from dataclasses import dataclass, field

from datagen.records.columns import Fields
from datagen.records.record import Row
from datagen.records.row_kinds import Kind
from datagen.records.shapes import Content, Roles, Shape, request

PROMPT: Roles = ("prompt", "instruction", "question")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and its label."""

    id: str
    prompt: str
    """The text."""
    label: str
    line: int = field(default=0, compare=False)
    source_id: str | None = None
    extra: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)


def read_labelled(fields: Fields) -> list[Content]:
    """Read a text and its label."""
    text, name, label = fields.text("sample", required=True), fields.value("class_name"), fields.value("class")
    return [Content((text, label_of(label if name is None else name, fields.name("class"))), {})]


def read_answered(fields: Fields) -> list[Content]:
    """Read a prompt whose response is its label."""
    text = request(fields)
    if not isinstance(text, str):
        raise ValueError("the prompt is a conversation, and a classifier reads one text")
    return [Content((text, label_of(fields.value("response"), fields.name("response"))), {})]


def label_of(value: object, column: str) -> str:
    """Return a label as text; raise ValueError for a value that is none."""
    label = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | str) else ""
    if not label.strip():
        raise ValueError(f'"{column}" is not a label: it must hold text or a whole number')
    return " ".join(label.split())


LABELLED = Kind(
    "labelled texts", Labelled,
    {
        "labelled": Shape(read_labelled, ("sample", "class"), ("class_name",)),
        "answered": Shape(read_answered, ("response",), ("input", "context"), needs_any=PROMPT),
    },
    "text", '"text" and "label"',
    'Labelled texts are rows with "text" and "label", or with a prompt and a response that is the label; '
    "--map text=COLUMN,label=COLUMN names others",
    "Labelled texts go to 'datagen train classify'",
)  # fmt: skip
