"""How a vocoder is fitted: the section `vocoder` of a recipe. Imports nothing heavy."""

from collections.abc import Set as AbstractSet
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.fit.config import Precision
from spiritlm_core.speech.config import UnitsStageConfig
from spiritlm_core.speech.settings import Minutes, Seed, UnitRate
from spiritlm_core.speech.vocoder.config import GeneratorConfig, IstftConfig, Size, VocoderConfig


class DiscriminatorConfig(FrozenConfig):
    """The multi-period and multi-scale discriminators of HiFi-GAN, with `channels` of 32 for the paper's."""

    channels: int = Field(4, ge=4, le=64, multiple_of=4, description="Channels of the narrowest layer.")
    periods: tuple[Annotated[int, Field(ge=2, le=101)], ...] = Field(
        (2, 3, 5, 7, 11),
        min_length=1,
        description="Period of each multi-period discriminator; best without common factors.",
    )
    scales: int = Field(
        3,
        ge=1,
        le=5,
        description="Number of multi-scale discriminators: one for the waveform, one for each halving of its rate.",
    )


class LossWeights(FrozenConfig):
    """What counts how much for the generator (arXiv 2010.05646, eq. 5)."""

    mel: float = Field(45.0, gt=0, description="Weight of the distance of log-mel spectrograms.")
    features: float = Field(2.0, ge=0, description="Weight of the distance of the discriminators' layers.")
    adversarial: float = Field(1.0, ge=0, description="Weight of deceiving the discriminators.")
    duration: float = Field(1.0, ge=0, description="Weight of the error of predicted durations.")


class VocoderFitConfig(FrozenConfig):
    """A vocoder for the units of a corpus, trained against its recordings.

    `size` chooses the defaults of all other fields (`SIZES`); those written here are the ones of ``tiny``.
    """

    younger: ClassVar[AbstractSet[str]] = {"precision"}

    size: Literal["quick", "tiny", "small", "base"] = Field(
        "tiny",
        description="Sets the defaults of the other fields; quick takes a minute and a half of one CPU core, tiny half "
        "an hour, base a GPU and a day.",
    )
    generator: GeneratorConfig = Field(
        IstftConfig(width=256, unit_layers=4, layers=6),
        description="The network that makes waveforms; see docs/vocoder.md.",
    )
    embedding: Size = Field(128, description="Size of the vector of each unit, voice and manner.")
    unit_init: Literal["centres", "random"] = Field(
        "centres",
        description="Vectors of units start where the quantizer's clusters lie, so that units that sound alike start "
        "alike; or they are drawn.",
    )
    duration_channels: Size = Field(128, description="Channels of the duration predictor.")
    streams: tuple[Literal["pitch", "style"], ...] = Field(
        ("pitch", "style"), description="Streams the vocoder is told besides HuBERT units, where the corpus has them."
    )
    speakers: bool = Field(True, description="Give each speaker a voice; false: one voice for all.")
    shifts: int = Field(
        4,
        ge=1,
        le=16,
        description="Times each recording is encoded, a part of a frame later each time: other units, same sound.",
    )
    steps: int = Field(3000, ge=1, description="Optimizer steps of the fit.")
    adversarial_from: int = Field(
        2000, ge=0, description="Step from which discriminators take part; before it, steps are much cheaper."
    )
    batch_crops: int = Field(16, ge=1, description="Crops per optimizer step, over all processes.")
    crop_frames: int = Field(24, ge=4, le=2500, description="Length of a crop, in 40 ms frames.")
    judged_frames: int = Field(
        8, ge=2, description="Frames in the middle of a crop that the discriminators see; all, if it has less."
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=0.1, description="Peak learning rate of AdamW, for generator and discriminators."
    )
    discriminators: DiscriminatorConfig = Field(
        DiscriminatorConfig(), description="The networks that tell made sound from recorded."
    )
    weights: LossWeights = Field(LossWeights(), description="Weights of the parts of the loss.")
    precision: Precision = Field(
        "auto", description="Arithmetic of the fit; auto: bf16 on a CPU with bf16 tiles (Intel AMX), else fp32."
    )
    max_minutes: Minutes = 120.0
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, data: Any) -> Any:
        """Put the defaults of `size`, and of the generator's kind in that size, below what is given."""
        if not isinstance(data, dict) or data.get("size", "tiny") not in SIZES:
            return data
        size = data.get("size", "tiny")
        given = data.get("generator", {})
        if not isinstance(given, dict):
            return {**SIZES[size], **data}
        kind = given.get("kind", "istft")
        generator = {"kind": kind, **GENERATORS.get(kind, {}).get(size, {}), **given}
        return {**SIZES[size], **data, "generator": generator}

    @property
    def roles(self) -> tuple[str, ...]:
        """Unit models that the fit needs: to encode recordings again, or for the centres of the units."""
        if self.shifts > 1:
            return ("hubert", "quantizer")
        return ("quantizer",) if self.unit_init == "centres" else ()

    def used(self) -> Self:
        """The same without the settings of discriminators that never take part."""
        if self.adversarial_from < self.steps:
            return self
        weights = self.weights.reset("features", "adversarial")
        plain = self.reset("discriminators", "judged_frames")
        return plain.model_copy(update={"weights": weights, "adversarial_from": self.steps})

    def architecture(self, sizes: dict[str, int], names: tuple[str, ...], usual: int) -> VocoderConfig:
        """The vocoder to fit: `sizes` are numbers of units of each stream, `usual` speaks if no other is asked for.

        Speakers are named in the order of their embeddings; a single one needs none.
        """
        several = len(names) > 1
        return VocoderConfig(
            units=sizes["hubert"],
            pitch_units=sizes.get("pitch", 0) if "pitch" in self.streams else 0,
            style_units=sizes.get("style", 0) if "style" in self.streams else 0,
            speakers=len(names) if several else 0,
            speaker=usual if several else 0,
            speaker_names=names if several else (),
            embedding=self.embedding,
            generator=self.generator,
            duration_channels=self.duration_channels,
        )


class VocoderStageConfig(UnitsStageConfig):
    """What the stage is given: the fit, how many units the models of the recipe have, and how they are extracted."""

    younger: ClassVar[AbstractSet[str]] = {"precision", "rate"}

    fit: VocoderFitConfig
    rate: UnitRate = Field(25.0, description="Phonetic units per second.")

    def idle(self) -> AbstractSet[str]:
        """The precision of encoding recordings again, where none is."""
        return {"precision"} if self.fit.shifts == 1 else frozenset()


GENERATORS: dict[str, dict[str, dict[str, Any]]] = {
    "istft": {
        "quick": {"width": 128, "expansion": 2, "unit_layers": 4, "layers": 4},
        "tiny": {"width": 256, "unit_layers": 4, "layers": 6},
        "small": {"width": 384, "unit_layers": 6, "layers": 8},
        "base": {"width": 512, "unit_layers": 8, "layers": 8},
    },
    "hifigan": {
        "quick": {"channels": 64, "block_kernels": (3,), "block_dilations": ((1, 3),)},
        "tiny": {"channels": 128, "block_kernels": (3, 7), "block_dilations": ((1, 3), (1, 3))},
        "small": {"channels": 256},
        "base": {"channels": 512},
    },
}
"""Defaults of a generator by kind and size; hifigan, base has the shape of the released ones."""

SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "shifts": 1,
        "steps": 1200,
        "adversarial_from": 1200,
        "batch_crops": 8,
        "learning_rate": 4e-3,
    },
    "tiny": {},
    "small": {
        "shifts": 2,
        "steps": 50_000,
        "adversarial_from": 5000,
        "batch_crops": 32,
        "crop_frames": 32,
        "learning_rate": 5e-4,
        "discriminators": {"channels": 16},
        "max_minutes": 600.0,
    },
    "base": {
        "shifts": 1,
        "steps": 400_000,
        "adversarial_from": 0,
        "batch_crops": 64,
        "crop_frames": 32,
        "learning_rate": 3e-4,
        "discriminators": {"channels": 32},
        "max_minutes": 1500.0,
    },
}
"""Defaults of :class:`VocoderFitConfig` by `size`. Recordings are held in memory, two bytes a sample for each shift."""
