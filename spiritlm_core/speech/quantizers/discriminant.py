"""Directions of features that tell what is said: linear discriminant analysis over parts of words.

A frame's class is the word that it lies in and which fifth of it. What differs within a class is who speaks, where in
the recording, in which room; what differs between classes is what is said.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spiritlm_core.errors import RecipeError
from spiritlm_core.fit.clips import Clip
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.grid import SAMPLE_RATE, unit_count
from spiritlm_core.speech.quantizers.kmeans import Frames
from spiritlm_core.speech.types import chunks

Parts = NDArray[np.int64]

_FIFTHS = 5  # a fifth of a word of 0.4 s has two frames, and a sound or a half
_RIDGE = 0.01  # of the mean variance within classes is added to each direction, so that none is divided by nothing


def word_parts(clips: Sequence[Clip], words: TableView, hop: int) -> Parts:
    """Number of the part of a word that each frame lies in, int64[frames of all clips]; -1 between words.

    Args:
        clips: the clips, cut and encoded as :func:`chunks` cuts them.
        words: the table of words.
        hop: samples from one frame to the next.
    """
    chosen = pa.array([clip.key for clip in clips], pa.string())
    timed: dict[str, Any] = {}
    for shard in words.shards(("utterance_id", "words")):
        rows = shard.filter(pc.is_in(shard["utterance_id"], chosen)).to_pylist()
        timed |= {row["utterance_id"]: row["words"] for row in rows}
    numbers: dict[tuple[str, int], int] = {}
    found: list[Parts] = []
    for clip in clips:
        start = 0
        for piece in chunks(clip.waveform):
            times = (start + (np.arange(unit_count(len(piece), hop)) + 0.5) * hop) / SAMPLE_RATE
            found.append(_parts(timed.get(clip.key) or (), times, numbers))
            start += len(piece)
    return np.concatenate(found)


def _parts(
    words: Sequence[Mapping[str, Any]], times: NDArray[np.float64], numbers: dict[tuple[str, int], int]
) -> Parts:
    parts = np.full(len(times), -1, np.int64)
    for word in words:
        if word["interpolated"]:
            continue  # nobody knows where it lies
        name = "".join(filter(str.isalnum, word["word"].casefold()))
        for place in np.flatnonzero((times >= word["start"]) & (times < word["end"])):
            fifth = int(_FIFTHS * (times[place] - word["start"]) / (word["end"] - word["start"]))
            parts[place] = numbers.setdefault((name, fifth), len(numbers))
    return parts


def discriminant(frames: Frames, parts: Parts, directions: int) -> Frames:
    """The projection float32[D, directions] of frames float32[N, D] (Fisher 1936), most telling direction last.

    With W the covariance within classes, to whose diagonal a little is added, and B that of their means, a direction v
    has ``B v = l W v`` and ``v' W v = 1``. It is multiplied by ``sqrt(l / (1 + l))``: l / (1 + l) is the share of what
    varies in it that tells classes apart (Ioffe 2006, probabilistic linear discriminant analysis).

    Raises RecipeError: no frame lies in a word, or there are more directions than features.
    """
    from scipy.linalg import eigh

    width = frames.shape[1]
    if directions > width:
        raise RecipeError(f"units.quantizer.directions is {directions}, but the encoder's features are only {width}")
    inside = parts >= 0
    if not inside.any():
        raise RecipeError(
            "units.quantizer.directions needs words with their times, and no train recording has any: give "
            "transcripts, or set it to null"
        )
    order = np.argsort(parts[inside], kind="stable")
    known, classes = frames[inside][order], parts[inside][order]
    _, starts, counts = np.unique(classes, return_index=True, return_counts=True)
    means = np.add.reduceat(known, starts) / counts[:, None].astype(np.float32)
    within = known - np.repeat(means, counts, axis=0)
    between = (means - known.mean(axis=0)) * np.sqrt(counts)[:, None]
    w, b = (x.T @ x / len(known) for x in (within, between))
    w += _RIDGE * np.trace(w) / width * np.eye(width)
    values, vectors = eigh(b, w, subset_by_index=(width - directions, width - 1))
    values = values.clip(min=0)
    projection: Frames = (vectors * np.sqrt(values / (1 + values))).astype(np.float32)
    return projection
