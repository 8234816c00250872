"""What a run says where nobody looks at a terminal."""

from __future__ import annotations

import re
import time

import pytest

from tasks import progress
from tasks.account import StageReport, describe


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
