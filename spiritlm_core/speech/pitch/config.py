"""Configuration of the pitch units, and the part of a model's ``config.json`` that decides shapes and inputs."""

from math import prod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.fit.stored import StoredConfig
from spiritlm_core.speech.settings import Minutes, Seed


class PitchConfig(FrozenConfig):
    """A VQ-VAE over fundamental frequency and voicing at 200 Hz, one code per 80 ms (Polyak et al. 2021)."""

    codes: int = Field(64, ge=2, le=64, description="Number of pitch units.")
    width: int = Field(32, ge=4, le=1024, description="Channels of the convolutions of the pitch model.")
    depth: int = Field(1, ge=0, le=8, description="Residual blocks after each strided convolution.")
    embedding: int = Field(32, ge=2, le=1024, description="Size of the vector of a pitch unit.")
    normalize: bool = Field(
        True, description="Subtract the mean of the voiced frames of the clip: register goes, melody stays."
    )
    steps: int = Field(800, ge=1, description="Optimizer steps of the fit.")
    batch_crops: int = Field(12, ge=1, description="Crops per optimizer step.")
    crop_codes: int = Field(24, ge=2, description="Length of a crop, in pitch units of 80 ms.")
    learning_rate: float = Field(3e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    decay: float = Field(0.98, ge=0, lt=1, description="Decay of the moving averages of the codebook.")
    commitment: float = Field(0.02, ge=0, description="Weight of the distance of encoder and codebook.")
    max_minutes: Minutes = 10.0
    seed: Seed = 0


PITCH_HOP = 16  # frames of 5 ms in one pitch unit
Stride = Annotated[int, Field(ge=1, le=PITCH_HOP)]


class PitchBlocks(FrozenConfig):
    """Strided convolutions with residual blocks between them, one side of the VQ-VAE (arXiv 2005.00341, figure 3)."""

    strides: tuple[Stride, ...] = Field((2, 2, 2, 2), min_length=1, max_length=16, description="Stride of each stage.")
    width: int = Field(ge=1, le=8192, description="Channels of the convolutions.")
    depth: int = Field(ge=0, le=64, description="Residual blocks in each stage.")
    expansion: float = Field(1.0, gt=0, le=64, description="Channels inside a residual block, over `width`.")
    growth: int = Field(3, ge=1, le=16, description="Dilation of a residual block over that of the one before.")
    cycle: int | None = Field(None, ge=1, le=64, description="Residual blocks after which dilation restarts.")
    scaled: bool = Field(False, description="Residual branches are divided by the root of `depth`.")
    reversed: bool = Field(False, description="The largest dilation comes first.")

    @property
    def dilations(self) -> list[int]:
        """Dilation of each residual block of a stage."""
        dilations = [self.growth ** (block % (self.cycle or max(1, self.depth))) for block in range(self.depth)]
        return dilations[::-1] if self.reversed else dilations

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if prod(self.strides) != PITCH_HOP:
            raise ValueError(f"strides multiply to {prod(self.strides)}, but a pitch unit is {PITCH_HOP} frames")
        if int(self.expansion * self.width) < 1:
            raise ValueError(f"expansion {self.expansion} leaves no channel of {self.width}")
        if max(self.dilations, default=1) > 1 << 20:
            raise ValueError(f"dilation grows to {max(self.dilations)}, which no audio is long enough for")
        return self


class PitchArchitecture(StoredConfig):
    """Everything needed to rebuild a pitch model and to give it the input it was fitted on."""

    kind_of_model: ClassVar[str] = "a pitch model"

    codes: int = Field(ge=2, le=128, description="Number of pitch units.")
    embedding: int = Field(ge=1, le=8192, description="Size of a code vector.")
    encoder: PitchBlocks = Field(description="From F0 and voicing to code vectors.")
    decoder: PitchBlocks = Field(description="And back.")
    tail: int | None = Field(
        None, ge=1, le=8192, description="Channels before the last convolution; the decoder's width if empty."
    )
    folded: bool = Field(False, description="The encoder emits two halves, whose sum is looked up.")
    scale: Literal["octaves", "hertz"] = Field("octaves", description="Unit of F0 (octaves above 200 Hz).")
    relative: bool = Field(True, description="The mean of the voiced frames of the piece is subtracted.")
    interpolated: bool = Field(True, description="F0 of unvoiced frames is interpolated rather than zero.")
    trimmed: bool = Field(True, description="Frames after the last whole unit are not seen.")

    @classmethod
    def fitted(cls, config: PitchConfig) -> Self:
        """The model that `spiritlm fit` makes of a recipe's settings."""
        blocks = PitchBlocks(width=config.width, depth=config.depth)
        return cls(
            codes=config.codes, embedding=config.embedding, encoder=blocks, decoder=blocks, relative=config.normalize
        )
