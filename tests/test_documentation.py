"""Pages for people: their links and commands lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# docs/catalog has the texts of catalog/'s READMEs, with links as they are there.
PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("catalog/**/*.md"))
    if page.name != "CHANGELOG.md"
]


def anchors(page: Path) -> set[str]:
    """The headings' anchors, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


def test_every_page_can_be_found() -> None:
    """Each page of docs/ is named by the README."""
    linked = set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= linked


def test_examples_of_make_exist() -> None:
    """Every `make TARGET` on a page is a target."""
    known = subprocess.run(["make", "-qp"], cwd=ROOT, capture_output=True, text=True).stdout
    for page in PAGES:
        for target in re.findall(r"^make (\w+)|`make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            name = "".join(target)
            assert re.search(rf"^{name}:", known, re.MULTILINE), f"{page.name}: make {name}"
