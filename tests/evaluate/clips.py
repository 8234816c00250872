"""Clips of real speech."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from spiritlm_core.audio.codec import encode_flac, read_mono, to_float32
from spiritlm_core.fit.clips import Clip

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@cache
def real_clips(count: int) -> tuple[Clip, ...]:
    """The shortest clips of each of the two voices."""
    if not (DATA / "librispeech_mini").is_dir():
        pytest.skip(f"there is no speech in {DATA}")
    entries = map(json.loads, (DATA / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    short = sorted((e for e in entries if e["path"].startswith("librispeech_mini/")), key=lambda e: e["duration"])
    found = []
    for speaker in sorted({e["speaker"] for e in short}):
        for entry in [e for e in short if e["speaker"] == speaker][:count]:
            with (DATA / entry["path"]).open("rb") as file:
                waveform = to_float32(read_mono(file, entry["path"]))
            found.append(Clip(entry["id"], speaker, "en", entry["text"], waveform))
    return tuple(found)


def rows_of_clips(**changes):
    """Odd clips are train, even ones held out."""
    return [
        {
            "utterance_id": clip.key,
            "recording_id": clip.key,
            "duration": clip.seconds,
            "speaker": clip.speaker,
            "language": "en",
            "split": "train" if number % 2 else "held_out",
            "text": clip.text,
            "audio": encode_flac(clip.waveform),
            "source_uri": f"test:{clip.key}",
            **changes,
        }
        for number, clip in enumerate(real_clips(8))
    ]
