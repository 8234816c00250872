"""What a unit stream costs, and how much of its codebook it uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.evaluate.units.robustness import as_sent
from spiritlm_core.fit.clips import perplexity


def stream_figures(stream: str, units: Sequence[NDArray[np.integer[Any]]], size: int, seconds: float) -> dict[str, Any]:
    """Rates, bits and codebook use of one stream over all clips, as JSON values.

    `bitrate` is that of the stream as the language model gets it (runs collapsed, but for style): units per second
    times the entropy of their frequencies, in bits; `bitrate_flat` counts log2(`size`) bits for each of them.
    `perplexity` is of the frames.

    Args:
        stream: hubert, pitch or style.
        units: int[N] of each clip.
        size: Units in the codebook.
        seconds: Length of all clips.
    """
    sent = np.array([unit for clip in units for unit in as_sent(stream, clip)], np.int64)
    frames = np.concatenate([np.zeros(0, np.int64), *units]).astype(np.int64)
    rate = len(sent) / seconds
    bits = np.log2(perplexity(sent, size)) if len(sent) else 0.0
    figures = {
        "frames_per_second": len(frames) / seconds,
        "units_per_second": rate,
        "bitrate": rate * bits,
        "bitrate_flat": rate * np.log2(size),
        "perplexity": perplexity(frames, size),
    }
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    return {"size": size, "used": len(np.unique(frames)), "frames": len(frames), **rounded}
