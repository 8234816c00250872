"""Edit distances between answers and references (words, characters, collapsed HuBERT units), and figures of them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from spiritlm_core.metrics.bootstrap import Estimate, ratio
from spiritlm_core.tokens.counter import key_of
from spiritlm_core.tokens.speech import from_string
from spiritlm_core.tokens.words import spoken_text


@dataclass(frozen=True)
class Errors:
    """Errors of many utterances: `edits` and reference `length` of each, in the same order."""

    edits: tuple[int, ...]
    length: tuple[int, ...]

    @property
    def rate(self) -> float:
        """All edits by all reference items, as usual for word error rate; may exceed 1. NaN without references."""
        return sum(self.edits) / total if (total := sum(self.length)) else float("nan")

    def only(self, places: Sequence[int]) -> Errors:
        """Those of some of the utterances."""
        return Errors(tuple(self.edits[i] for i in places), tuple(self.length[i] for i in places))

    def estimate(self, samples: int, seed: int) -> Estimate:
        """The rate with a bootstrap interval over utterances."""
        return ratio(self.edits, self.length, samples=samples, seed=seed)


def collapse(units: Iterable[int]) -> list[int]:
    """Runs of equal units become one: durations do not count as errors."""
    return [unit for unit, _ in groupby(units)]


def units_of(tokens: str) -> list[int]:
    """HuBERT units of speech tokens such as ``[Hu7][Hu9]``, runs collapsed."""
    return collapse(from_string(tokens).hubert.tolist())


def normalise(text: str, language: str | None = None) -> str:
    """Lower case, no punctuation except apostrophes inside words, single spaces; any script.

    With a `language`, numbers and symbols are written as they are said: ``2`` and ``two`` are one word.
    """
    text = text if language is None else spoken_text(text, language)
    folded = unicodedata.normalize("NFKC", text).replace("\u2019", "'").lower()
    kept = "".join(c if c.isalnum() or c == "'" or unicodedata.category(c).startswith("M") else " " for c in folded)
    return " ".join(word for word in (raw.strip("'") for raw in kept.split()) if word)


def edit_distance(reference: Sequence[Hashable], answer: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that turn `answer` into `reference` (Levenshtein 1966)."""
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(reference, answer))


def errors(references: Sequence[Any], answers: Sequence[Any], prepare: Callable[[Any], Sequence[Hashable]]) -> Errors:
    """Edits between what `prepare` makes of each pair, such as a list of words, and the lengths of the references."""
    pairs = [(prepare(r), prepare(a)) for r, a in zip(references, answers, strict=True)]
    return Errors(tuple(edit_distance(r, a) for r, a in pairs), tuple(len(r) for r, _ in pairs))


def unit_errors(references: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Errors:
    """Edits between collapsed unit sequences, and the lengths of the collapsed references."""
    return errors(references, answers, collapse)


def word_errors(references: Sequence[str], answers: Sequence[str], language: str | None = None) -> Errors:
    """Word errors after :func:`normalise`, as jiwer counts them; references without a word count no length.

    A reference without words still counts the words of its answer as insertions.
    """
    return errors(references, answers, lambda text: normalise(text, language).split())


Metric = Literal["wer", "unit_error_rate", "accuracy", "none"]


def judge(
    metric: Metric,
    references: Sequence[str],
    answers: Sequence[str],
    *,
    labels: Sequence[str] = (),
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures over all answers, JSON-able: each rate, and its 95 % interval as ``…_low`` and ``…_high``.

    ``wer`` gives `wer` and `cer` (of normalised text), ``unit_error_rate`` compares collapsed HuBERT units in speech
    tokens, ``accuracy`` is that of whole answers, beside that of guessing evenly among `labels` and of the commonest
    label.
    """
    if metric == "wer":
        words, characters = word_errors(references, answers), errors(references, answers, normalise)
        return words.estimate(samples, seed).to_dict("wer") | characters.estimate(samples, seed).to_dict("cer")
    if metric == "unit_error_rate":
        return errors(references, answers, units_of).estimate(samples, seed).to_dict("unit_error_rate")
    if metric == "accuracy":
        right = [int(reference == answer) for reference, answer in zip(references, answers, strict=True)]
        figures = ratio(right, [1] * len(right), samples=samples, seed=seed).to_dict("accuracy")
        commonest = max(Counter(references).values(), default=0)
        guessing = {"chance": 1 / len(labels) if labels else None}
        return {**figures, **guessing, "majority": commonest / len(references) if references else None}
    return {}


def trivial_answers(
    given: Sequence[str], pool: Sequence[str], keys: Sequence[str], seed: int, *, fixed: bool
) -> dict[str, list[str]]:
    """Trivial answers by name, one for each question, given those of the model and the right ones of train examples.

    ``nothing`` is empty; ``shuffled`` is the model's answer to the question before, what it is worth without its
    question; ``random`` is that of any train example; ``fixed`` the commonest text of all of them, where wanted.
    """
    answers = {"nothing": [""] * len(given)}
    if len(given) > 1:
        answers["shuffled"] = [*given[-1:], *given[:-1]]
    if pool:
        answers["random"] = [pool[key_of(seed, "random", key) % len(pool)] for key in keys]
    if pool and fixed:
        answers["fixed"] = [commonest(pool)] * len(given)
    return answers


def commonest(texts: Sequence[str]) -> str:
    """The normalised text that occurs most often, the shortest of several."""
    counts = Counter(normalise(text) for text in texts)
    return min(counts, key=lambda text: (-counts[text], len(text), text))
