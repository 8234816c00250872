"""Word and sound times from pocketsphinx, to teach the fitted aligner where sounds begin (English only).

pocketsphinx carries a GMM acoustic model of US English and a pronouncing dictionary, so nothing is
downloaded. An utterance with a word outside the dictionary gets no times; CTC teaches it instead.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from spiritlm_core.language import main_code

STEP = 0.01
"""Seconds per frame of pocketsphinx."""


@dataclass(frozen=True)
class Taught:
    """A word as the teacher heard it, in seconds of the utterance.

    Attributes:
        start: Onset of the first sound.
        end: End of the last sound.
        onsets: Onset of every sound, the first equal to `start`.
    """

    start: float
    end: float
    onsets: tuple[float, ...]


Utterance = tuple[np.ndarray, Sequence[str]]


def available(language: str | None) -> bool:
    """Whether the teacher speaks `language` and is installed."""
    return main_code(language, "") == "en" and importlib.util.find_spec("pocketsphinx") is not None


class Pocketsphinx:
    """Forced alignment of one utterance at a time."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        # The best-path pass shortens sounds below the three frames that state alignment needs.
        self._decoder = Decoder(samprate=16_000, lm=None, loglevel="FATAL", bestpath=False)

    def align(self, waveform: np.ndarray, words: Sequence[str]) -> list[Taught] | None:
        """Times of `words` (lower case) in a float waveform; None if a word is unknown or nothing fits."""
        if not words or any(self._decoder.lookup_word(word) is None for word in words):
            return None
        samples = (np.clip(waveform, -1.0, 1.0) * 32767).astype("<i2").tobytes()
        try:
            self._decoder.set_align_text(" ".join(words))
            self._run(samples)
            if self._decoder.hyp() is None:
                return None
            self._decoder.set_alignment()
            self._run(samples)
        except RuntimeError:  # its only way to say that the text does not fit
            return None
        return _matching(self._decoder.get_alignment(), words)

    def _run(self, samples: bytes) -> None:
        self._decoder.start_utt()
        try:
            self._decoder.process_raw(samples, no_search=False, full_utt=True)
        finally:
            self._decoder.end_utt()


def _matching(alignment: Any, words: Sequence[str]) -> list[Taught] | None:
    heard, names = [], []
    for entry in alignment or ():
        if entry.name.startswith(("<", "[", "+")):  # silence and noises
            continue
        names.append(entry.name.partition("(")[0])
        onsets = tuple(sound.start * STEP for sound in entry)
        heard.append(Taught(entry.start * STEP, (entry.start + entry.duration) * STEP, onsets))
    return heard if names == list(words) else None


def _align_all(part: Sequence[Utterance]) -> list[list[Taught] | None]:
    teacher = Pocketsphinx()
    return [teacher.align(waveform, words) for waveform, words in part]


def teach(
    utterances: Sequence[Utterance], workers: int, report: Callable[[float], None] = lambda _: None
) -> list[list[Taught] | None]:
    """Align many utterances; the answers do not depend on `workers`.

    Args:
        utterances: Waveforms (16 kHz) with their words.
        workers: Processes; pocketsphinx holds the interpreter lock, so threads do not help.
        report: Called with the fraction done.
    """
    chunks = list(_chunks(utterances, 32))
    taught: list[list[Taught] | None] = []
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn")) as pool:
        for index, part in enumerate(pool.map(_align_all, chunks)):
            taught += part
            report((index + 1) / len(chunks))
    return taught


def _chunks(items: Sequence[Utterance], size: int) -> Iterator[Sequence[Utterance]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
