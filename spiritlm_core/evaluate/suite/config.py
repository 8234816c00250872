"""Settings of the suite: what is asked of every model, and which sets the stage builds."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

from pydantic import Field, field_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.language import LanguageCode
from spiritlm_core.references.reference import as_reference
from spiritlm_core.speech.settings import ExtractionPrecision

VOICES = ("en-us", "en-us+f3")
PAIRS = ("words", "grammar", "stories", "topic-stories")
KINDS = (*PAIRS, "intents", "sentiments", "styles", "transcripts", "choices")
"""The sets that can be built."""


class SuiteConfig(FrozenConfig):
    """What is asked of every model."""

    limit: int | None = Field(None, ge=1, description="Most items of a task, drawn by the seed; null: all.")
    seed: int = Field(0, ge=0, description="Seed of the draws of items, solved examples, continuations and intervals.")
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    shots: int = Field(5, ge=0, description="Solved examples in few-shot tasks; labels are asked without any, too.")
    max_new_tokens: int = Field(200, ge=1, description="Longest answer or continuation in tokens.")
    temperature: float = Field(
        0.8, ge=0, description="Temperature of the continuations whose style is judged; 0 takes the most likely token."
    )
    top_p: float = Field(
        0.95, gt=0, le=1, description="Share of the probability that continuations are drawn from (nucleus sampling)."
    )
    recogniser: str | None = Field(
        None,
        description="Reference of a faster-whisper model that writes down spoken answers; null: units are compared.",
    )
    language: LanguageCode = Field("en", description="Language of transcripts, for the recogniser and word errors.")
    text_judge: str | None = Field(
        None, description="Reference of a classifier of the style of texts; null: one fitted on the set's train part."
    )
    speech_judge: str | None = Field(
        None, description="Reference of a classifier of the style of audio; it needs a vocoder. null: none."
    )
    lm_eval: tuple[str, ...] = Field((), description="Text tasks of lm-eval that are asked, too, such as mmlu.")
    lm_eval_limit: int | None = Field(None, ge=1, description="Most questions of each task of lm-eval; null: all.")
    lm_eval_shots: int | None = Field(
        None, ge=0, description="Solved examples in tasks of lm-eval; null: as these say."
    )

    def idle(self) -> AbstractSet[str]:
        """How lm-eval asks, where it is not asked."""
        return frozenset() if self.lm_eval else {"lm_eval_limit", "lm_eval_shots"}


class SuiteStageConfig(FrozenConfig):
    """Which sets are built, and what is asked."""

    sets: tuple[str, ...] = Field(KINDS, min_length=1, description=f"Sets that are built: any of {', '.join(KINDS)}.")
    items: int | None = Field(None, ge=2, description="Most items of each set, or of each of its parts; null: all.")
    voices: tuple[str, ...] = Field(VOICES, min_length=1, description="Voices of eSpeak NG that speak the sets.")
    spoken: bool = Field(True, description="Whether the sets are spoken; false builds text alone.")
    ask: SuiteConfig = Field(SuiteConfig(), description="How the model is asked.")

    @property
    def judges(self) -> dict[str, str]:
        """Role → reference of the models that judge."""
        given = {role: getattr(self.ask, role) for role in ("recogniser", "text_judge", "speech_judge")}
        return {role: as_reference(reference) for role, reference in given.items() if reference is not None}

    def idle(self) -> AbstractSet[str]:
        """The voices of sets that are not spoken."""
        return frozenset() if self.spoken else {"voices"}

    @field_validator("sets")
    @classmethod
    def _known(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in sets if name not in KINDS]:
            raise ValueError(f"there is no set {unknown[0]!r}; there are {', '.join(KINDS)}")
        return sets


class SuiteRunConfig(SuiteStageConfig):
    """What the stage is given: the settings, and how the units of the corpus were extracted."""

    younger: ClassVar[AbstractSet[str]] = {"precision"}

    precision: ExtractionPrecision = Field("exact", description="Precision of unit extraction, as in `units`.")
