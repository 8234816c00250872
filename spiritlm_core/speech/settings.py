"""Types of settings that several parts of the speech tokenizer share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field


def _known_rate(rate: float) -> float:
    if rate not in (25.0, 12.5):
        raise ValueError("is neither 25 nor 12.5")
    return rate


Minutes = Annotated[float, Field(gt=0, description="Upper bound of the train speech used for fitting, in minutes.")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of every random choice of the fit.")]
Size = Annotated[int, Field(ge=1)]
ExtractionPrecision = Literal["exact", "bf16", "int8"]
UnitRate = Annotated[float, AfterValidator(_known_rate)]
"""Phonetic units a second."""
