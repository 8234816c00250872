"""The transcript of a long recording, shared out among the segments that voice activity cut it into.

Every segment is read without knowing the text (greedily by the aligner, or by a recogniser), all readings
are joined and matched to the transcript character by character (Levenshtein), and a word goes to the segment
in which its characters were heard. A weak reading is enough: what matched nowhere lies between what did.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiritlm_core.align.words import Word


def place(words: Sequence[Word], readings: Sequence[str]) -> list[list[Word]]:
    """Share `words` out among segments.

    Args:
        words: The transcript of the recording.
        readings: What was heard in each segment, in order of time: lower-case letters, white space ignored.

    Returns:
        The words of each segment; joined, they are `words` again.
    """
    shared: list[list[Word]] = [[] for _ in readings]
    for word, segment in zip(words, _segments(words, readings), strict=True):
        shared[segment].append(word)
    return shared


def _segments(words: Sequence[Word], readings: Sequence[str]) -> np.ndarray:
    """Index of the segment of every word, never falling."""
    heard = ["".join(reading.split()) for reading in readings]
    spoken = ["".join(word.spoken) for word in words]
    sizes = np.array([len(word) for word in spoken], dtype=np.int64)
    middles = np.cumsum(sizes) - (sizes + 1) / 2  # position of the middle character of every word
    where = np.interp(middles, *_anchors("".join(spoken), "".join(heard)))
    ends = np.cumsum([len(text) for text in heard]) - 0.5
    found: np.ndarray = np.minimum(np.searchsorted(ends, where), len(readings) - 1)
    return found


def _anchors(text: str, heard: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `text` and in `heard` that belong together, both rising; both ends are tied."""
    from rapidfuzz.distance import Levenshtein

    pairs = [(-1.0, -1.0)]
    for block in Levenshtein.opcodes(text, heard):
        if block.tag == "equal":
            pairs += [(block.src_start + i, block.dest_start + i) for i in range(block.src_end - block.src_start)]
    pairs.append((float(len(text)), float(len(heard))))
    matched = np.array(pairs, dtype=np.float64)
    return matched[:, 0], matched[:, 1]
