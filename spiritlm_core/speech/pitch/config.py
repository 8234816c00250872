"""Configuration of the pitch units."""

from __future__ import annotations

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.speech.settings import Minutes, Seed


class PitchConfig(FrozenConfig):
    """A VQ-VAE over fundamental frequency and voicing at 200 Hz, one code per 80 ms (Polyak et al. 2021)."""

    codes: int = Field(default=64, ge=2, le=64, description="Number of pitch units.")
    width: int = Field(default=32, ge=4, le=1024, description="Channels of the convolutions of the pitch model.")
    depth: int = Field(default=1, ge=0, le=8, description="Residual blocks after each strided convolution.")
    embedding: int = Field(default=32, ge=2, le=1024, description="Size of the vector of a pitch unit.")
    normalize: bool = Field(
        default=True, description="Subtract the mean of the voiced frames of the clip: register goes, melody stays."
    )
    steps: int = Field(default=800, ge=1, description="Optimizer steps of the fit.")
    batch_crops: int = Field(default=12, ge=1, description="Crops per optimizer step.")
    crop_codes: int = Field(default=24, ge=2, description="Length of a crop, in pitch units of 80 ms.")
    learning_rate: float = Field(default=3e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    decay: float = Field(default=0.98, ge=0, lt=1, description="Decay of the moving averages of the codebook.")
    commitment: float = Field(default=0.02, ge=0, description="Weight of the distance of encoder and codebook.")
    max_minutes: Minutes = 10.0
    seed: Seed = 0
