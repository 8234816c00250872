"""Settings that several parts of the speech tokenizer share."""

from collections.abc import Set as AbstractSet
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from spiritlm_core.config import FrozenConfig

ExtractionPrecision = Literal["exact", "bf16"]


class ExtractionConfig(FrozenConfig):
    """For stages that encode speech as the corpus was encoded."""

    younger: ClassVar[AbstractSet[str]] = {"precision"}

    precision: ExtractionPrecision = Field("exact", description="Precision of unit extraction, as in `units`.")


def _known_rate(rate: float) -> float:
    if rate not in (25.0, 12.5):
        raise ValueError("is neither 25 nor 12.5")
    return rate


Minutes = Annotated[float, Field(gt=0, description="Upper bound of the train speech used for fitting, in minutes.")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of every random choice of the fit.")]
Size = Annotated[int, Field(ge=1)]
UnitRate = Annotated[float, AfterValidator(_known_rate)]  # phonetic units a second
