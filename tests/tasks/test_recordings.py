"""Planning the audio table: what is said about sources before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import ShardingConfig, parse_source
from spiritlm_core.intake.recordings import Recordings
from spiritlm_core.lake.lake import Lake
from tests.audio.files import sound


def _said(folder: Path, lake: Path, split: str = "") -> list[str]:
    said: list[str] = []
    drawn = (lambda _: split) if split else None
    Recordings((parse_source(str(folder)),), "en", ShardingConfig(), drawn).items(Lake(str(lake)), said.append)
    return said


def test_what_is_not_used_and_what_has_no_transcript_is_said(tmp_path: Path) -> None:
    for number in range(3):
        sound(tmp_path / f"clips/{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(4000))
    (tmp_path / "clips/0.txt").write_text("good morning")
    (tmp_path / "clips/x.srt").write_text("1\n")
    (tmp_path / "clips/x.jpg").write_bytes(b"\xff\xd8\xff")
    folder = tmp_path / "clips"
    assert _said(folder, tmp_path / "lake") == [
        f"  source {folder}: not used as transcripts: x.srt",
        f"  source {folder}: not audio: 1 .jpg",
        "  2 of 3 recordings have no transcript",
    ]


def test_nothing_is_said_where_all_is_used(tmp_path: Path) -> None:
    sound(tmp_path / "clips/a.wav", 0.1 * np.random.default_rng(1).standard_normal(4000))
    (tmp_path / "clips/a.lab").write_text("good morning")
    assert _said(tmp_path / "clips", tmp_path / "lake") == []


def test_a_corpus_without_held_out_recordings_is_told_of(tmp_path: Path) -> None:
    sound(tmp_path / "clips/a.wav", 0.1 * np.random.default_rng(1).standard_normal(4000))
    (tmp_path / "clips/a.lab").write_text("good morning")
    said = "  none of 1 recordings is held out, so nothing is judged: see audio.held_out_share"
    assert _said(tmp_path / "clips", tmp_path / "lake", "train") == [said]
    assert _said(tmp_path / "clips", tmp_path / "lake", "held_out") == []


def test_why_nothing_of_a_folder_is_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SourceError, match=r"no recordings found in .* \(.*not used as transcripts: train.parquet\)"):
        _said(tmp_path, tmp_path / "lake")
