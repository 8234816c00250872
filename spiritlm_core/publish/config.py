"""Settings of the published folder."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.language import LanguageCode
from spiritlm_core.speech.settings import ExtractionPrecision


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
    data: str = Field(
        "",
        max_length=4000,
        description="Where the recordings come from, and under which licence; empty: what is known of the sources.",
    )
    base_model: str | None = Field(None, description="Reference of the model that training started from, if any.")


class PublishStageConfig(PublishConfig):
    """What the stage is given: the model card, and how the units of the corpus were extracted."""

    younger: ClassVar[AbstractSet[str]] = {"precision"}

    precision: ExtractionPrecision = Field("exact", description="Precision of unit extraction, as in `units`.")
