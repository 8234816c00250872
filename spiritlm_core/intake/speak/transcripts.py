"""Sentences put together from what the other recordings of a recipe say: their words, and which follow which.

Of held-out recordings nothing is used, and no sentence of two or more words is made that one of them says.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from spiritlm_core.intake.speak.draw import Choice, Draw, evenly, shuffled

_EDGES = '.,;:!?…"“”„«»¿¡'
_SAYABLE = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*|\d{1,2}")  # noqa: RUF001 - a word, or a small number
_ATTEMPTS = 8


@dataclass(frozen=True)
class Told:
    """What the other sources of a recipe say."""

    language: str = "en"  # of the recipe
    train: tuple[str, ...] = ()  # transcripts of recordings that are trained on
    held_out: tuple[str, ...] = ()  # transcripts of those that are not

    @cached_property
    def runs(self) -> list[list[str]]:
        """Words of the train transcripts that follow each other, in their usual case."""
        runs = [run for text in self.train for run in _runs(text)]
        known = {word for run in runs for word in run}
        return [[_usual(run[0], known), *run[1:]] for run in runs]

    @cached_property
    def never(self) -> frozenset[tuple[str, ...]]:
        """Sentences that must not be made."""
        return frozenset(plain(text.split()) for text in self.held_out)


class Recombined:
    """A chain of words in which each follows those before it as often as in the transcripts (Shannon 1948)."""

    def __init__(self, told: Told, context: int, length: tuple[int, int]) -> None:
        """`context` is how many words the next one depends on, `length` how many a sentence has."""
        self._never, self._context, self._length = told.never, context, length
        vocabulary = sorted({word for run in told.runs for word in run})
        self._order = shuffled(vocabulary, Draw("vocabulary"))
        self._any = evenly(tuple(vocabulary))
        self._after: dict[tuple[str, ...], Choice[str]] = {}
        self._counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for run in told.runs:
            for at in range(context, len(run)):
                self._counts[tuple(run[at - context : at])][run[at]] += 1

    def sentence(self, draw: Draw, number: int) -> str | None:
        """The sentence of that number; their first words go through the vocabulary, so that each is said."""
        first = self._order[number % len(self._order)]
        texts = (self._chain(first, draw.at(attempt)) for attempt in range(_ATTEMPTS))
        return next((" ".join(words) for words in texts if len(words) == 1 or plain(words) not in self._never), None)

    def _chain(self, first: str, draw: Draw) -> list[str]:
        words = [first]
        for place in range(1, draw.at("length").whole(*self._length)):
            words.append(self._next(tuple(words[-self._context :]) if self._context else ()).pick(draw.at(place)))
        return words

    def _next(self, before: tuple[str, ...]) -> Choice[str]:
        """What follows `before`; any word where nothing does."""
        if before not in self._after:
            counts = self._counts.get(before) if before else None
            self._after[before] = Choice({w: (w, float(n)) for w, n in counts.items()}) if counts else self._any
        return self._after[before]


def plain(words: Iterable[str]) -> tuple[str, ...]:
    """Words as they are compared: without case and punctuation."""
    return tuple(bare for word in words if (bare := word.strip(_EDGES).casefold()))


def _runs(text: str) -> list[list[str]]:
    """The words of a transcript; it is parted where something stands that is read in more than one way."""
    runs: list[list[str]] = [[]]
    for token in text.split():
        word = token.strip(_EDGES)
        if _SAYABLE.fullmatch(word):
            runs[-1].append(word)
        else:
            runs.append([])
    return [run for run in runs if run]


def _usual(word: str, known: set[str]) -> str:
    """The first word of a sentence, without the capital letter if it has none elsewhere."""
    lower = word.lower()
    return lower if word.istitle() and lower in known else word
