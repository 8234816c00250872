"""Configuration of the quantizers."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, Literal

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.speech.grid import SAMPLE_RATE
from spiritlm_core.speech.settings import Minutes, Seed, UnitRate

MOST_UNITS = 32_767  # A unit is stored in 16 bits, and as many tokens `[Hu]` a vocabulary may have


_LINEAR = {
    "iterations": 1,
    "steps": 1000,
    "batch_crops": 16,
    "crop_frames": 100,
    "learning_rate": 2e-3,
    "warm_up": 0.3,
    "augment": {"probability": 0.5, "tempo": 1.15, "semitones": 3.0, "reverberation": 0.5, "snr": [0.0, 20.0]},
}


class QuantizerConfig(FrozenConfig):
    """K-means over the frames of one layer of the encoder; the index of the nearest centre is the unit."""

    kind: Literal["kmeans"] = Field(default="kmeans", description="How units are told apart: by the nearest centre.")
    units: int = Field(
        default=500, ge=2, le=MOST_UNITS, description="Number of phonetic units (500 or 501 in the paper)."
    )
    layer: int | None = Field(
        default=None,
        ge=1,
        description="Layer that is quantized, from 1; null: the usual one of the encoder, of HuBERT the last.",
    )
    normalize: bool = Field(default=False, description="Bring features to zero mean and unit variance first.")
    max_minutes: Minutes = 600.0
    restarts: int = Field(default=3, ge=1, le=20, description="Runs of k-means++, of which the best is kept.")
    iterations: int = Field(default=100, ge=1, description="Most passes of mini-batch k-means over the frames.")
    seed: Seed = 0

    def key(self) -> dict[str, Any]:
        """With the settings of a kind that there is no more, so that the keys of earlier quantizers stay."""
        return super().key() | {"linear": _LINEAR}


class QuantizerStageConfig(QuantizerConfig):
    """What the fit is given, the rate of the units included."""

    younger: ClassVar[AbstractSet[str]] = {"rate"}

    rate: UnitRate = Field(default=25.0, description="Phonetic units a second.")

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""
        return int(SAMPLE_RATE / self.rate)
