"""From what was counted in each clip to the figures of a system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from spiritlm_core.evaluate.resynthesis.config import ResynthesisConfig
from spiritlm_core.evaluate.resynthesis.systems import System
from spiritlm_core.metrics.bootstrap import Estimate, ratio

Row = dict[str, Any]
"""What was counted in one clip; a key is missing, or None, where it cannot be."""

_RATES = {
    "wer": ("word_edits", "words"),
    "cer": ("character_edits", "characters"),
    "mcd": ("mcd", None),
    "mcd_in_place": ("mcd_in_place", None),
    "f0_cents": ("squared_cents", "voiced"),  # the root is taken of the ratio
    "voicing_error": ("wrong_voicing", "frames"),
    "duration_error": ("duration_share", None),
    "duration_seconds": ("duration_seconds", None),
    "speaker": ("speaker", None),
    "speaker_others": ("speaker_others", None),
}
"""Figure → what is summed over clips, and by what the sum is divided; None is the number of clips."""

_PAIRED = ("wer", "cer", "speaker_others")
"""Figures that the recording has, too, so that a system's can be compared with it."""


def result_of(system: System, rows: list[Row], original: list[Row], config: ResynthesisConfig) -> dict[str, Any]:
    """All figures of a system with their intervals, as JSON values.

    Args:
        system: What was judged.
        rows: Its sums for each clip.
        original: Those of the recordings, in the same order.
        config: Resamples and seed of the bootstrap.
    """
    figures: dict[str, float | None] = {}
    for name in _RATES:
        figures |= _rate(name, rows, config).to_dict(name)
    gains: dict[str, float | None] = {}
    for name in _PAIRED:
        gains |= _gain(name, rows, original, config).to_dict(name)
    return {
        "name": system.name,
        "about": system.about,
        "timed": system.timed,
        "figures": figures,
        "minus_original": gains,
        "clips": rows,
    }


def _rate(name: str, rows: Sequence[Row], config: ResynthesisConfig) -> Estimate:
    """A figure over the clips that have it: pooled words, characters and frames, else the mean over clips."""
    top, bottom = _RATES[name]
    having = [row for row in rows if row.get(top) is not None]
    estimate = ratio(
        [row[top] for row in having],
        [1 if bottom is None else row[bottom] for row in having],
        samples=config.bootstrap_samples,
        seed=config.seed,
    )
    return Estimate(*map(sqrt, (estimate.value, estimate.low, estimate.high))) if name == "f0_cents" else estimate


def _gain(name: str, rows: Sequence[Row], original: Sequence[Row], config: ResynthesisConfig) -> Estimate:
    """The figure minus that of the recording, over the same resamples of clips."""
    top, bottom = _RATES[name]
    pairs = [(row, base) for row, base in zip(rows, original, strict=True) if row.get(top) is not None]
    return ratio(
        [row[top] - base[top] for row, base in pairs],
        [1 if bottom is None else row[bottom] for row, _ in pairs],
        samples=config.bootstrap_samples,
        seed=config.seed,
    )


def rounded(value: Any) -> Any:
    """`value` with six digits behind the point in every number of it."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
