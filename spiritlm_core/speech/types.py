"""The three unit streams of a waveform, and how many units a waveform has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.config import FRAME, RECEPTIVE_FIELD

CHUNK = 100 * SAMPLE_RATE
"""Longer waveforms are cut into pieces of this many samples, each encoded alone."""

SHORTEST = 1280
"""A waveform, or last piece, with fewer samples has no units."""


@dataclass(frozen=True)
class Units:
    """Units of one waveform, not collapsed; `pitch` and `style` are None for the Base variant."""

    hubert: NDArray[np.int16]  # [N] at 25 Hz
    pitch: NDArray[np.int8] | None = None  # [M] at 12.5 Hz
    style: NDArray[np.int8] | None = None  # [K] at 1 Hz


def hubert_count(samples: int) -> int:
    """HuBERT units of a piece: one per 640 samples, each seeing 720 (1280 → 1, 16 000 → 24, 100 s → 2499)."""
    return 0 if samples < SHORTEST else (samples - RECEPTIVE_FIELD) // FRAME + 1


def pitch_count(samples: int) -> int:
    """Pitch units of a piece: 200 Hz frames of F0, sixteen to a unit."""
    return 0 if samples < SHORTEST else (samples // 80 + 1) // 16


def style_count(samples: int) -> int:
    """Style units of a piece: one per second begun."""
    return 0 if samples < SHORTEST else -(-samples // SAMPLE_RATE)


def chunks(waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Pieces of at most 100 s, without a last piece that is too short to have units."""
    pieces = [waveform[start : start + CHUNK] for start in range(0, len(waveform), CHUNK)]
    return [piece for piece in pieces if len(piece) >= SHORTEST]
