"""From speech regions to segments: as long as allowed, cut at the longest pauses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.vad import WINDOW_SECONDS, Region


def segments(
    regions: Sequence[Region], probabilities: np.ndarray, duration: float, config: AudioConfig
) -> list[Region]:
    """Cut a recording into segments of at most ``config.max_seconds``, padding included.

    All speech becomes one segment when it fits. Otherwise each segment ends at the longest pause of the second
    half of what fits, and at any pause longer than ``config.max_pause``.

    Args:
        regions: speech, in order.
        probabilities: of speech, one per 32 ms; says where an endless region is best cut.
        duration: of the recording in seconds.
        config: longest segment, longest pause, padding.

    Returns:
        Segments in order, not overlapping, empty when there are no regions.
    """
    if not regions:
        return []
    room = config.max_seconds - 2 * config.padding
    if regions[-1].end - regions[0].start <= room:
        return _padded([Region(regions[0].start, regions[-1].end)], duration, config.padding)
    rest = [part for region in regions for part in _short_enough(region, probabilities, room)]
    cut: list[Region] = []
    while rest:
        count = _take(rest, room, config.max_pause)
        cut.append(Region(rest[0].start, rest[count - 1].end))
        rest = rest[count:]
    return _padded(cut, duration, config.padding)


def _take(rest: Sequence[Region], room: float, max_pause: float) -> int:
    """How many of the regions go into the next segment."""
    start, end = rest[0].start, rest[0].end
    best, best_pause = 0, -1.0
    for count, following in enumerate(rest[1:], 1):
        pause = following.start - end
        if pause > max_pause:
            return count
        if pause > best_pause and end - start >= room / 2:
            best, best_pause = count, pause
        if following.end - start > room:
            return best or count
        end = following.end
    return len(rest)


def _short_enough(region: Region, probabilities: np.ndarray, room: float) -> list[Region]:
    """Cut a region without pauses where speech is least likely, in the second half of what fits."""
    parts, start = [], region.start
    while region.end - start > room:
        first, last = round((start + room / 2) / WINDOW_SECONDS), int((start + room) / WINDOW_SECONDS)
        cut = (first + int(np.argmin(probabilities[first:last]))) * WINDOW_SECONDS
        parts.append(Region(start, cut))
        start = cut
    return [*parts, Region(start, region.end)]


def _padded(cut: Sequence[Region], duration: float, padding: float) -> list[Region]:
    """Widen each segment by `padding`, but no further than half-way to its neighbour."""
    borders = [0.0, *((left.end + right.start) / 2 for left, right in pairwise(cut)), duration]
    return [
        Region(max(one.start - padding, low), min(one.end + padding, high))
        for one, low, high in zip(cut, borders, borders[1:], strict=False)
    ]
