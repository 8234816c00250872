"""Fundamental frequency with FCPE, the conformer-based pitch estimator bundled in `torchfcpe` (MIT)."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.lake.schema import SAMPLE_RATE

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
        """F0 and voicing at 200 Hz, ``samples // 80 + 1`` frames, each the frame at ``i * F // count``."""
        count = samples // 80 + 1
        index = np.arange(count) * len(self.f0) // count
        return self.f0[index], self.voiced[index]


def melody(waveform: NDArray[np.float32], device: str = "cpu") -> Melody:
    """Track F0 of float32[T]; one piece at a time, because FCPE normalises over the time of all it is given.

    A piece without any voiced frame (digital silence, noise) is a melody of zeros.
    """
    import torch

    with torch.inference_mode():
        batch = torch.from_numpy(waveform)[None, :, None]
        f0 = _model(device)(batch, SAMPLE_RATE, decoder_mode="local_argmax", threshold=THRESHOLD)
    track = f0[0, :, 0].float().cpu().numpy()
    voiced = track >= LOWEST
    return Melody(fill(track, voiced), voiced)


def fill(f0: NDArray[np.float32], voiced: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Interpolate linearly over unvoiced frames, hold the outer voiced values at the ends, cut at 1100 Hz."""
    if not voiced.any():
        return np.zeros(len(f0), np.float32)
    filled = np.interp(np.arange(len(f0)), np.flatnonzero(voiced), f0[voiced])
    return np.minimum(filled, HIGHEST).astype(np.float32)


@cache
def _model(device: str) -> Any:
    """The bundled model; it reports on standard output, which belongs to our caller."""
    with redirect_stdout(io.StringIO()):
        import torchfcpe

        return torchfcpe.spawn_bundled_infer_model(device).eval()
