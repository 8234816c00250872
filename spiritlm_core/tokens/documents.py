"""Documents of the streams, cut from the recordings.

"text" is ``[Text]`` and text tokens, "speech" is ``[Speech]`` and speech tokens, "interleaved" changes between
them with the marker in front of each span. Consecutive segments of a recording are joined up to the context length.
Those of the other streams are solved examples, see :mod:`spiritlm_core.tokens.pairs`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from spiritlm_core.tokens.config import PAIRS, SpanLaw, TokensConfig
from spiritlm_core.tokens.corpus import STREAMS, Corpus
from spiritlm_core.tokens.counter import combine, key_of, uniform
from spiritlm_core.tokens.pairs import Examples, Span, of_answers
from spiritlm_core.tokens.vocabulary import Vocabulary

_COPY = 2**40  # the draw of a run's key that says which copy it takes, far behind those of spans


@dataclass(frozen=True)
class Document:
    """One document as token ids."""

    ids: np.ndarray
    """int32[N], BOS and EOS included where the vocabulary has them. EOS only follows the end of a recording."""
    stream: str  # one of `STREAMS`
    key: str  # its recording_id
    predicted: np.ndarray | None = None  # bool[N], the tokens that the loss counts; None for all of them

    @property
    def targets(self) -> np.ndarray:
        """The ids that are predicted and that the loss counts, int32[M]: nothing predicts the first."""
        return self.ids[1:] if self.predicted is None else self.ids[1:][self.predicted[1:]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A document before its ids are put together."""

    stream: str  # as in :class:`Document`
    run: int  # index into the runs of that stream
    spans: list[Span]  # its stretches of one modality
    ends: bool  # whether the recording, or the last example, ends here
    length: int  # number of tokens
    planner: Any = field(compare=False, repr=False)  # a `Planner` or `TextPlanner`, which has its tokens

    def document(self) -> Document:
        """The document with its ids."""
        document: Document = self.planner.document(self)
        return document


class Planner:
    """Plans the documents of a corpus, and puts their ids together."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, config: TokensConfig, seed: int, copy: int = 0) -> None:
        self.corpus, self.copy = corpus, copy
        self._seed, self._vocabulary = seed, vocabulary
        self._laws = config.text_span, config.speech_span
        self._tokens = corpus.text, corpus.speech, corpus.labels
        text, speech = (np.array([i], np.int32) for i in (vocabulary.text_marker, vocabulary.speech_marker))
        self._markers = text, speech, text
        self._bos, self._eos = (np.array([i] * (i is not None), np.int32) for i in (vocabulary.bos, vocabulary.eos))
        self._capacity = config.context_length - len(self._bos) - len(self._eos)
        self._examples = Examples(corpus, config.pairs, self._capacity)
        self._answers_alone = config.pairs.loss == "answer"

    def size(self, stream: str) -> int:
        """Tokens of one epoch of the text or speech stream, without markers, BOS and EOS."""
        runs, offsets = self.corpus.runs(stream), self._tokens[stream == "speech"].offsets
        return int((offsets[runs.last] - offsets[runs.first]).sum())

    def keys(self, stream: str, epoch: int) -> np.ndarray:
        """A random key of each run, uint64[R], new in every epoch."""
        return combine(self.corpus.runs(stream).keys, key_of(self._seed, stream, epoch))

    def plans(self, stream: str, run: int, key: int) -> list[Plan]:
        """The documents of one run; none if it has no tokens."""
        if stream in PAIRS:
            solved = self._examples.draw(stream, run, key)
            return [self._plan(stream, run, solved, True)] if solved else []
        runs = self.corpus.runs(stream)
        first, last = int(runs.first[run]), int(runs.last[run])
        starts, speech_first = [first], stream == "speech"
        if stream == "interleaved":
            starts, speech_first = spans(self.corpus.can_switch[first:last], *self._laws, key)
            starts = [first + start for start in starts]
        bounds = [*starts, last]
        whole = self._plan(stream, run, _laid(bounds, speech_first), True)
        tokens = whole.length - len(self._bos) - len(self._eos)
        if tokens <= self._capacity:
            return [whole] if tokens > len(starts) else []
        return self._cut(stream, run, bounds, speech_first)

    def _plan(self, stream: str, run: int, spans: list[Span], ends: bool) -> Plan:
        length = len(self._bos) + len(spans) + ends * len(self._eos)
        for kind, first, last in spans:
            offsets = self._tokens[kind].offsets
            length += int(offsets[last] - offsets[first])
        return Plan(stream, run, spans, ends, length, self)

    def _cut(self, stream: str, run: int, bounds: list[int], speech_first: bool) -> list[Plan]:
        """Cut a run into documents that are as long as the context allows; spans cut through go on in the next."""
        found = []
        for at, end in pairwise(self._cuts(bounds, speech_first)):
            inner = bounds[(i := bisect_right(bounds, at)) : bisect_left(bounds, end)]
            part, side = [at, *inner, end], speech_first ^ (i % 2 == 0)
            found.append(self._plan(stream, run, _laid(part, side), end == bounds[-1]))
        return found

    def _cuts(self, bounds: list[int], speech_first: bool) -> list[int]:
        """First word of each document, then the word behind the last; where a switch is allowed, if there is one."""
        first, last = bounds[0], bounds[-1]
        spent = self._spent(bounds, speech_first)
        allowed = [*(np.flatnonzero(self.corpus.can_switch[first:last]) + first).tolist(), last]
        cuts = [first]
        while (at := cuts[-1]) < last:
            room = self._capacity - (bounds[bisect_right(bounds, at) - 1] != at)  # a span cut through: its marker again
            end = first + int(np.searchsorted(spent, spent[at - first] + room, "right")) - 1
            better = allowed[bisect_right(allowed, end) - 1]
            cuts.append(better if better > at else end)
        return cuts

    def _spent(self, bounds: list[int], speech_first: bool) -> np.ndarray:
        """Tokens and markers in front of each word of a run and of its end, int64[W + 1]."""
        first, last = bounds[0], bounds[-1]
        sides = (np.arange(len(bounds) - 1) % 2 == 1) ^ speech_first
        text, speech = (np.diff(tokens.offsets[first : last + 1]) for tokens in self._tokens[:2])
        costs = np.where(np.repeat(sides, np.diff(bounds)), speech, text)
        costs[np.array(bounds[:-1]) - first] += 1
        return np.concatenate([[0], np.cumsum(costs)])

    def ids(self, plan: Plan) -> np.ndarray:
        """The token ids of a document, int32[plan.length]."""
        parts = [self._bos]
        for kind, first, last in plan.spans:
            tokens = self._tokens[kind]
            parts += [self._markers[kind], tokens.ids[tokens.offsets[first] : tokens.offsets[last]]]
        if plan.ends:
            parts.append(self._eos)
        return np.concatenate(parts)

    def document(self, plan: Plan) -> Document:
        """The document with its ids."""
        ids, key = self.ids(plan), self.corpus.runs(plan.stream).recordings[plan.run]
        counted = of_answers(ids, self._vocabulary) if plan.stream in PAIRS and self._answers_alone else None
        return Document(ids, plan.stream, key, counted)


class EpochPlanner:
    """Plans the documents of recordings of which there are several encodings: in each epoch each run takes one."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, config: TokensConfig, seed: int) -> None:
        every = enumerate((corpus, *corpus.copies))
        self._planners = [Planner(one, vocabulary, config, seed, copy) for copy, one in every]
        self.keys, self.size = self._planners[0].keys, self._planners[0].size

    def plans(self, stream: str, run: int, key: int) -> list[Plan]:
        """The documents of one run, whose `key`, new in every epoch, says of which encoding."""
        return self._planners[int(uniform(key, _COPY) * len(self._planners))].plans(stream, run, key)


def _laid(bounds: list[int], speech_first: bool) -> list[Span]:
    """Spans that alternate between text and speech."""
    return [((i % 2) ^ speech_first, first, last) for i, (first, last) in enumerate(pairwise(bounds))]


def corpus_documents(
    corpus: Corpus, vocabulary: Vocabulary, config: TokensConfig, *, stream: str, seed: int, epoch: int
) -> Iterator[Document]:
    """All documents of one stream, ordered by recording_id and time; spans depend on `seed` and `epoch`.

    Raises ValueError: there is no such stream.
    """
    if stream not in STREAMS:
        raise ValueError(f"there is no stream {stream!r}; the streams are {', '.join(STREAMS)}")
    planner = EpochPlanner(corpus, vocabulary, config, seed)
    for run, key in enumerate(planner.keys(stream, epoch).tolist()):
        for plan in planner.plans(stream, run, key):
            yield plan.document()


def spans(can_switch: np.ndarray, text: SpanLaw, speech: SpanLaw, key: int) -> tuple[list[int], bool]:
    """Draw the spans of one run of words: they alternate between the modalities and begin with either at random.

    Their lengths in words follow one law for text and one for speech (arXiv 2402.05755, section 3.1); one that would
    end where no switch is allowed goes on to where it is. A run too short for a second span is cut once at a random
    place, so that it shows both modalities; one without any place to switch, such as a single word, becomes one span.

    Args:
        can_switch: bool[W], whether the modality may change in front of each word.
        text: Law of text spans.
        speech: Law of speech spans.
        key: The 64-bit random key of the run.

    Returns the first word of each span, from 0 on, and whether the first span is speech.
    """
    speech_first = uniform(key, 0) < 0.5
    laws = cycle((speech, text) if speech_first else (text, speech))
    lengths = (law.length(uniform(key, number)) for number, law in enumerate(laws, 2))
    words, allowed = len(can_switch), [*can_switch.tolist(), True]
    starts, at = [0], next(lengths)
    while at < words and (at := allowed.index(True, at)) < words:
        starts.append(at)
        at += next(lengths)
    if len(starts) == 1 and words > 1:
        places = [place for place in range(1, words) if allowed[place]]
        starts += places[(i := int(uniform(key, 1) * len(places))) : i + 1]
    return starts, speech_first
