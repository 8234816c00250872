"""What is measured on each segment, and which of them a recipe leaves out. Imports little more than pydantic."""

import math
import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from spiritlm_core.config import FrozenConfig, meant
from spiritlm_core.evaluate.config import SPEAKER_ENCODER
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

JUDGES = {
    **dict.fromkeys(("dnsmos", "dnsmos_signal", "dnsmos_background"), "dnsmos"),
    **dict.fromkeys(("language", "language_confidence"), "language"),
    "wer": "recogniser",
}
"""Columns that stay empty without a model, and the setting of `QualityConfig` that names it."""

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
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{text!r}: {value!r} is no number")
        return cls(column, operator, number)

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


class DVectorsConfig(FrozenConfig):
    """How voices are described."""

    seconds: float = Field(60.0, ge=1, description="Most seconds of a recording that are heard.")


class VoicesConfig(FrozenConfig):
    """Which recordings are taken for one voice."""

    similarity: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="Two groups of recordings are one voice if the mean cosine of their d-vectors is at least this.",
    )
    recordings: int = Field(
        5000, ge=1, description="Most recordings that are compared with each other; the others get the likest voice."
    )
    seed: int = Field(0, ge=0, description="Another one picks other recordings, where there are more.")


class SpeakersConfig(DVectorsConfig, VoicesConfig):
    """Who speaks where no source says so: guessed by the voice. Recordings are taken for one voice each."""

    encoder: ModelReference = Field(
        SPEAKER_ENCODER,
        description="Model of voices: a GE2E speaker encoder in the layout of Resemblyzer, or a folder of transformers "
        "for x-vectors, such as hf://microsoft/wavlm-base-plus-sv.",
    )
    use: tuple[Literal["split", "style"], ...] = Field(
        (),
        description="What guesses count for: split, holding out voices as a whole; style, as the names of speakers for "
        "style units and the vocoder. Without any they are a column to look at.",
    )


class SpeakersStageConfig(FrozenConfig):
    """What guesses change in the columns of `audio`."""

    use: tuple[Literal["split", "style"], ...] = Field((), description="What guesses count for.")
    held_out_share: float = Field(0.1, description="Share of the voices that is kept for evaluation.")
    split_salt: str = Field("", description="Any text; another one draws another held-out set.")

    def idle(self) -> AbstractSet[str]:
        """How voices are held out where none is."""
        return frozenset() if "split" in self.use else {"held_out_share", "split_salt"}


class SelectionConfig(FrozenConfig):
    """Which segments are left out of `sequences`."""

    filters: tuple[Filter, ...] = Field((), description="Conditions that each segment must fulfil.")
