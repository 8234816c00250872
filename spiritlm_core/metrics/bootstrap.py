"""Confidence intervals by resampling whole documents (Efron & Tibshirani 1993, chapter 13)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A ratio of sums with its 95 % percentile interval; all three are NaN when there is nothing to divide by."""

    value: float
    low: float
    high: float

    def to_dict(self, prefix: str) -> dict[str, float | None]:
        """Three flat entries, `prefix`, `prefix_low` and `prefix_high`; None where undefined."""
        named = {prefix: self.value, f"{prefix}_low": self.low, f"{prefix}_high": self.high}
        return {name: round(value, 6) if np.isfinite(value) else None for name, value in named.items()}


def ratio(numerators: ArrayLike, denominators: ArrayLike, *, samples: int, seed: int) -> Estimate:
    """The ratio of the two sums over documents, with a percentile bootstrap over the documents.

    Resampling documents and not tokens keeps the dependence of the tokens within a document. Both are [D], such as nats
    and tokens, the second not negative; the same seed draws the same documents for every metric.
    """
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim != 1:
        raise ValueError(f"one numerator per denominator is needed, got shapes {top.shape} and {bottom.shape}")
    if not len(top) or bottom.sum() <= 0:
        return Estimate(np.nan, np.nan, np.nan)
    weights = np.random.default_rng(seed).multinomial(len(top), np.full(len(top), 1 / len(top)), size=samples)
    drawn_bottom = weights @ bottom
    filled = drawn_bottom > 0  # a resample may hold empty documents only
    drawn = (weights @ top)[filled] / drawn_bottom[filled]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high))
