"""Where words lie: times for all of them, in order; and the transcript of a long recording among its segments.

To share it out, every segment is read without knowing the text (greedily by the aligner, or by a recogniser), all
readings are joined and matched to the transcript character by character (Levenshtein). Where several characters in
a row agree the text is tied to the time at which they were heard; in between it flows evenly through the time. So a
weak reading does little harm: what it got wrong ties nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spiritlm_core.tokens.words import Word

NO_PAUSE = 0.041  # seconds; a shorter gap between two words is the aligner's frame grid, not a pause


@dataclass(frozen=True)
class Span:
    """When a word was said: seconds from the start of the segment, and the aligner's confidence (0 to 1).

    That is None where the aligner could not time the word, and its times are interpolated.
    """

    start: float
    end: float
    score: float | None


def fill(spans: Sequence[Span | None], lengths: Sequence[int], duration: float) -> list[Span]:
    """Give every word a time.

    Untimed words share the gap between their timed neighbours in proportion to their length; where there is
    no gap to speak of, they share the time of the word before them (or after them, at the start) with it.

    Args:
        spans: One per word, in the order of the text; None for a word without times. Spans that run backwards
            or leave the segment are put right.
        lengths: Spoken characters of each word, at least 1.
        duration: Of the segment, in seconds.

    Returns:
        One span per word: starts never fall, no word ends before it starts or after the next one
        starts, all between 0 and `duration`.
    """
    edges = np.zeros((len(spans), 2))
    for group in _merged(_groups(_ordered(spans, duration), duration), lengths):
        edges[group.first : group.last] = _shared(group, lengths)
    edges = _contiguous(edges)
    scores = [None if span is None else span.score for span in spans]
    return [Span(float(a), float(b), score) for (a, b), score in zip(edges, scores, strict=True)]


@dataclass(frozen=True)
class _Group:
    """Words ``first`` up to ``last`` (not included) share the time from `start` to `end`."""

    first: int
    last: int
    start: float
    end: float
    timed: bool

    def joined(self, other: _Group) -> _Group:
        return _Group(self.first, other.last, self.start, other.end, timed=True)


def _ordered(spans: Sequence[Span | None], duration: float) -> list[tuple[float, float] | None]:
    """Clip to the segment, make starts rise, and let no word reach into the next."""
    ordered: list[tuple[float, float] | None] = []
    latest = 0.0
    for span in spans:
        if span is None:
            ordered.append(None)
            continue
        start = min(max(span.start, latest), duration)
        ordered.append((start, min(max(span.end, start), duration)))
        latest = start
    following = duration
    for index in range(len(ordered) - 1, -1, -1):
        if (pair := ordered[index]) is not None:
            ordered[index] = (pair[0], min(pair[1], following))
            following = pair[0]
    return ordered


def _groups(known: Sequence[tuple[float, float] | None], duration: float) -> list[_Group]:
    """Every timed word on its own; untimed neighbours together, with the gap around them."""
    groups: list[_Group] = []
    for index, pair in enumerate(known):
        if pair is not None:
            groups.append(_Group(index, index + 1, *pair, timed=True))
        elif index == 0 or known[index - 1] is not None:
            last = next((i for i in range(index, len(known)) if known[i] is not None), len(known))
            following = known[last] if last < len(known) else None
            start, end = groups[-1].end if groups else 0.0, following[0] if following else duration
            groups.append(_Group(index, last, start, end, timed=False))
    return groups


def _merged(groups: Sequence[_Group], lengths: Sequence[int]) -> list[_Group]:
    """Join an untimed group with the word before it (or after it, at the start) if its gap is too short."""
    merged: list[_Group] = []
    for group in groups:
        if merged and (_cramped(group, lengths) or (len(merged) == 1 and _cramped(merged[0], lengths))):
            merged[-1] = merged[-1].joined(group)
        else:
            merged.append(group)
    return merged


def _cramped(group: _Group, lengths: Sequence[int]) -> bool:
    """Less than 20 ms a character for words that nobody timed."""
    return not group.timed and group.end - group.start < 0.02 * sum(lengths[group.first : group.last])


def _shared(group: _Group, lengths: Sequence[int]) -> np.ndarray:
    """Start and end of every word of a group, in proportion to their lengths."""
    own = np.array(lengths[group.first : group.last], dtype=np.float64)
    shares = np.concatenate([[0.0], np.cumsum(own)]) / own.sum()
    points = np.clip(group.start + (group.end - group.start) * shares, group.start, group.end)
    return np.stack([points[:-1], points[1:]], axis=1)


def _contiguous(edges: np.ndarray) -> np.ndarray:
    """Close gaps that are no pauses."""
    ends = edges[:, 1].copy()
    gaps = edges[1:, 0] - ends[:-1]
    ends[:-1] = np.where(gaps <= NO_PAUSE, edges[1:, 0], ends[:-1])
    return np.stack([edges[:, 0], ends], axis=1)


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
    return np.minimum(np.searchsorted(ends, times, side="right"), len(readings) - 1)


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
