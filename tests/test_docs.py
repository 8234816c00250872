"""What the documentation promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\|.+\| `([\w/]+\.py)(?:::(\w+))?` \|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)


def test_the_table_of_faults_is_read() -> None:
    assert len(ROWS) > 50


@pytest.mark.parametrize(("file", "test"), ROWS)
def test_every_fault_of_the_table_has_its_test(file: str, test: str) -> None:
    text = (ROOT / "tests" / file).read_text()
    assert f"def {test}(" in text if test else "def test_" in text


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    assert links
    assert not [(page.name, link) for page, link in links if not (page.parent / link).exists()]
