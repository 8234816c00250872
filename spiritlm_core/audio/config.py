"""How recordings are checked and become segments. Imports little more than pydantic."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.intake.source import MOST_CHANNELS


class VadConfig(FrozenConfig):
    """Silero voice activity detection with two thresholds: speech starts above one and ends below the other."""

    onset: float = Field(0.5, gt=0, lt=1, description="Speech starts where its probability reaches this value.")
    offset: float = Field(0.15, gt=0, lt=1, description="Speech ends where its probability falls below this value.")
    min_speech: float = Field(0.2, ge=0, description="Shortest speech in seconds; shorter bursts count as noise.")
    min_pause: float = Field(0.2, ge=0, description="Shortest pause in seconds between two stretches of speech.")

    @model_validator(mode="after")
    def _ordered(self) -> VadConfig:
        if self.offset > self.onset:
            raise ValueError("offset must not be greater than onset")
        return self


class LimitsConfig(FrozenConfig):
    """What a recording may be; one beyond that is rejected, whatever else its header says."""

    min_rate: int = Field(4_000, ge=1_000, description="Lowest sampling rate of a recording, in hertz.")
    max_rate: int = Field(768_000, le=1_536_000, description="Highest sampling rate of a recording, in hertz.")
    max_channels: int = Field(64, ge=1, le=MOST_CHANNELS, description="Most channels of a recording.")
    max_hours: float = Field(
        24.0, gt=0, le=1000, description="Longest recording in hours; an hour takes 115 MB of temporary disk space."
    )


class AudioConfig(FrozenConfig):
    """How a recording is checked and cut into segments."""

    min_seconds: float = Field(0.1, gt=0, description="Shortest recording in seconds; shorter ones are rejected.")
    max_seconds: float = Field(30.0, ge=1, le=3600, description="Longest segment in seconds; longer ones are cut.")
    padding: float = Field(0.3, ge=0, le=1, description="Seconds kept before and after the speech of a segment.")
    max_pause: float = Field(3.0, gt=0, description="Longest pause in seconds within a segment of a long recording.")
    min_peak_dbfs: float = Field(
        -50.0,
        le=0,
        description="A recording that never gets louder than this, in dB of full scale, is rejected as silent.",
    )
    max_clipped_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="A recording of which a larger share of samples is at full scale is rejected as clipped.",
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="Rates, channels and lengths that a recording may have.")
    vad: VadConfig = Field(VadConfig(), description="Voice activity detection, which finds the pauses.")
    held_out_share: float = Field(0.1, ge=0, lt=1, description="Share of recordings (or speakers) kept for evaluation.")
    held_out_by: Literal["recording", "speaker"] = Field(
        "recording", description="Whether recordings or speakers are held out as a whole."
    )
    split_salt: str = Field("", description="Any text; another one draws another held-out set.")

    def idle(self) -> AbstractSet[str]:
        """How a held-out set is drawn that there is not."""
        return frozenset() if self.held_out_share else {"held_out_by", "split_salt"}

    @model_validator(mode="after")
    def _room_for_speech(self) -> AudioConfig:
        if self.max_seconds < 4 * self.padding:
            raise ValueError("max_seconds must be at least four times the padding")
        return self


class SyntheticAudioConfig(AudioConfig):
    """That of a recipe without any recorded speech, where what is held out is synthetic: there is nothing else."""

    held_out: Literal["synthetic"] = "synthetic"
