"""Write docs/commands.md from the command line itself, or check that it is up to date.

python docs/generate.py [--check]
"""

import os
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from datagen.commands.main import COMMANDS, app
from datagen_train.cli import TOOLS, TRAINERS

PAGE = Path(__file__).with_name("commands.md")
HEADING = """# Commands

Made by `make docs` from `datagen --help`; do not edit.
"""


def help_text(*command: str) -> str:
    """Return what `datagen COMMAND --help` prints, 100 columns wide, without colours."""
    os.environ.update(TERMINAL_WIDTH="100", COLUMNS="100", NO_COLOR="1", TERM="dumb")
    result: Any = CliRunner().invoke(app, [*command, "--help"], prog_name="datagen")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def page() -> str:
    parts = [HEADING, section("datagen")]
    parts += [section(f"datagen {name}", name) for name in COMMANDS]
    parts += [section(f"datagen train {name}", "train", name) for name in TRAINERS | TOOLS]
    return "\n".join(parts)


def section(title: str, *command: str) -> str:
    return f"## {title}\n\n```\n{help_text(*command)}\n```\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/commands.md is out of date: make docs")
