"""Edit distances between an answer and its reference: words for text, collapsed HuBERT units for speech."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from spiritlm_core.metrics.bootstrap import Estimate, ratio


@dataclass(frozen=True)
class Errors:
    """Errors of many utterances: `edits` and reference `length` of each, in the same order."""

    edits: tuple[int, ...]
    length: tuple[int, ...]

    @property
    def rate(self) -> float:
        """All edits by all reference items, as usual for word error rate; may exceed 1. NaN without references."""
        return sum(self.edits) / total if (total := sum(self.length)) else float("nan")

    def estimate(self, samples: int, seed: int) -> Estimate:
        """The rate with a bootstrap interval over utterances."""
        return ratio(self.edits, self.length, samples=samples, seed=seed)


def collapse(units: Iterable[int]) -> list[int]:
    """Runs of equal units become one: durations do not count as errors."""
    return [unit for unit, _ in groupby(units)]


def normalise(text: str) -> str:
    """Lower case, no punctuation except apostrophes inside words, single spaces; any script."""
    folded = unicodedata.normalize("NFKC", text).replace("\u2019", "'").lower()
    kept = "".join(c if c.isalnum() or c == "'" or unicodedata.category(c).startswith("M") else " " for c in folded)
    return " ".join(word for word in (raw.strip("'") for raw in kept.split()) if word)


def edit_distance(reference: Sequence[Hashable], answer: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that turn `answer` into `reference` (Levenshtein 1966)."""
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(reference, answer))


def errors(
    references: Sequence[Any],
    answers: Sequence[Any],
    prepare: Callable[[Any], Any],
    edits: Callable[[Any, Any], int] = edit_distance,
    length: Callable[[Any], int] = len,
) -> Errors:
    """Edits between pairs that are prepared first, and the lengths of the references."""
    pairs = [(prepare(r), prepare(a)) for r, a in zip(references, answers, strict=True)]
    return Errors(tuple(edits(r, a) for r, a in pairs), tuple(length(r) for r, _ in pairs))


def unit_errors(references: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Errors:
    """Edits between collapsed unit sequences, and the lengths of the collapsed references."""
    return errors(references, answers, collapse)


def character_errors(references: Sequence[str], answers: Sequence[str]) -> Errors:
    """Edits between the characters of normalised texts."""
    return errors(references, answers, normalise)


def word_errors(references: Sequence[str], answers: Sequence[str]) -> Errors:
    """Word errors after :func:`normalise`, counted by jiwer; references without a word count no length.

    A reference without words still counts the words of its answer as insertions.
    """
    return errors(references, answers, normalise, word_edits, lambda text: len(text.split()))


def word_edits(reference: str, answer: str) -> int:
    """Substitutions, deletions and insertions of words, counted by jiwer, between texts that are normalised."""
    import jiwer

    if not reference:  # jiwer refuses empty references
        return len(answer.split())
    alignment = jiwer.process_words(reference, answer)
    return int(alignment.substitutions + alignment.deletions + alignment.insertions)
