"""Workers elsewhere, as the engine sees them."""

from typing import Protocol


class Ahead(Protocol):
    """What workers elsewhere ask for, ahead of the engine."""

    async def wait(self) -> int | None:
        """Wait until the answers of the next item are recorded, as far as somebody else asks for them.

        Returns:
            The calls that its record makes with these answers; None if the engine is to ask, and to mind the caps.
        """
        ...

    def look(self) -> None:
        """A record has ended."""

    @property
    def calls(self) -> int:
        """The calls of records that are recorded and not begun."""
        ...
