from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from spiritlm_core.explore.actions import Actions, Seen
from spiritlm_core.explore.server import Explorer
from spiritlm_core.explore.shown import cell
from spiritlm_core.lake.lake import Lake
from spiritlm_core.serve.errors import ServeConfig
from spiritlm_core.serve.guard import Kept
from tests.support.filled_lake import RECIPE, ROWS, SAME, name_of

AUDIO = "audio of small"


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    kept = Kept(10_000_000)
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def actions(filled_lake: Lake, kept: Kept) -> Actions:
    return Actions(filled_lake, kept)


def click(*row: Any) -> Any:
    return SimpleNamespace(row_value=list(row))


def listed(actions: Actions, conditions: str = "", title: str = AUDIO, kind: str = "all") -> tuple[Seen, str, dict]:
    seen, where, rows = actions.listed(title, kind, conditions, "", down=False)
    return seen, where, rows


def test_the_page_begins_with_the_tables_in_use_and_the_rows_of_the_first(actions: Actions) -> None:
    table, about, *_, where, rows = actions.loaded(None)
    assert table["value"] == AUDIO
    assert table["choices"][:3] == [AUDIO, "words of small", "units of small"]
    assert table["choices"][3].startswith("audio, ")
    assert "<b>12</b> rows in 2 shards · 11 good · 1 rejected here" in about
    assert where == "1 to 12 of 12 rows"
    assert len(rows["data"]) == ROWS


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.0, "0"), (0.25, "0.25"), (7625.0, "7625"), (-3.5e-5, "-3.5e-05"), (0.0099, "0.0099")]
)
def test_small_numbers_are_shown_too(value: float, shown: str) -> None:
    assert cell(value) == shown


def test_what_a_recording_says_cannot_be_html(actions: Actions) -> None:
    seen, _, rows = listed(actions, "text ~ bold")
    shown = actions.picked(seen, AUDIO, click(*rows["data"][0]))
    assert "<b>bold" not in "".join(part for part in shown if isinstance(part, str))


def test_a_click_shows_the_row_with_sound_words_and_units(actions: Actions, kept: Kept) -> None:
    seen, _, rows = listed(actions, f"utterance_id = {name_of(7)}")
    seen, heading, sound, figure, spoken, speak, facts, *kept_row = actions.picked(seen, AUDIO, click(*rows["data"][0]))
    assert name_of(7) in heading
    assert kept.holds(sound["value"])
    assert "data:image/png" in figure
    assert spoken["value"] is None
    assert speak["visible"] is True
    assert "<td>text_origin</td><td>given</td>" in facts
    assert kept_row[0] == ""
    heard = actions.spoken(seen)
    assert Path(heard["value"]).stat().st_size > 1000


def test_a_rejected_copy_is_shown_beside_the_row_that_is_kept(actions: Actions) -> None:
    reasons = actions.reasons(AUDIO)["data"]
    assert sorted(reasons) == [["audio", "too short", "1"], ["words", SAME.partition(":")[0], "1"]]
    title, *_, kind, asked, seen, where, rows, tabs = actions.of_reason(AUDIO, click("words", "the same speech", "1"))
    assert (title, kind, where) == ("words of small", "rejected", "1 to 1 of 1 rows")
    assert tabs.selected == "rows"
    assert listed(actions, asked, title)[1] == where
    _, heading, *_, other, other_sound, other_figure = actions.picked(seen, title, click(*rows["data"][0]))
    assert f"words: {SAME} {name_of(1)}" in heading
    assert name_of(1) in other
    assert other_sound["value"]
    assert other_figure


def test_what_the_recipe_keeps_in_the_place_of_a_row_is_shown_beside_it(actions: Actions) -> None:
    seen, _, rows = listed(actions, f"utterance_id = {name_of(4)}")
    *_, other, other_sound, _ = actions.picked(seen, AUDIO, click(*rows["data"][0]))
    assert name_of(2) in other
    assert other_sound["value"]


def test_a_row_without_sound_is_shown_as_what_it_is(actions: Actions) -> None:
    seen, _, rows = listed(actions, kind="rejected")
    seen, heading, sound, figure, *_ = actions.picked(seen, AUDIO, click(*rows["data"][0]))
    assert "audio: too short: 0.01 s" in heading
    assert sound["value"] is None
    assert figure == ""


def test_pages_of_rows_end_where_the_rows_end(actions: Actions) -> None:
    seen, _, _ = listed(actions)
    assert actions.moved(1, seen, AUDIO, "all", "", "", False)[1] == "1 to 12 of 12 rows"
    assert actions.moved(-1, seen, AUDIO, "all", "duration > 9", "", False)[1] == "no such row"


def test_conditions_are_put_together(actions: Actions) -> None:
    assert actions.added("", "text", "~", "a b") == "text ~ a b"
    assert actions.added("text ~ a b", "end", "is empty", "") == "text ~ a b and end is empty"
    for value, where in (("<b>bold", "1 to 11 of 11 rows"), ("7 and text ~ bold", "no such row")):
        assert listed(actions, actions.added("", "text", "~", value))[1] == where


def test_what_is_wrong_is_said_in_a_sentence(actions: Actions) -> None:
    for work in (
        lambda: listed(actions, "nonsense > 1"),
        lambda: actions.compared("words of small", None),
        lambda: actions.examples(AUDIO, "as mixed", 1, 0),
    ):
        with pytest.raises(gr.Error) as error:
            work()
        assert error.value.message.endswith(".")


def test_snapshots_are_compared_the_older_first(actions: Actions) -> None:
    other = next(title for title in actions.loaded(None)[0]["choices"] if title.startswith("audio, "))
    html, rows = actions.compared(AUDIO, other)
    assert "<td>rows</td>" in html
    assert len(rows["data"]) == 4


def test_looking_at_rows_takes_no_pytorch() -> None:
    """Which would be half a gigabyte: only the vocoder needs it."""
    code = "import sys; import spiritlm_core.explore.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_is_behind_the_guards(filled_lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("none of yours")
    ref = filled_lake.store.local_path(f"refs/{RECIPE}/audio.json")
    explorer = Explorer(filled_lake, ServeConfig())
    client = TestClient(explorer.app(), base_url="http://localhost")
    try:
        assert client.get("/").status_code == 200
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403
        assert client.get(f"/gradio_api/file={tmp_path / 'secret'}").status_code == 403
        assert client.get(f"/gradio_api/file={ref}").status_code == 403
        assert client.post("/gradio_api/upload").status_code == 404
        assert client.post("/gradio_api/run/0", json={"data": []}).status_code == 404
    finally:
        explorer._delete()
