"""Configuration of the alignment stages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spiritlm_core.config import FrozenConfig


class AlignerFitConfig(FrozenConfig):
    """Fitting an alignment model on the corpus itself."""

    teacher: Literal["auto", "pocketsphinx", "none"] = Field(default="auto", description="x")
    minutes: float = Field(default=60.0, gt=0)
    taught_minutes: float = 15.0
    steps: int = 600
    batch_seconds: float = 60.0
    learning_rate: float = 3e-3
    channels: int = 160
    layers: int = 8
    mels: int = 64
    mask_share: float = 0.2
    ctc_weight: float = 1.0
    seed: int = 0
