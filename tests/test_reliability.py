"""docs/reliability.md: every invariant of DESIGN.md has its section, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from mutations.table import MUTATIONS

ROOT = Path(__file__).resolve().parent.parent
DESIGN = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The names that a link can lead to, as GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(name: str) -> str:
    found = re.search(rf"^### {name}$.*?(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"{name} has no section"
    return found[0]


def test_every_invariant_is_linked_to_the_section_that_tries_it() -> None:
    promised = re.findall(r"^- (.*)\*\*(I\d)\*\*(\S*)", DESIGN, re.MULTILINE)

    assert [name for _, name, _ in promised] == [f"I{n}" for n in range(1, 8)]
    for before, name, after in promised:
        assert (before, after) == ("[", f"](docs/reliability.md#{name.lower()})")
        assert section(name)


def test_every_section_names_tests_that_exist() -> None:
    for number in range(1, 8):
        files = re.findall(r"\(\.\./(tests/[\w/]+\.py)\)", section(f"I{number}"))
        assert files, f"I{number} names no test"
        for file in files:
            assert "def test_" in (ROOT / file).read_text(encoding="utf-8"), file


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert len(links) > 30
    for link in links:
        path, _, anchor = link.partition("#")
        file = (ROOT / "docs" / path).resolve() if path else ROOT / "docs" / "reliability.md"
        assert file.exists(), link
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), link


def test_every_mutation_is_in_the_table() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| (I\d) \| `[^|]+` \|", PAGE, re.MULTILINE)

    assert rows == [(mutation.name, mutation.invariant) for mutation in MUTATIONS]
