"""How well F0 and voicing come back from pitch units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.speech.pitch.f0 import LOWEST, Melody

if TYPE_CHECKING:
    from spiritlm_core.speech.pitch.coder import PitchCoder

Floats = NDArray[np.float64]
_REFERENCE = 200.0  # hertz, of models that work on octaves
_UNKNOWN_VOICING = "this model's voicing output is no probability"


def tracks(waveforms: Iterable[NDArray[np.float32]], device: str = "cpu") -> list[tuple[Melody, int]]:
    """F0 of each piece of the waveforms, beside its number of samples."""
    from spiritlm_core.speech.pitch.f0 import melody
    from spiritlm_core.speech.types import chunks

    return [(melody(piece, device), len(piece)) for waveform in waveforms for piece in chunks(waveform)]


def f0_figures(coder: PitchCoder, melodies: Iterable[tuple[Melody, int]]) -> dict[str, Any]:
    """Errors of F0 and voicing after encoding and decoding, as JSON values.

    `f0_rmse_cents` is over the frames (200 Hz) that are voiced in the recording; `f0_spread_cents` is the same for
    a decoder that always says the mean of the piece, so an error above it means that nothing was learnt.
    `voicing_error` is the share of all frames whose voicing is wrong. Where a model works on F0 relative to the mean
    of the piece, it is given that mean back.

    Args:
        coder: The pitch model.
        melodies: F0 of pieces and their numbers of samples, see :func:`tracks`.
    """
    parts = [part for track, samples in melodies for part in _piece(coder, track, samples)]
    if not parts:
        return {"missing": "no speech long enough for a pitch unit"}
    error, spread, wrong = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return {
        "voiced_frames": len(error),
        "f0_rmse_cents": _rms(error),
        "f0_spread_cents": _rms(spread),
        "voicing_error": round(float(wrong.mean()), 5) if coder.config.scale == "octaves" else None,
        **({} if coder.config.scale == "octaves" else {"voicing_missing": _UNKNOWN_VOICING}),
    }


def _rms(cents: Floats) -> float | None:
    return round(float(np.sqrt((cents**2).mean())), 2) if len(cents) else None


def _piece(coder: PitchCoder, track: Melody, samples: int) -> Iterator[tuple[Floats, Floats, NDArray[np.bool_]]]:
    """Error and spread of voiced frames in cents, and whether voicing is wrong, of one piece; nothing if too short."""
    given = coder.contour(track, samples)
    if not given.shape[1]:
        return
    level, voicing = coder.reconstruct(coder.encode(given))
    f0, voiced = (values[: len(level)] for values in track.stretched(samples))
    error = spread = np.zeros(0)
    if voiced.any():
        octaves = np.log2(f0[voiced].astype(np.float64))
        spread = 1200 * (octaves - octaves.mean())
        error = 1200 * (_octaves(level[voiced], track, samples, coder) - octaves)
    yield error, spread, (voicing > 0.5) != voiced


def _octaves(level: NDArray[np.float32], track: Melody, samples: int, coder: PitchCoder) -> Floats:
    """Decoded F0 in octaves above 1 Hz; below the lowest F0 that can be voiced it counts as that."""
    f0, voiced = track.stretched(samples)  # the mean is over all of it, the units leave out an incomplete last hop
    in_octaves = coder.config.scale == "octaves"
    known = np.log2(f0[voiced]) if in_octaves else f0[voiced]
    base = np.log2(_REFERENCE) if in_octaves else 0.0
    decoded = level.astype(np.float64) + (known.mean() if coder.config.relative else base)
    return np.asarray(decoded if in_octaves else np.log2(np.maximum(decoded, LOWEST)))
