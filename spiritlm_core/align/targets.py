"""From words to what the aligner learns: label sequences, and for taught utterances a label per frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from spiritlm_core.align.teacher import Taught

BLANK, BOUNDARY = "<pad>", "|"  # the names that whisperx.align looks for
FRAME_RATE = 50
"""Frames of the aligner per second."""


def characters_of(utterances: Iterable[Sequence[str]], least: int) -> tuple[str, ...]:
    """The labels for a corpus: blank, word boundary, then every character seen `least` times, sorted."""
    counts = Counter(character for words in utterances for word in words for character in word)
    common = sorted(character for character, count in counts.items() if count >= least)
    return (BLANK, BOUNDARY, *(character for character in common if character != BOUNDARY))


def labels_of(words: Sequence[str], dictionary: dict[str, int]) -> np.ndarray:
    """Label sequence int64 of an utterance: its characters, a boundary after every word."""
    text = "".join(word + BOUNDARY for word in words)
    return np.array([dictionary[character] for character in text if character in dictionary], np.int64)


def spikes_of(words: Sequence[str], times: Sequence[Taught], frames: int, dictionary: dict[str, int]) -> np.ndarray:
    """A label per frame, int64 (frames,): a spike where a character's sound starts, blank elsewhere.

    Letters are spread over the sounds of their word by rank; the first is exactly at the word's start,
    which is the time that counts. The boundary follows at the word's end, or as late as the next word allows.
    """
    spikes = np.zeros(frames, np.int64)
    for index, (word, time) in enumerate(zip(words, times, strict=True)):
        letters = [dictionary[letter] for letter in word if letter in dictionary]
        following = times[index + 1].start if index + 1 < len(times) else frames / FRAME_RATE
        last = min(round(following * FRAME_RATE), frames) - 1
        places = _places(_onsets(time, len(letters)), round(time.end * FRAME_RATE), last)
        for label, place in zip([*letters, dictionary[BOUNDARY]], places, strict=True):
            if 0 <= place < frames:
                spikes[place] = label
    return spikes


def _onsets(time: Taught, letters: int) -> list[float]:
    """Onset of each of `letters` letters, interpolated along the onsets of the sounds."""
    edges = [*time.onsets, time.end]
    ranks = np.arange(letters) * len(time.onsets) / max(letters, 1)
    return [float(x) for x in np.interp(ranks, np.arange(len(edges)), edges)]


def _places(onsets: list[float], end: int, last: int) -> list[int]:
    """Strictly rising frames for the letters and the boundary, none after `last` if that can be had."""
    places: list[int] = []
    for wanted in [*(round(onset * FRAME_RATE) for onset in onsets), end]:
        places.append(max(wanted, places[-1] + 1) if places else wanted)
    for index in range(len(places) - 1, 0, -1):
        places[index] = min(places[index], last - (len(places) - 1 - index))
    return places
