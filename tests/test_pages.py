"""What holds the pages together: anchors, the navigation of the site, the Chinese README, the guide for agents."""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.agents import guide
from tests.pages import FENCE, ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^(#{1,6}) +(.+?) *$", re.MULTILINE)
README, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"


def headings(page: Path) -> list[tuple[str, str]]:
    """Return the headings of a page: their signs, and their texts."""
    return HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub and the site make them from its headings."""
    seen: Counter[str] = Counter()
    names = set()
    for _, text in headings(page):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def pages_of(navigation: Any) -> list[str]:
    """Return the paths in the navigation of the site."""
    if isinstance(navigation, str):
        return [navigation]
    parts = navigation.values() if isinstance(navigation, dict) else navigation
    return [path for part in parts for path in pages_of(part)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_anchor_that_is_linked_exists(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    linked = [(document.parent / name if name else document, anchor) for name, anchor in LINK.findall(text) if anchor]
    inside = [(page, anchor) for page, anchor in linked if "://" not in str(page) and ":/" not in str(page)]
    assert [f"{page.name}#{anchor}" for page, anchor in inside if anchor not in anchors(page)] == []


def test_the_navigation_of_the_site_names_every_page_once() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    named = pages_of(site["nav"])
    assert sorted(named) == sorted(str(page.relative_to(ROOT)) for page in DOCUMENTS)


def test_the_chinese_readme_has_the_sections_and_the_code_of_the_english_one() -> None:
    english, chinese = (page.read_text(encoding="utf-8") for page in (README, CHINESE))
    assert [match[0] for match in FENCE.finditer(chinese)] == [match[0] for match in FENCE.finditer(english)]
    assert [signs for signs, _ in headings(CHINESE)] == [signs for signs, _ in headings(README)]
    rows = [re.findall(r"^\|.*?\|", page, re.MULTILINE) for page in (chinese, english)]
    assert len(rows[0]) == len(rows[1])
    targets = [
        sorted({name for name, _ in LINK.findall(page)} - {"README.md", "README.zh.md"}) for page in (chinese, english)
    ]
    assert targets[0] == targets[1]
    assert "README.zh.md" in english and "README.md" in chinese


def test_the_guide_for_agents_has_the_front_matter_of_a_skill() -> None:
    text = guide().read_text(encoding="utf-8")
    front = re.match(r"---\nname: ([a-z-]{1,64})\ndescription: (.{40,1024})\n---\n", text)
    assert front and front[1] == "datagen"
    assert len(text.splitlines()) < 500
