"""The picture of the pipeline in the documentation shows the stages that there are, and only edges that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.graphs.speech_lm import speech_lm
from flows.recipes import find_recipe

ROOT = Path(__file__).parents[2]
SOURCES = {"recordings", "texts"}


def picture(page: str) -> str:
    """The indented block that begins with the recordings."""
    found = re.search(
        r"^    recordings ──.*?\n(?=\n)", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[0]


def test_both_pages_have_the_same_picture() -> None:
    assert picture("README.md") == picture("docs/architecture.md")


def test_the_picture_shows_every_stage_of_a_run_and_no_other() -> None:
    graph = speech_lm(find_recipe("scratch", ["texts=[{path: books}]"]))
    shown = re.findall(r"\w+", re.sub(r"[─►▲│└├┐┘┌]", " ", picture("README.md")))
    assert sorted(shown) == sorted({*SOURCES, *(node.name for node in graph.wanted())})


@pytest.mark.parametrize("edge", re.findall(r"(?=\b(\w+) ─+► (\w+))", picture("README.md")), ids="-".join)
def test_every_arrow_between_two_stages_is_an_edge_of_the_graph(edge: tuple[str, str]) -> None:
    graph = speech_lm(find_recipe("scratch", ["texts=[{path: books}]"]))
    source, stage = edge
    if source in SOURCES:
        assert graph.nodes[stage].listing is not None
    else:
        assert source in {parent.name for parent in graph.nodes[stage].parents}
