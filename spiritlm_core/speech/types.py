"""The three unit streams of a waveform, and the pieces in which it is encoded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.speech.grid import CHUNK, FRAME, piece_lengths, unit_count
from spiritlm_core.tokens.speech import Streams

Units = Streams  # of one waveform, not collapsed


def chunks(waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Pieces of at most 100 s, without a last piece that is too short to have units."""
    return [waveform[i * CHUNK :][:length] for i, length in enumerate(piece_lengths(len(waveform)))]


def by_frame(units: NDArray[Any], samples: int, hop: int) -> NDArray[Any]:
    """One entry for each frame of 40 ms, [frames, …], of units or features [N, …] of so many samples, `hop` apart."""
    parts, start = [units[:0]], 0
    for length in piece_lengths(samples):
        count = unit_count(length, hop)
        parts.append(np.repeat(units[start : start + count], hop // FRAME, axis=0)[: unit_count(length)])
        start += count
    return np.concatenate(parts)
