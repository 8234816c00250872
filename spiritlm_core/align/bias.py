"""The constant delay of a CTC model's spikes, measured on the corpus itself.

CTC is free to put a spike anywhere in or after its sound, and a flat start ends up some tens of milliseconds
late. Where an utterance begins after silence the energy says when speech starts, so the median difference
there is the delay; no other labels are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from spiritlm_core.align.whisperx import Aligner
from spiritlm_core.errors import Rejection

_STEP = 160  # samples; 10 ms
_QUIET = 0.04  # seconds of silence that an utterance must begin with to be of use
_LEAST = 8  # utterances; a median of fewer is noise


def delay(aligner: Aligner, utterances: Iterable[tuple[np.ndarray, Sequence[str]]]) -> float:
    """Median delay in seconds of the first spike behind the onset of speech; 0 where it cannot be measured."""
    offsets = []
    for waveform, words in utterances:
        onset = speech_onset(waveform)
        if onset is None:
            continue
        try:
            first = aligner.align(aligner.hear(waveform), words)[0]
        except Rejection:
            continue
        if first is not None:
            offsets.append(first.start - onset)
    return float(np.median(offsets)) if len(offsets) >= _LEAST else 0.0


def speech_onset(waveform: np.ndarray) -> float | None:
    """When the energy first rises above the noise, in seconds; None if there is no silence before.

    The threshold is 30 % of the way from the noise floor (5th percentile of the energy in dB) to the loud
    frames (95th), but at most 35 dB below them.
    """
    edges = loud_edges(waveform)
    return edges[0] if edges is not None and edges[0] >= _QUIET else None


def loud_edges(waveform: np.ndarray) -> tuple[float, float] | None:
    """Start and end in seconds of what is louder than the noise; None for less than 30 ms of audio."""
    frames = len(waveform) // _STEP
    if frames < 3:
        return None
    power = np.square(waveform[: frames * _STEP].reshape(frames, _STEP), dtype=np.float64).mean(1)
    level = 10 * np.log10(power + 1e-10)
    floor, loud = np.quantile(level, 0.05), np.quantile(level, 0.95)
    above = np.flatnonzero(level > max(loud - 35.0, floor + 0.3 * (loud - floor)))
    return (float(above[0]) * 0.01, float(above[-1] + 1) * 0.01) if len(above) else None
