"""The transcript of a long recording, shared out among the segments that voice activity cut it into.

Every segment is read without knowing the text (greedily by the aligner, or by a recogniser), all readings
are joined and matched to the transcript character by character (Levenshtein). Where several characters in a
row agree the text is tied to the time at which they were heard; in between the text flows evenly through the
time. So a weak reading does little harm: what it got wrong ties nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiritlm_core.align.words import Word

_TIE = 3  # characters in a row; fewer agree by chance


def place(words: Sequence[Word], readings: Sequence[str], durations: Sequence[float]) -> list[list[Word]]:
    """Share the words of a recording out among its segments, of `durations` in seconds, in order of time.

    A reading is what was heard in a segment: lower-case letters, white space ignored.
    """
    shared: list[list[Word]] = [[] for _ in readings]
    for word, segment in zip(words, _segments(words, readings, durations), strict=True):
        shared[segment].append(word)
    return shared


def _segments(words: Sequence[Word], readings: Sequence[str], durations: Sequence[float]) -> np.ndarray:
    """Index of the segment of every word, never falling."""
    heard = ["".join(reading.split()) for reading in readings]
    spoken = ["".join(word.spoken) for word in words]
    sizes = np.array([len(word) for word in spoken], dtype=np.int64)
    middles = np.cumsum(sizes) - sizes / 2  # of every word, in characters of the transcript
    ends = np.cumsum(durations)
    times = np.interp(middles, *_ties("".join(spoken), "".join(heard), _times(heard, ends), float(ends[-1])))
    nearest: np.ndarray = np.minimum(np.searchsorted(ends, times, side="right"), len(readings) - 1)
    return nearest


def _times(heard: Sequence[str], ends: np.ndarray) -> np.ndarray:
    """When every character was heard, taken to be spread evenly over its segment."""
    starts = np.concatenate([[0.0], ends[:-1]])
    parts = [
        s + (e - s) * (np.arange(len(h)) + 0.5) / max(len(h), 1) for h, s, e in zip(heard, starts, ends, strict=True)
    ]
    return np.concatenate(parts)


def _ties(text: str, heard: str, times: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `text` and the times they are tied to, both rising; start and end are tied to start and end."""
    from rapidfuzz.distance import Levenshtein

    positions: list[np.ndarray] = [np.zeros(1)]
    when: list[np.ndarray] = [np.zeros(1)]
    for block in Levenshtein.opcodes(text, heard):
        if block.tag == "equal" and block.src_end - block.src_start >= min(_TIE, len(text)):
            positions.append(np.arange(block.src_start, block.src_end) + 0.5)
            when.append(times[block.dest_start : block.dest_end])
    return np.concatenate([*positions, [len(text)]]), np.concatenate([*when, [end]])
