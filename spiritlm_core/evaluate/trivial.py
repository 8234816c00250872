"""Answers that need no model, or no question: what every few-shot figure is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from spiritlm_core.metrics.distances import normalise
from spiritlm_core.tokens.counter import key_of


def trivial_answers(
    given: Sequence[str], pool: Sequence[str], keys: Sequence[str], seed: int, *, fixed: bool
) -> dict[str, list[str]]:
    """Trivial answers by name, one for each question.

    ``nothing`` is empty; ``shuffled`` is the model's answer to the question before, what it is worth without its
    question; ``random`` is that of any train example; ``fixed`` the commonest text of all of them.

    Args:
        given: the answers of the model, as text or speech tokens.
        pool: the right answers of train examples.
        keys: names the questions.
        seed: of the random answers.
        fixed: whether ``fixed`` makes sense, as it does for texts.
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
