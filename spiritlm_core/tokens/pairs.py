"""Solved examples as training documents: speech and its words, or words and their speech.

An example of "asr" is ``[Speech]`` units ``[Text]`` words, one of "tts" the reverse: a prompt as
:mod:`spiritlm_core.lm.generate.presets` lays it out (Spirit LM, arXiv 2402.05755, section 4.2), and the answer behind
it. An example is an utterance, or some of its words; several in one document make a few-shot prompt.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from spiritlm_core.tokens.config import PairsConfig
from spiritlm_core.tokens.counter import uniform
from spiritlm_core.tokens.interleave import quantiles
from spiritlm_core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from spiritlm_core.tokens.corpus import Corpus, Runs

Span = tuple[bool, int, int]
"""A stretch of one modality: whether it is speech, its first word, and the word behind its last."""

_DRAWS = 4  # of each example: which one (of the last: how many there are), crop or whole, length, place


class Examples:
    """Draws the examples of documents."""

    def __init__(self, corpus: Corpus, config: PairsConfig, capacity: int) -> None:
        """`capacity`: tokens of a document without BOS and EOS."""
        self._corpus, self._config, self._capacity = corpus, config, capacity
        self._law = quantiles(config.crop_words)

    def draw(self, stream: str, run: int, key: int) -> list[Span]:
        """The spans of a document that ends with the example of `run`; none if that does not fit.

        Others stand in front of it, each drawn from all, as many as the draw and the context allow.

        Args:
            stream: "asr" or "tts".
            run: index into the runs of that stream.
            key: the 64-bit random key of the run in this epoch.
        """
        runs = self._corpus.runs(stream)
        count = 1 + int(uniform(key, 0) * (self._config.shots + 1))
        others = [int(uniform(key, _DRAWS * number) * len(runs)) for number in range(1, count)]
        words: list[tuple[int, int]] = []
        room = self._capacity
        for number, one in enumerate(dict.fromkeys([run, *others])):
            if drawn := self._words(runs, one, room, key, _DRAWS * number):
                words.insert(0, drawn)
                room -= self._cost(*drawn)
            elif not words:
                return []
        return [(speech, *one) for one in words for speech in (stream == "asr", stream != "asr")]

    def _words(self, runs: Runs, run: int, room: int, key: int, draw: int) -> tuple[int, int] | None:
        """First word of an example and the word behind its last; None if there is no room for any.

        It is the whole utterance, or a crop between two places where the modality may change, every one equally
        likely. Of an utterance that has no room, it is as much as fits behind a place drawn at random.
        """
        first, last = int(runs.first[run]), int(runs.last[run])
        crop, whole = uniform(key, draw + 1) < self._config.crops, self._cost(first, last) <= room
        if whole and not crop:
            return first, last
        places = [*(np.flatnonzero(self._corpus.can_switch[first:last]) + first).tolist(), last]
        length = self._law.one(uniform(key, draw + 2)) if crop else 1
        starts = [place for place in places[:-1] if place + length <= last] or places[:1]
        start = starts[int(uniform(key, draw + 3) * len(starts))]
        ends = [place for place in places if place > start and self._cost(start, place) <= room]
        if not ends:
            return None
        end = bisect_left(ends, start + length) if crop else len(ends)
        return start, ends[min(end, len(ends) - 1)]

    def _cost(self, first: int, last: int) -> int:
        """Tokens of an example, with its two markers."""
        offsets = (tokens.offsets for tokens in (self._corpus.text, self._corpus.speech))
        return 2 + sum(int(own[last] - own[first]) for own in offsets)


def of_answers(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Of each token of a document of examples, int[N]: is it of an answer, or what ends one? Returns bool[N].

    That is what stands behind a token of an answer or behind its marker: the model is given the marker.
    """
    spans = np.cumsum((ids == vocabulary.text_marker) | (ids == vocabulary.speech_marker))  # from 1 on; 0 is BOS
    answers = (spans > 0) & (spans % 2 == 0)
    return np.concatenate([[False], answers[:-1]])
