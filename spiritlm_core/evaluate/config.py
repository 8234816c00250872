"""Settings of the evaluation."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.language import LanguageCode
from spiritlm_core.speech.config import ExtractionPrecision


class EvaluateConfig(FrozenConfig):
    """What is measured on the held-out recordings, and on how much of them."""

    seed: int = Field(0, ge=0, description="Seed of all that is drawn: utterances, shots, bootstrap, sampling.")
    context_length: int | None = Field(
        None, ge=32, description="Longest sequence in tokens, never beyond the model's limit; null: as in training."
    )
    documents: int = Field(500, ge=2, description="Most held-out documents scored per stream.")
    baseline_documents: int = Field(20_000, ge=1, description="Most train documents per stream behind the baseline.")
    shots: int = Field(4, ge=0, le=32, description="Solved examples from train in front of each few-shot question.")
    fewshot_utterances: int = Field(16, ge=0, description="Held-out utterances asked in each few-shot task; 0: none.")
    max_new_tokens: int = Field(96, ge=1, description="Longest answer in tokens; questions leave this much room.")
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    samples: int = Field(1, ge=0, le=20, description="Outputs of each kind that the report shows.")
    figures: int = Field(3, ge=0, le=10, description="Held-out utterances drawn in the report, with words and units.")


class PublishConfig(FrozenConfig):
    """What the model card says that the figures do not."""

    title: str = Field("Spirit LM", min_length=1, max_length=96, description="Title of the model card.")
    license: str = Field(
        "other", pattern=r"^[a-z0-9.-]+$", description="Licence of the weights, as the Hugging Face hub spells it."
    )
    languages: tuple[LanguageCode, ...] = Field(
        (), description="Languages of the model card, as ISO 639-1 codes; empty: those of the corpus."
    )
    description: str = Field("", max_length=4000, description="A paragraph of your own at the top of the card.")
    data: str = Field("", max_length=4000, description="Where the recordings come from, and under which licence.")
    base_model: str | None = Field(None, description="Reference of the model that training started from, if any.")


class PublishStageConfig(PublishConfig):
    """What the stage is given: the model card, and how the units of the corpus were extracted."""

    younger: ClassVar[AbstractSet[str]] = {"precision"}

    precision: ExtractionPrecision = Field("exact", description="Precision of unit extraction, as in `units`.")
