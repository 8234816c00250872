"""Solved examples as training documents: speech and its words, words and their speech, or speech and its label.

An example of "asr" is ``[Speech]`` units ``[Text]`` words, one of "tts" the reverse, one of "classification"
``[Speech]`` units ``[Text]`` label: a prompt as :mod:`spiritlm_core.lm.generate.presets` lays it out (Spirit LM, arXiv
2402.05755, section 4.2), and the answer behind it. An example is an utterance, or some of its words; several in one
document make a few-shot prompt.
"""

import numpy as np

from spiritlm_core.tokens.config import PairsConfig
from spiritlm_core.tokens.corpus import Corpus, Runs
from spiritlm_core.tokens.counter import uniform
from spiritlm_core.tokens.vocabulary import Vocabulary

TEXT, SPEECH, LABEL = range(3)
Span = tuple[int, int, int]
"""What it holds, `TEXT`, `SPEECH` or `LABEL`; its first word, and the one behind its last (of labels, segments)."""

_DRAWS = 4  # of each example: which one (of the last: how many there are), crop or whole, length, place


class Examples:
    """Draws the examples of documents."""

    def __init__(self, corpus: Corpus, config: PairsConfig, capacity: int) -> None:
        """`capacity`: tokens of a document without BOS and EOS."""
        self._corpus, self._config, self._capacity = corpus, config, capacity

    def draw(self, stream: str, run: int, key: int) -> list[Span]:
        """The spans of a document that ends with the example of `run` of `stream`; none if that does not fit.

        Others stand in front of it, each drawn from all, as many as the draw and the context allow; `key` is the 64-bit
        random key of the run in this epoch.
        """
        runs = self._corpus.runs(stream)
        count = 1 + int(uniform(key, 0) * (self._config.shots + 1))
        others = [int(uniform(key, _DRAWS * number) * len(runs)) for number in range(1, count)]
        found: list[Span] = []
        room = self._capacity
        for number, one in enumerate(dict.fromkeys([run, *others])):
            if example := self._example(stream, runs, one, room, key, _DRAWS * number):
                found = [*example, *found]
                room -= self._cost(example)
            elif not number:
                break
        return found

    def _example(self, stream: str, runs: Runs, run: int, room: int, key: int, draw: int) -> list[Span]:
        """Question and answer; nothing if there is no room for any.

        Those of asr and tts are the whole utterance, or a crop between two places where the modality may change, every
        one equally likely. Of an utterance that has no room, it is as much as fits behind a place drawn at random.
        """
        first, last = int(runs.first[run]), int(runs.last[run])
        crop = stream != "classification" and uniform(key, draw + 1) < self._config.crops
        whole = self._sides(stream, first, last)
        if not crop and self._cost(whole) <= room:
            return whole
        places = [*(np.flatnonzero(self._corpus.can_switch[first:last]) + first).tolist(), last]
        length = self._config.crop_words.length(uniform(key, draw + 2)) if crop else 1
        starts = [place for place in places[:-1] if place + length <= last] or places[:1]
        start = starts[int(uniform(key, draw + 3) * len(starts))]
        ends = [place for place in places if place > start]
        cuts = [one for end in ends if self._cost(one := self._sides(stream, start, end)) <= room]
        enough = sum(end < start + length for end in ends) if crop else len(cuts)
        return cuts[min(enough, len(cuts) - 1)] if cuts else []

    def _sides(self, stream: str, first: int, last: int) -> list[Span]:
        if stream == "classification":
            segment = self._corpus.segment(first)
            return [(SPEECH, first, last), (LABEL, segment, segment + 1)]
        sides = [(SPEECH, first, last), (TEXT, first, last)]
        return sides if stream == "asr" else sides[::-1]

    def _cost(self, spans: list[Span]) -> int:
        """Tokens of some spans, with their markers."""
        of = (self._corpus.text, self._corpus.speech, self._corpus.labels)
        return len(spans) + sum(int(of[kind].offsets[last] - of[kind].offsets[first]) for kind, first, last in spans)


def of_answers(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Of each token of a document of examples, int[N]: is it of an answer, or what ends one? Returns bool[N].

    That is what stands behind a token of an answer or behind its marker: the model is given the marker.
    """
    spans = np.cumsum((ids == vocabulary.text_marker) | (ids == vocabulary.speech_marker))  # from 1 on; 0 is BOS
    answers = (spans > 0) & (spans % 2 == 0)
    return np.concatenate([[False], answers[:-1]])
