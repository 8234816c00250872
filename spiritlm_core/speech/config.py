"""Configuration of the speech units: encoder, quantizer, pitch and style."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig, Optionally, Span
from spiritlm_core.references.syntax import ModelReference
from spiritlm_core.speech.pitch.config import PitchConfig
from spiritlm_core.speech.pretraining.config import HubertConfig
from spiritlm_core.speech.quantizers.config import QuantizerConfig, QuantizerStageConfig
from spiritlm_core.speech.settings import ExtractionPrecision, Minutes, Seed, UnitRate

Speed = Annotated[float, Field(ge=0.5, le=2)]


class StyleConfig(FrozenConfig):
    """K-means over one vector per second: what is said how, beside the words and the melody."""

    clusters: int = Field(100, ge=2, le=100, description="Number of style units.")
    layer: int = Field(
        1,
        ge=1,
        description="Layer of the encoder whose mean and deviation over a second are clustered, counted from 1.",
    )
    components: int = Field(8, ge=1, le=64, description="Principal components that are kept before clustering.")
    max_minutes: Minutes = 10.0
    restarts: int = Field(5, ge=1, le=20, description="Runs of k-means++, of which the best is kept.")
    seed: Seed = 0


class CopiesConfig(FrozenConfig):
    """How often each train recording is encoded besides as it is; training draws one encoding in each epoch.

    Synthetic speech is not: it is varied where it is made.
    """

    shifts: int = Field(
        0, ge=0, le=15, description="Copies that begin a part of a frame later: of n, copy k by k / (n + 1)."
    )
    speeds: tuple[Speed, ...] = Field(
        (), max_length=8, description="Speeds of copies played faster (1.1) or slower (0.9); pitch goes along."
    )
    rooms: int = Field(0, ge=0, le=16, description="Copies heard in a room with noise, drawn for each clip.")
    reverberation: float = Field(
        0.5, gt=0, le=3, description="Longest seconds in which sound falls by 60 dB in a room."
    )
    snr: Span = Field((5.0, 30.0), description="Lowest and highest signal-to-noise ratio in a room, in dB.")
    seed: Seed = 0

    @model_validator(mode="after")
    def _changed(self) -> Self:
        if 1.0 in self.speeds or len(set(self.speeds)) < len(self.speeds):
            raise ValueError("speeds must be different from each other and from 1, the recording as it is")
        return self

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        return bool(self.shifts or self.speeds or self.rooms)

    def idle(self) -> AbstractSet[str]:
        """What rooms are like, where there are none."""
        return frozenset() if self.rooms else {"reverberation", "snr", "seed"}


class UnitsConfig(FrozenConfig):
    """Everything about speech units; `pitch` and `style` are used by the Expressive variant only."""

    younger: ClassVar[AbstractSet[str]] = {"copies", "encoder", "encoder_optional", "rate"}

    encoder: ModelReference | None = Field(
        None, description="Reference of a HuBERT, wav2vec 2.0, WavLM, w2v-BERT 2.0 or Whisper; null: `hubert` says."
    )
    encoder_optional: Optionally = Field(
        False,
        description="Where `encoder` cannot be had: true fits `hubert` in its place and says so; false is an error. "
        "absent: it does anyhow.",
    )
    rate: UnitRate = Field(25.0, description="Phonetic units per second; at 12.5 a unit is two frames.")
    hubert: HubertConfig = Field(HubertConfig(), description="HuBERT, whose features become units.")
    quantizer: QuantizerConfig = Field(QuantizerConfig(), description="Features of a frame to a unit.")
    pitch: PitchConfig = Field(PitchConfig(), description="Pitch units; Expressive only.")
    style: StyleConfig = Field(StyleConfig(), description="Style units; Expressive only.")
    precision: ExtractionPrecision = Field(
        "exact", description="Precision of matrix products in unit extraction; bf16 is faster and changes some units."
    )
    copies: CopiesConfig = Field(
        CopiesConfig(), description="How often each train recording is encoded besides; by default not at all."
    )

    @model_validator(mode="after")
    def _one_encoder(self) -> Self:
        if self.encoder is not None and self.hubert.model is not None:
            raise ValueError("encoder and hubert.model are two names of one setting: leave one of them null")
        return self

    @property
    def given_encoder(self) -> str | None:
        """Reference of the encoder; None where a HuBERT is fitted."""
        return self.hubert.model if self.encoder_optional == "absent" else self.encoder or self.hubert.model

    @property
    def hubert_stage(self) -> HubertConfig:
        """What the fit of HuBERT is given; who gives the labels is a role."""
        return self.hubert.reset("labels" if self.hubert.labels else "labels_layer")

    @property
    def quantizer_stage(self) -> QuantizerStageConfig:
        """What the fit of the quantizer is given."""
        return QuantizerStageConfig(**dict(self.quantizer), rate=self.rate)

    @property
    def taught(self) -> bool:
        """Whether words tell the quantizer which directions of the features matter."""
        return self.quantizer.directions is not None

    def stage(self, *, expressive: bool) -> UnitsStageConfig:
        """What the stages are given that use the models, without how these are fitted."""
        sizes = {"pitch": self.pitch.codes, "style": self.style.clusters} if expressive else {}
        return UnitsStageConfig(precision=self.precision, hubert=self.quantizer.size, **sizes)

    def copies_stage(self, *, expressive: bool) -> CopiesStageConfig:
        """The same for the stage that encodes the copies, with what they are."""
        return CopiesStageConfig(**dict(self.stage(expressive=expressive)), copies=self.copies)


class UnitsStageConfig(FrozenConfig):
    """What the stages that use the unit models are given, besides these: how many units there are of each kind."""

    hubert: int = Field(ge=1, description="HuBERT units, the blank included.")
    pitch: int = Field(0, ge=0, description="Pitch units; 0 for Base.")
    style: int = Field(0, ge=0, description="Style units; 0 for Base.")
    precision: ExtractionPrecision = Field("exact", description="Precision of unit extraction.")

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units of each stream that there is."""
        sizes = {"hubert": self.hubert, "pitch": self.pitch, "style": self.style}
        return {name: size for name, size in sizes.items() if size}


class CopiesStageConfig(UnitsStageConfig):
    """The same, and what the copies are."""

    copies: CopiesConfig = Field(description="How often each train recording is encoded besides.")
