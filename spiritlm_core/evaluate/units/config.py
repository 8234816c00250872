"""Settings of the evaluation of speech units."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.references.syntax import ModelReference
from spiritlm_core.speech.settings import ExtractionPrecision

OWN = "recipe"
"""Name of the recipe's own tokenizer among the candidates."""

GIVEN = "candidate."
"""Before the name of a given tokenizer, in the roles of a stage."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$")]


class UnitEvaluationConfig(FrozenConfig):
    """On how much speech, and how, speech tokenizers are compared."""

    models: dict[Name, ModelReference] = Field(
        default={}, description="More tokenizers to compare: name → file://… or hf://… of a speech tokenizer folder."
    )
    max_minutes: float = Field(default=30.0, gt=0, description="Most held-out speech that is scored, in minutes.")
    train_minutes: float = Field(
        default=60.0,
        gt=0,
        description="Most minutes of train speech for the k-means fitted here (MFCC, HuBERT iterations).",
    )
    robustness_minutes: float = Field(
        default=5.0,
        gt=0,
        description="Most minutes of held-out speech that are changed and encoded again, once per condition.",
    )
    snrs: tuple[float, ...] = Field(
        default=(20.0, 10.0),
        description="Signal-to-noise ratios of white noise, in dB, under which units are compared.",
    )
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2.0)], ...] = Field(
        default=(0.9, 1.1), description="Speeds of playing under which units are compared; pitch changes with them."
    )
    abx_cells: int = Field(
        default=4000,
        ge=1,
        description="Most cells of ABX (pairs of phones in context) within speakers, and as many across.",
    )
    abx_tokens: int = Field(default=10, ge=2, description="Most occurrences of a triphone by a speaker in a cell.")
    probe_seconds: float = Field(
        default=3.0, ge=1, le=30, description="Seconds of speech the speaker probe is asked about."
    )
    probe_folds: int = Field(default=5, ge=2, le=20, description="Folds of the speaker probe's cross-validation.")
    bootstrap_samples: int = Field(default=1000, ge=100, description="Bootstrap samples of a confidence interval.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of every random choice of the comparison.")

    @model_validator(mode="after")
    def _own_name_is_taken(self) -> Self:
        if OWN in self.models or "mfcc" in self.models:
            raise ValueError(f"{OWN!r} and 'mfcc' are candidates already: give the model another name")
        return self


class UnitEvaluationStageConfig(UnitEvaluationConfig):
    """What the stage is given; the given models are roles."""

    younger: ClassVar[AbstractSet[str]] = {"precision"}

    precision: ExtractionPrecision = Field(default="exact", description="Precision of unit extraction, as in `units`.")
