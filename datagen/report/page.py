"""The page: a template, a style sheet, and nothing that runs.

Text is escaped by the template, whoever wrote it; hidden characters are named before (text.py). The content security
policy allows the page's own style sheet, by its digest, and no script, picture, font or form.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from datagen.report.outputs import OutputSection
from datagen.report.tables import PageTable
from datagen.report.text import visible
from datagen.report.training import TrainingSection

HERE = Path(__file__).parent
GENERATOR = '<meta name="generator" content="datagen report">'
"""What tells a page of ours from somebody else's file."""


@dataclass(frozen=True)
class Overview:
    """What stands at the top."""

    title: str
    tiles: list[tuple[str, str]]
    rows: list[list[tuple[str, str]]]
    """A line for each file: its cells, each with the section that it leads to, "" for none."""
    evaluations: PageTable
    """A line for each evaluation."""
    notes: list[str]


def render(overview: Overview, outputs: Sequence[OutputSection], runs: Sequence[TrainingSection]) -> str:
    """Return the page."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (HERE / "page.css").read_text(encoding="utf-8")
    policy = f"default-src 'none'; style-src 'sha256-{digest(style)}'; base-uri 'none'; form-action 'none'"
    page: str = environment.get_template("page.html").render(
        generator=Markup(GENERATOR),
        policy=Markup(policy),
        style=Markup(style),
        overview=overview,
        outputs=outputs,
        runs=runs,
    )
    return page


def digest(style_sheet: str) -> str:
    """Return the SHA-256 of a style sheet in the form of a content security policy."""
    return b64encode(sha256(style_sheet.encode()).digest()).decode()


def is_page(path: Path) -> bool:
    """Say whether a file is a page that a report wrote."""
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2_000)
