"""Settings of the suite: what is asked of every model, and which sets the stage builds."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

from pydantic import Field, field_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.language import LanguageCode
from spiritlm_core.references.reference import as_reference
from spiritlm_core.speech.config import ExtractionPrecision

VOICES = ("en-us", "en-us+f3")
PAIRS = ("words", "grammar", "stories", "topic-stories")
KINDS = (*PAIRS, "intents", "sentiments", "styles", "transcripts", "choices")
"""The sets that can be built."""


class SuiteConfig(FrozenConfig):
    """What is asked of every model."""

    limit: int | None = Field(None, ge=1, description="Most items of a task, drawn by the seed; None: all.")
    seed: int = Field(0, ge=0, description="Of items, solved examples, continuations and intervals.")
    bootstrap_samples: int = Field(1000, ge=100, description="Resamples behind each confidence interval.")
    shots: int = Field(5, ge=0, description="Solved examples of few-shot tasks; labels are asked without any, too.")
    max_new_tokens: int = Field(200, ge=1, description="Longest answer or continuation in tokens.")
    temperature: float = Field(0.8, ge=0, description="Of the continuations whose style is judged; 0 is greedy.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus of these continuations.")
    recogniser: str | None = Field(
        None,
        description="Reference of a faster-whisper model that writes down spoken answers; None: units are compared.",
    )
    language: LanguageCode = Field("en", description="Of the transcripts: for the recogniser and word errors.")
    text_judge: str | None = Field(
        None, description="Reference of a text classifier for continuations; None: one fitted on the set's train part."
    )
    speech_judge: str | None = Field(None, description="The same of an audio classifier, which needs a vocoder.")
    lm_eval: tuple[str, ...] = Field((), description="Tasks of lm-eval, such as mmlu.")
    lm_eval_limit: int | None = Field(None, ge=1, description="Most questions of each of them; None: all.")
    lm_eval_shots: int | None = Field(None, ge=0, description="Solved examples in these tasks; None: as they say.")

    def idle(self) -> AbstractSet[str]:
        """How lm-eval asks, where it is not asked."""
        return frozenset() if self.lm_eval else {"lm_eval_limit", "lm_eval_shots"}


class SuiteStageConfig(FrozenConfig):
    """Which sets are built, and what is asked."""

    sets: tuple[str, ...] = Field(KINDS, min_length=1, description=f"Which sets are built, of {', '.join(KINDS)}.")
    items: int | None = Field(None, ge=2, description="Most items of each set, or of each of its parts; None: all.")
    voices: tuple[str, ...] = Field(VOICES, min_length=1, description="Voices of eSpeak NG.")
    spoken: bool = Field(True, description="False builds text alone.")
    ask: SuiteConfig = Field(SuiteConfig(), description="What is asked of the model.")

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

    precision: ExtractionPrecision = Field("exact", description="As in `units`.")
