"""The kinds of rows that a reader can be asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Generic, TypeVar

from datagen.records.files import open_input
from datagen.records.record import Row
from datagen.records.shapes import Shape, best_shape

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Kind(Generic[T]):
    """A kind of row that a reader can be asked for.

    Args:
        name: What the rows are, in the plural, for messages: "preferences".
        make: Makes a row: `make(id, *base, line=, source_id=, extra=, meta=, **more)`, with the content that
            `Shape.read` returns. Usually the row's class.
        shapes: The shapes in which such rows come, by the name that `--format` takes. The first one is assumed for a
            file of damaged JSON; a shape named "text" allows files of plain text.
        text_key: The field that a line of a text file becomes.
        keys: The keys by which such rows are recognised, for messages.
        needs: A sentence that says what such rows hold and how to make them, for messages.
        use: A sentence that names the command that takes such rows, for a user who gave them to another one.
        ours: The shapes of the rows that commands of ours write; none for a kind that is never written.
        open: Opens a file by its name, seekable. May raise InputError.
    """

    name: str
    make: Callable[..., T]
    shapes: Mapping[str, Shape]
    text_key: str
    keys: str
    needs: str
    use: str
    ours: Mapping[str, Shape] = field(default_factory=dict)
    open: Callable[[str], BinaryIO] = open_input

    def detect(self, row: Row) -> str | None:
        """Return the name of the shape that explains most of a row; None if the row fits none of this kind."""
        fit = best_shape(self.shapes, row)
        return fit.shape if fit else None
