"""What a vocoder is made of: its ``config.json``. Imports nothing heavy."""

from math import prod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.fit.stored import StoredConfig
from spiritlm_core.speech.grid import FRAME

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Kernel = Annotated[int, Field(ge=1, le=255)]


EDGE_KERNEL = 7  # kernel of the first convolution of every generator, and of the last one of HiFi-GAN
_EDGE = EDGE_KERNEL // 2


class HifiganConfig(FrozenConfig):
    """A HiFi-GAN generator (arXiv 2010.05646): frames are up-sampled to samples; channels halve in each stage."""

    kind: Literal["hifigan"] = "hifigan"
    channels: Size = Field(512, description="Channels before the first stage; each stage halves them.")
    rates: tuple[Size, ...] = Field(
        (5, 4, 4, 4, 2),
        min_length=1,
        max_length=16,
        description="Factor by which each stage up-samples; their product must be 640.",
    )
    kernels: tuple[Kernel, ...] = Field((11, 8, 8, 8, 4), description="Kernel of each transposed convolution.")
    block_kernels: tuple[Kernel, ...] = Field(
        (3, 7, 11), min_length=1, max_length=16, description="Kernel of each residual block."
    )
    block_dilations: tuple[Annotated[tuple[Kernel, ...], Field(min_length=1, max_length=16)], ...] = Field(
        ((1, 3, 5), (1, 3, 5), (1, 3, 5)), description="Dilations of each residual block."
    )

    @property
    def context(self) -> tuple[int, int]:
        """Frames before and after a frame that reach its samples: the receptive field.

        A transposed convolution with kernel k, stride u and padding p takes sample t from inputs
        ceil((t + p - k + 1) / u) to floor((t + p) / u); all others reach equally far to both sides.
        """
        blocks = zip(self.block_kernels, self.block_dilations, strict=True)
        around = max((kernel // 2) * (sum(dilations) + len(dilations)) for kernel, dilations in blocks)
        first, last = -_EDGE, FRAME - 1 + _EDGE
        for rate, kernel in zip(reversed(self.rates), reversed(self.kernels), strict=True):
            first, last, padding = first - around, last + around, (kernel - rate) // 2
            first, last = -((kernel - 1 - padding - first) // rate), (last + padding) // rate
        return _EDGE - first, last + _EDGE

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if prod(self.rates) != FRAME:
            raise ValueError(f"rates multiply to {prod(self.rates)}, but a unit is {FRAME} samples")
        if len(self.kernels) != len(self.rates) or len(self.block_kernels) != len(self.block_dilations):
            raise ValueError("kernels must be as many as rates, and block_dilations as many as block_kernels")
        for kernel, rate in zip(self.kernels, self.rates, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ValueError(f"a kernel of {kernel} cannot multiply a length by exactly {rate}")
        if not all(kernel % 2 for kernel in self.block_kernels):
            raise ValueError("kernels of residual blocks are odd")
        if self.channels % (1 << len(self.rates)):
            raise ValueError(f"channels {self.channels} cannot be halved {len(self.rates)} times")
        return self


class IstftConfig(FrozenConfig):
    """ConvNeXt blocks and an inverse short-time Fourier transform, in the manner of Vocos (arXiv 2306.00814).

    The first `unit_layers` blocks see one frame per unit, the others one per `hop`: what sounds come next is decided
    where a step is cheap and reaches far.
    """

    kind: Literal["istft"] = "istft"
    width: Size = Field(512, description="Channels of the blocks.")
    expansion: Annotated[int, Field(ge=1, le=8)] = Field(3, description="Inner width of a block, in widths.")
    unit_layers: int = Field(4, ge=0, le=64, description="Blocks that see one frame per unit.")
    layers: int = Field(8, ge=0, le=64, description="Blocks that see one frame per `hop`.")
    kernel: Kernel = Field(7, description="Kernel of the blocks' convolutions, in frames.")
    hop: Size = Field(160, description="Samples from one Fourier frame to the next.")
    window: Size = Field(640, description="Samples of a Fourier frame; a multiple of `hop`.")

    @property
    def frames(self) -> int:
        """Fourier frames of a unit."""
        return FRAME // self.hop

    @property
    def trim(self) -> int:
        """Samples by which the first Fourier frame starts too early, and the last one ends too late."""
        return (self.window - self.hop) // 2

    @property
    def context(self) -> tuple[int, int]:
        """As in HiFi-GAN: Fourier frame j holds samples ``hop j - trim`` to ``hop j - trim + window``."""
        around = self.layers * (self.kernel // 2)
        first = (self.trim - self.window) // self.hop + 1 - around
        last = (FRAME - 1 + self.trim) // self.hop + around
        wide = _EDGE + self.unit_layers * (self.kernel // 2)
        return wide - first // self.frames, last // self.frames + wide

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if FRAME % self.hop or self.window % self.hop or self.window < 2 * self.hop or (self.window - self.hop) % 2:
            raise ValueError(
                f"hop {self.hop} must divide a unit's {FRAME} samples and window {self.window} at least twice, "
                "and window - hop must be even"
            )
        if not self.kernel % 2:
            raise ValueError("kernel is odd")
        return self


GeneratorConfig = Annotated[HifiganConfig | IstftConfig, Field(discriminator="kind")]


class VocoderConfig(StoredConfig):
    """A generator over embedded units, with predicted durations (arXiv 2104.00355).

    What a vocoder is not told has 0 embeddings.
    """

    kind_of_model: ClassVar[str] = "a vocoder"

    units: Size = Field(description="Number of HuBERT units.")
    pitch_units: int = Field(0, ge=0, le=1 << 16, description="Number of pitch units.")
    style_units: int = Field(0, ge=0, le=1 << 16, description="Number of style units.")
    speakers: int = Field(0, ge=0, le=1 << 16, description="Number of voices.")
    expressions: int = Field(0, ge=0, le=1 << 16, description="Number of manners of speaking.")
    speaker: int = Field(0, ge=0, description="Number of the voice if none is asked for.")
    expression: int = Field(0, ge=0, description="Number of the manner of speaking if none is asked for.")
    speaker_names: tuple[str, ...] = Field((), description="Name of each voice, where they have names.")
    usual_styles: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Style units of which one is taken where none is told; empty: those of the released ones."
    )
    unit_frames: Size = Field(1, description="Frames of 40 ms that a HuBERT unit of a recording stands for.")
    pitch_frames: Size = Field(2, description="Frames of 40 ms that a pitch unit of a recording stands for.")
    style_frames: Size = Field(25, description="Frames of 40 ms that a style unit of a recording stands for.")
    embedding: Size = Field(description="Size of each embedding.")
    generator: GeneratorConfig = Field(description="What makes a waveform of embedded units.")
    duration_channels: Size = Field(description="Channels of the duration predictor.")
    duration_kernel: Kernel = Field(3, description="Kernel of the duration predictor's convolutions.")

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units of each stream that it is told."""
        sizes = {"hubert": self.units, "pitch": self.pitch_units, "style": self.style_units}
        return {name: size for name, size in sizes.items() if size}

    @property
    def embeddings(self) -> dict[str, int]:
        """Number of vectors of each embedding there is, in the order of the generator's input channels."""
        sizes = {
            "units": self.units,
            "pitch": self.pitch_units,
            "style": self.style_units,
            "speaker": self.speakers,
            "expression": self.expressions,
        }
        return {name: size for name, size in sizes.items() if size}

    @property
    def inputs(self) -> int:
        """Input channels of the generator."""
        return self.embedding * len(self.embeddings)

    @property
    def context(self) -> tuple[int, int]:
        """Frames before and after a frame that reach its samples."""
        return self.generator.context

    @property
    def duration_context(self) -> int:
        """Units before and after a unit that its duration depends on."""
        return 2 * (self.duration_kernel // 2)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.duration_kernel % 2:
            raise ValueError("duration_kernel is odd")
        if self.speaker_names and len(set(self.speaker_names)) != self.speakers:
            raise ValueError(f"speaker_names has {len(set(self.speaker_names))} names for {self.speakers} speakers")
        if any(style >= self.style_units for style in self.usual_styles):
            raise ValueError(f"usual_styles {self.usual_styles} are not all among the {self.style_units} style units")
        for name, chosen, size in (
            ("speaker", self.speaker, self.speakers),
            ("expression", self.expression, self.expressions),
        ):
            if chosen >= max(1, size):
                raise ValueError(f"{name} {chosen} is not one of {size}")
        return self
