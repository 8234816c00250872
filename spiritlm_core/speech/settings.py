"""Settings that several parts of the speech tokenizer share, and how those of a fitted model are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import ModelReferenceError

CONFIG_FILE = "config.json"


class StoredConfig(FrozenConfig):
    """What a model of this project is made of: the ``config.json`` in its folder."""

    kind_of_model: ClassVar[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of the model in `folder`. Raises ModelReferenceError."""
        try:
            return cls.model_validate_json((folder / CONFIG_FILE).read_bytes())
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelReferenceError(f"{folder} is not a {cls.kind_of_model} of this project: {reason}") from error


def _known_rate(rate: float) -> float:
    if rate not in (25.0, 12.5):
        raise ValueError("is neither 25 nor 12.5")
    return rate


Minutes = Annotated[float, Field(gt=0, description="Upper bound of the train speech used for fitting, in minutes.")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of every random choice of the fit.")]
Size = Annotated[int, Field(ge=1)]
ExtractionPrecision = Literal["exact", "bf16"]
UnitRate = Annotated[float, AfterValidator(_known_rate)]  # phonetic units a second
