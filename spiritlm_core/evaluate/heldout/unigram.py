"""The baseline that every stream has to beat: token frequencies, no context."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SMOOTHING = (1.0, 0.5, 0.1, 0.05, 0.01)
"""Candidates for the additive constant, Lidstone's law (Manning & Schütze 1999, section 6.2.2)."""


@dataclass(frozen=True)
class Unigram:
    """Counts of token ids, int64[V]; additive smoothing turns them into probabilities over `support`.

    Attributes:
        counts: int64[V] occurrences in the train documents of one stream.
        support: bool[V] ids that can occur; the smoothing mass is spread over these alone.
    """

    counts: np.ndarray
    support: np.ndarray

    @classmethod
    def fit(cls, documents: Iterable[np.ndarray], support: np.ndarray) -> Unigram:
        """Count the ids of all documents that lie in `support`."""
        counts = np.zeros(len(support), dtype=np.int64)
        for ids in documents:
            counts += np.bincount(ids, minlength=len(support))
        return cls(np.where(support, counts, 0), support)

    def nats(self, smoothing: float) -> np.ndarray:
        """float64[V] negative log probability of each id; infinite outside the support."""
        weights = np.where(self.support, self.counts + smoothing, 0.0)
        with np.errstate(divide="ignore"):
            nats: np.ndarray = -np.log(weights / weights.sum())
        return nats

    def best_smoothing(self, held_out: np.ndarray) -> float:
        """The candidate under which the held-out ids, int[N], are most likely.

        Choosing it on the very data it is measured on favours the baseline, never the model.
        """
        return min(SMOOTHING, key=lambda constant: float(self.nats(constant)[held_out].sum()))
