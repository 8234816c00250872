"""Configuration of the quantizers."""

from collections.abc import Set as AbstractSet
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.speech.grid import SAMPLE_RATE
from spiritlm_core.speech.settings import Minutes, Seed, UnitRate

MOST_UNITS = 32_767  # A unit is stored in 16 bits, and as many tokens `[Hu]` a vocabulary may have


class AugmentConfig(FrozenConfig):
    """How copies of recordings are changed; each of the four changes with the same probability."""

    probability: float = Field(0.5, gt=0, le=1, description="Probability of each of the four changes.")
    tempo: float = Field(
        1.15, ge=1, le=1.5, description="Largest factor by which a copy is faster or slower, at the same pitch."
    )
    semitones: float = Field(
        3.0, ge=0, le=12, description="Most semitones by which a copy is higher or lower, at the same tempo."
    )
    reverberation: float = Field(0.5, gt=0, le=3, description="Longest seconds in which sound falls by 60 dB.")
    snr: tuple[float, float] = Field(
        (0.0, 20.0), description="Lowest and highest signal-to-noise ratio of what is mixed in, in dB."
    )


class LinearConfig(FrozenConfig):
    """The noise-robust quantizer (Gat et al. 2022, arXiv 2209.15483), taught by k-means on clean speech."""

    iterations: int = Field(
        1, ge=1, le=10, description="Rounds of teaching; from the second on, the last student is the teacher."
    )
    steps: int = Field(1000, ge=1, description="Optimizer steps per iteration.")
    batch_crops: int = Field(16, ge=1, description="Crops per optimizer step.")
    crop_frames: int = Field(100, ge=10, le=2500, description="Longest crop, in 40 ms frames.")
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    warm_up: float = Field(
        0.3, ge=0, le=1, description="Share of the steps trained frame by frame before CTC; 0 in the paper."
    )
    augment: AugmentConfig = Field(
        AugmentConfig(), description="How the copies are changed that must get the same units."
    )


class QuantizerConfig(FrozenConfig):
    """K-means over the frames of one layer of the encoder; the index of the nearest centre is the unit.

    With ``kind: linear``, a small network learns to give the same units for changed recordings as k-means gives for the
    originals; it has a class more, the blank.
    """

    younger: ClassVar[AbstractSet[str]] = {"directions", "people_first"}

    kind: Literal["kmeans", "linear"] = Field(
        "kmeans",
        description="kmeans: the nearest centre; linear: a small network that is robust against noise and rooms.",
    )
    linear: LinearConfig = Field(LinearConfig(), description="How the network of `kind: linear` is fitted.")
    units: int = Field(500, ge=2, le=MOST_UNITS, description="Number of phonetic units (500 or 501 in the paper).")
    layer: int | None = Field(
        None,
        ge=1,
        description="Layer that is quantized, from 1; null: the usual one of the encoder, of HuBERT the last.",
    )
    normalize: bool = Field(False, description="Bring features to zero mean and unit variance first.")
    directions: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="How many directions of the features are kept: those in which parts of words differ most, beside "
        "how much one part differs from recording to recording; units then depend less on who speaks. It needs words "
        "with their times; null keeps the features as they are.",
    )
    max_minutes: Minutes = 600.0
    people_first: bool = Field(
        False,
        description="Half of those minutes are kept for people, as far as these have spoken that long, where synthetic "
        "speech would have most of them.",
    )
    restarts: int = Field(default=3, ge=1, le=20, description="Runs of k-means++, of which the best is kept.")
    iterations: int = Field(default=100, ge=1, description="Most passes of mini-batch k-means over the frames.")
    seed: Seed = 0

    @model_validator(mode="after")
    def _room_for_blank(self) -> Self:
        if self.size > MOST_UNITS:
            raise ValueError(f"units must be at most {MOST_UNITS - 1} where kind is linear: the blank is one more")
        return self

    @property
    def size(self) -> int:
        """Number of units that can come out, the blank included."""
        return self.units + (self.kind == "linear")

    def idle(self) -> AbstractSet[str]:
        """The settings of the other kind."""
        return {"linear"} if self.kind == "kmeans" else frozenset()


class QuantizerStageConfig(QuantizerConfig):
    """What the fit is given, the rate of the units included."""

    younger: ClassVar[AbstractSet[str]] = {*QuantizerConfig.younger, "rate"}

    rate: UnitRate = Field(25.0, description="Phonetic units a second.")

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""
        return int(SAMPLE_RATE / self.rate)
