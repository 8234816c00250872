"""Judging answers: word, character and unit error rates, and accuracy, each with a bootstrap interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.metrics.distances import character_errors, unit_errors, word_errors
from spiritlm_core.tokens.speech import from_string

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

    Args:
        metric: ``wer`` gives `wer` and `cer` (of normalised text), ``unit_error_rate`` compares collapsed HuBERT
            units, ``accuracy`` is that of whole answers, beside that of guessing evenly and of the commonest label.
        references: right answers; text, or speech tokens.
        answers: one for each.
        labels: the answers there are, for accuracy.
        samples: resamples of the examples.
        seed: of the resampling.
    """
    if metric == "wer":
        words, characters = word_errors(references, answers), character_errors(references, answers)
        return words.estimate(samples, seed).to_dict("wer") | characters.estimate(samples, seed).to_dict("cer")
    if metric == "unit_error_rate":
        pairs = [[from_string(tokens).hubert.tolist() for tokens in side] for side in (references, answers)]
        return unit_errors(*pairs).estimate(samples, seed).to_dict("unit_error_rate")
    if metric == "accuracy":
        right = [int(reference == answer) for reference, answer in zip(references, answers, strict=True)]
        figures = ratio(right, [1] * len(right), samples=samples, seed=seed).to_dict("accuracy")
        commonest = max(Counter(references).values(), default=0)
        guessing = {"chance": 1 / len(labels) if labels else None}
        return {**figures, **guessing, "majority": commonest / len(references) if references else None}
    return {}
