"""What a run says where nobody looks at a terminal."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import pytest

from tasks import progress
from tasks.account import StageReport, describe
from tasks.dashboard import page
from tests.lake.stages import Double, DoubleConfig


def test_a_long_stage_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    with progress.Console().stage("units", "speech units") as meter:
        said = capsys.readouterr().err
        meter(0.25, "1 of 4 shards")
        while "25%" not in said:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert said.startswith("  units       … speech units\n")
    assert re.search(r"^  units       … 25%  1 of 4 shards, \d+ s$", said, re.MULTILINE)


def test_a_brief_stage_is_told_of_only_where_it_takes_long(capsys, monkeypatch):
    with progress.Console().stage("plan", "what is new", brief=True):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    with progress.Console().stage("plan", "what is new", brief=True):
        said = ""
        while "plan        … what is new, 0 s\n" not in said:
            time.sleep(0.01)
            said += capsys.readouterr().err


def test_silence_is_noticed_where_no_stage_is_shown(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    console = progress.Console()
    console.say("hello")
    for spoken in (console.say, lambda _: progress.Console().say("of another one")):
        now[0] += 11
        assert console.is_silent
        spoken("still here")
        assert not console.is_silent
    with console.stage("plan", "what is new", brief=True):
        now[0] += 11
        assert not console.is_silent
    assert console.is_silent  # it ended without a word


def test_what_is_left_is_told_at_the_pace_since_the_first_report(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    left = progress.TimeLeft()

    def after(seconds, fraction):
        now[0] += seconds
        return left(fraction)

    assert after(0, 0.5) == ""  # from a checkpoint
    assert after(1, 0.6) == ""  # too early to know
    assert after(9, 0.6) == "about 40 s left"
    assert after(90, 0.75) == "about 2 min left"
    assert after(10_000, 0.71) == "about 3 h 52 min left"
    assert after(1, 1.0) == ""
    assert progress.duration(7325) == "2 h 02 min"


def test_nothing_is_said_once_a_stage_has_ended(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    with pytest.raises(ValueError, match="broken"), progress.Console().stage("units", "speech units"):
        raise ValueError("broken")
    time.sleep(0.05)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_finished_stage_names_the_commonest_reasons_of_its_rejected_rows():
    reasons = {f"reason {n}": n for n in range(1, 8)}
    report = StageReport("audio", "table", "f", rows_in=40, rows_out=12, rejected=28, reasons=reasons, seconds=1.5)
    first, *lines = describe(report)
    assert first.startswith("✓ audio       12 rows, 28 rejected")
    assert first.endswith("1.5 s")
    assert lines == [*(f"    {n} times: reason {n}" for n in (7, 6, 5, 4, 3)), "    and 2 other reasons"]


def test_a_stage_tells_of_its_rows_about_once_a_second(monkeypatch):
    clock, heard = iter([0.0, 0.4, 0.8, 1.2, 1.2, 1.6, 9.0, 9.0, 9.1]), []
    stage = Double(DoubleConfig(), {})
    stage.progress = lambda fraction, message: heard.append(fraction)
    monkeypatch.setattr("spiritlm_core.lake.stage.time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(stage.counted("abcdef")) == list("abcdef")
    assert heard == [2 / 6, 4 / 6]


def test_the_dashboard_has_every_stage_what_is_new_and_the_commonest_rejections():
    audio = StageReport("audio", "table", "f", rows_in=40, rows_out=30, rejected=10, reasons={"a | b": 9, "c": 1})
    audio.rows_before = 18
    built = StageReport("model", "artifact", "f", shards_total=1, shards_computed=1, seconds=3.0)
    text = page([audio, built], {"lake": "/lake", "metrics": {"wer": 0.25}, "notes": ["no voice"]})
    assert text.startswith("# Completed\n\n| stage | rows in | rows out | rejected |")
    assert "| audio | 40 | 30 | 10 | 0.0 | 0 | 0 | 0 | 0.0 | +12 | 25.0 |" in text
    assert text.index("| audio | 9 | a \\| b |") < text.index("| audio | 1 | c |")
    assert "| wer | 0.25 |" in text
    assert text.endswith("- lake: `/lake`\n- note: no voice")
    assert page([], {}, "stage audio: no disk").startswith("# Failed: stage audio: no disk")
