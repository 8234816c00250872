"""What is measured on each segment, and which of them a recipe leaves out. Imports little more than pydantic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from spiritlm_core.config import FrozenConfig, meant
from spiritlm_core.references.syntax import ModelReference

DNSMOS = (
    "pypi://speechmos==0.0.1.1/speechmos/dnsmos_models/sig_bak_ovr.onnx"
    "#sha256=269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd"
)
"""The network of DNSMOS P.835 (MIT)."""

COLUMNS = {
    "duration": "s",
    "level": "dBFS",
    "clipping": "",
    "dc": "",
    "silence": "",
    "bandwidth": "Hz",
    "snr": "dB",
    "speech": "",
    "rate": "words/s",
    "confidence": "",
    "dnsmos": "",
    "dnsmos_signal": "",
    "dnsmos_background": "",
    "language": "",
    "language_confidence": "",
    "wer": "",
}
"""Columns of the table `quality` that a filter may name, and their units; docs/quality.md says what each is."""

OPPOSITES = {">=": "<", "<=": ">", ">": "<=", "<": ">=", "==": "!=", "!=": "=="}


@dataclass(frozen=True)
class Condition:
    """What a segment must fulfil: the value of a column compared with one that is given."""

    column: str
    operator: str
    value: float | str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``snr >= 10``. Raises ValueError."""
        match = re.fullmatch(r"\s*(\w+)\s*([<>]=?|[!=]=)\s*(\S+)\s*", text)
        if match is None:
            raise ValueError(f"a filter is a column, a comparison and a value, such as `snr >= 10`, not {text!r}")
        column, operator, value = match.groups()
        if column not in COLUMNS:
            raise ValueError(f"a filter cannot name {column!r}{meant(column, COLUMNS)}")
        if column == "language":
            if operator not in ("==", "!="):
                raise ValueError(f"{text!r}: a language is compared with == or !=")
            return cls(column, operator, value)
        try:
            return cls(column, operator, float(value))
        except ValueError:
            raise ValueError(f"{text!r}: {value!r} is no number") from None

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {_plain(self.value)}"

    @property
    def broken(self) -> str:
        """What is true of a segment that does not fulfil it: ``snr < 10 dB``."""
        return f"{self.column} {OPPOSITES[self.operator]} {_plain(self.value)} {COLUMNS[self.column]}".rstrip()

    def reason(self, value: float | str) -> str:
        """Why a segment of this value is rejected."""
        return f"{self.broken}: {value if isinstance(value, str) else f'{value:.3g}'}"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


Filter = Annotated[str, AfterValidator(lambda text: str(Condition.parse(text)))]


class QualityConfig(FrozenConfig):
    """Models that judge each segment, for columns of the table `quality` that stay empty without them."""

    dnsmos: ModelReference | None = Field(
        None,
        description=f"ONNX network of DNSMOS P.835, which says how good speech sounds, such as {DNSMOS}; null: none.",
    )
    language: ModelReference | None = Field(
        None,
        description="Reference of a multilingual faster-whisper model that says which language is spoken, such as "
        "hf://Systran/faster-whisper-tiny; null: none.",
    )
    recogniser: ModelReference | None = Field(
        None,
        description="Reference of a faster-whisper model whose reading is compared with the transcript; null: none.",
    )


class SelectionConfig(FrozenConfig):
    """Which segments are left out of `sequences`."""

    filters: tuple[Filter, ...] = Field((), description="Conditions that each segment must fulfil.")
