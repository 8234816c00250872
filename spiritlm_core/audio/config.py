"""How recordings are checked and become segments. Imports little more than pydantic."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.intake.source import MOST_CHANNELS


class VadConfig(FrozenConfig):
    """Silero voice activity detection with two thresholds: speech starts above one and ends below the other."""

    onset: float = Field(0.5, gt=0, lt=1, description="Speech starts where its probability reaches this.")
    offset: float = Field(0.15, gt=0, lt=1, description="Speech ends where its probability falls below this.")
    min_speech: float = Field(0.2, ge=0, description="Seconds; shorter bursts are no speech.")
    min_pause: float = Field(0.2, ge=0, description="Seconds; shorter pauses do not separate two regions.")

    @model_validator(mode="after")
    def _ordered(self) -> VadConfig:
        if self.offset > self.onset:
            raise ValueError("offset must not be greater than onset")
        return self


class LimitsConfig(FrozenConfig):
    """What a recording may be; one beyond that is rejected, whatever else its header says."""

    min_rate: int = Field(4_000, ge=1_000, description="Lowest sampling rate, in hertz.")
    max_rate: int = Field(768_000, le=1_536_000, description="Highest sampling rate, in hertz.")
    max_channels: int = Field(64, ge=1, le=MOST_CHANNELS, description="Most channels.")
    max_hours: float = Field(
        24.0, gt=0, le=1000, description="Longest recording; an hour takes 115 MB of temporary disk space."
    )


class AudioConfig(FrozenConfig):
    """How a recording is checked and cut into segments."""

    min_seconds: float = Field(0.1, gt=0, description="Shorter recordings are rejected.")
    max_seconds: float = Field(30.0, ge=1, le=3600, description="Longest segment.")
    padding: float = Field(0.3, ge=0, le=1, description="Seconds kept before and after the speech of a segment.")
    max_pause: float = Field(
        3.0, gt=0, description="Seconds; a longer pause always ends a segment of a long recording."
    )
    min_peak_dbfs: float = Field(-50.0, le=0, description="A recording that never gets louder than this is silent.")
    max_clipped_share: float = Field(0.1, gt=0, le=1, description="Reject when more of the samples are at full scale.")
    limits: LimitsConfig = LimitsConfig()
    vad: VadConfig = VadConfig()
    held_out_share: float = Field(0.1, ge=0, lt=1, description="Share of recordings (or speakers) kept for evaluation.")
    held_out_by: Literal["recording", "speaker"] = Field("recording", description="What is held out as a whole.")
    split_salt: str = Field("", description="Change it to draw another held-out set.")

    def idle(self) -> AbstractSet[str]:
        """How a held-out set is drawn that there is not."""
        return frozenset() if self.held_out_share else {"held_out_by", "split_salt"}

    @model_validator(mode="after")
    def _room_for_speech(self) -> AudioConfig:
        if self.max_seconds < 4 * self.padding:
            raise ValueError("max_seconds must be at least four times the padding")
        return self
