"""Types of settings that several parts of the speech tokenizer share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Minutes = Annotated[float, Field(gt=0, description="Upper bound of the train speech used for fitting, in minutes.")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of every random choice of the fit.")]
Size = Annotated[int, Field(ge=1)]
ExtractionPrecision = Literal["exact", "bf16", "int8"]
UnitRate = Literal[25.0, 12.5]
"""Phonetic units a second."""
