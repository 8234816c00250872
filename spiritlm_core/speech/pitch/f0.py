"""Fundamental frequency with FCPE, the conformer-based pitch estimator bundled in `torchfcpe` (MIT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spiritlm_core.speech.encoders.precision import Precision
    from spiritlm_core.speech.pitch.fcpe import Fcpe

THRESHOLD = 0.05
"""Confidence above which a frame may be voiced; the value of the released Spirit LM."""

LOWEST = 50.0
"""Hertz below which a frame counts as unvoiced."""

HIGHEST = 1100.0
"""Hertz at which F0 is cut."""


@dataclass(frozen=True)
class Melody:
    """F0 of one piece of audio at 100 Hz, ``samples // 160 + 1`` frames."""

    f0: NDArray[np.float32]  # [F] hertz, unvoiced frames filled; all zero if nothing is voiced
    voiced: NDArray[np.bool_]  # [F]

    def stretched(self, samples: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """F0 and voicing at 200 Hz, ``samples // 80 + 1`` frames, each the frame at ``floor(i * F / count)``.

        In float32, as ``torch.nn.functional.interpolate`` does it: towards the end of 100 s that is sometimes
        one frame off, and the released Spirit LM is so, too.
        """
        count = samples // 80 + 1
        step = np.float32(len(self.f0)) / np.float32(count)
        index = np.minimum(np.arange(count, dtype=np.float32) * step, len(self.f0) - 1).astype(np.int64)
        return self.f0[index], self.voiced[index]


def melody(waveform: NDArray[np.float32], device: str = "cpu") -> Melody:
    """Track F0 of one piece float32[T]; see :func:`melodies`."""
    (found,) = melodies([waveform], device)
    return found


def melodies(
    waveforms: Sequence[NDArray[np.float32]], device: str = "cpu", precision: Precision = "exact"
) -> list[Melody]:
    """Track F0 of pieces float32[T], each by itself: FCPE normalises over the time of a piece.

    A piece without any voiced frame (digital silence, noise) is a melody of zeros.
    """
    return [_melody(track) for track in _model(device, precision)(waveforms, THRESHOLD)]


def _melody(track: NDArray[np.float32]) -> Melody:
    voiced = track >= LOWEST
    return Melody(fill(track, voiced), voiced)


def fill(f0: NDArray[np.float32], voiced: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Interpolate linearly over unvoiced frames, hold the outer voiced values at the ends, cut at 1100 Hz."""
    if not voiced.any():
        return np.zeros(len(f0), np.float32)
    filled = np.interp(np.arange(len(f0)), np.flatnonzero(voiced), f0[voiced])
    return np.minimum(filled, HIGHEST).astype(np.float32)


@cache
def _model(device: str, precision: Precision) -> Fcpe:
    from spiritlm_core.speech.pitch.fcpe import Fcpe

    return Fcpe(device, precision)
