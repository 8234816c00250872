"""Fundamental frequency with FCPE, the conformer-based pitch estimator bundled in `torchfcpe` (MIT)."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.speech.grid import SAMPLE_RATE

THRESHOLD = 0.05  # confidence above which a frame may be voiced; the value of the released Spirit LM
LOWEST = 50.0  # hertz below which a frame counts as unvoiced
HIGHEST = 1100.0  # hertz at which F0 is cut


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
    """Track F0 of one piece float32[T] by itself: FCPE (arXiv 2509.15140) normalises over the time of a piece.

    A piece without any voiced frame (digital silence, noise) is a melody of zeros.
    """
    import torch

    samples = torch.from_numpy(waveform).to(device)[None, :, None]
    with torch.inference_mode():
        f0 = bundled_fcpe(device)(samples, SAMPLE_RATE, decoder_mode="local_argmax", threshold=THRESHOLD)
    track = f0[0, :, 0].cpu().numpy()
    voiced = track >= LOWEST
    return Melody(fill(track, voiced), voiced)


def fill(f0: NDArray[np.float32], voiced: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Interpolate linearly over unvoiced frames, hold the outer voiced values at the ends, cut at 1100 Hz."""
    if not voiced.any():
        return np.zeros(len(f0), np.float32)
    filled = np.interp(np.arange(len(f0)), np.flatnonzero(voiced), f0[voiced])
    return np.minimum(filled, HIGHEST).astype(np.float32)


@cache
def bundled_fcpe(device: str) -> Any:
    """The model that `torchfcpe` bundles; it reports on standard output, which belongs to our caller."""
    with redirect_stdout(io.StringIO()):
        import torchfcpe

        return torchfcpe.spawn_bundled_infer_model(device).eval()
