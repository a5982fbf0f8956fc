"""`datagen agents`: the guide for coding agents, which comes with the package."""

from dataclasses import dataclass
from pathlib import Path

from datagen.printing import printable

ARGUMENTS = ()
PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Options:
    """`datagen agents` has no options."""


def guide() -> Path:
    """Return the file of the guide: in the package, or in the checkout beside it."""
    packaged = PACKAGE / "agents.md"
    return packaged if packaged.is_file() else PACKAGE.parent / "docs" / "agents.md"


def run(options: Options) -> int:
    """Print the guide."""
    print(printable(guide().read_text(encoding="utf-8")), end="")
    return 0
