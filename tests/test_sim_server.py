"""The values that a template was rendered with are read back from its messages."""

from pathlib import Path

import pytest

from datagen.llm.sim.model import HANDLERS
from datagen.prompts import SHIPPED, read_template
from tests.sim_server import read_fields

TEMPLATES = {path: path.relative_to(SHIPPED).as_posix().partition(".")[0] for path in sorted(SHIPPED.rglob("*.md"))}
OPTIONAL = {"reference", "persona", "header"}


@pytest.mark.parametrize("path", [path for path, task in TEMPLATES.items() if task in HANDLERS])
@pytest.mark.parametrize("optional", ["given", ""])
def test_the_values_of_a_template_are_read_back(path: Path, optional: str) -> None:
    template = read_template(TEMPLATES[path], path)
    fields = {name: optional if name in OPTIONAL else f"{name}:\n\n[1] {{{{ x }}}}" for name in template.variables}
    assert read_fields(TEMPLATES[path], template.render(**fields).messages) == fields
