"""Configuration of the style units."""

from __future__ import annotations

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.speech.settings import Minutes, Seed


class StyleConfig(FrozenConfig):
    """K-means over one vector per second: what is said how, beside the words and the melody."""

    clusters: int = Field(default=100, ge=2, le=100, description="Number of style units.")
    layer: int = Field(
        default=1,
        ge=1,
        description="Layer of the encoder whose mean and deviation over a second are clustered, counted from 1.",
    )
    components: int = Field(default=8, ge=1, le=64, description="Principal components that are kept before clustering.")
    max_minutes: Minutes = 10.0
    restarts: int = Field(default=5, ge=1, le=20, description="Runs of k-means++, of which the best is kept.")
    seed: Seed = 0
