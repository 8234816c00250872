"""What a vocoder is made of: its ``config.json``. Imports nothing heavy."""

from __future__ import annotations

from math import prod
from typing import Annotated, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.units.config import FRAME

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Kernel = Annotated[int, Field(ge=1, le=255)]


class VocoderConfig(FrozenConfig):
    """A HiFi-GAN generator (arXiv 2010.05646) over embedded units, with predicted durations (arXiv 2104.00355).

    What a vocoder is not told has 0 embeddings. Channels halve in each stage of up-sampling.
    """

    units: Size = Field(description="Number of HuBERT units.")
    pitch_units: int = Field(default=0, ge=0, le=1 << 16, description="Number of pitch units.")
    style_units: int = Field(default=0, ge=0, le=1 << 16, description="Number of style units.")
    speakers: int = Field(default=0, ge=0, le=1 << 16, description="Number of voices.")
    expressions: int = Field(default=0, ge=0, le=1 << 16, description="Number of manners of speaking.")
    speaker: int = Field(default=0, ge=0, description="The voice if none is asked for.")
    expression: int = Field(default=0, ge=0, description="The manner if none is asked for.")
    pitch_frames: Size = Field(default=2, description="Frames of 40 ms that a pitch unit of a recording stands for.")
    style_frames: Size = Field(default=25, description="The same for a style unit.")
    embedding: Size = Field(description="Size of each embedding.")
    channels: Size = Field(description="Channels before the first stage.")
    rates: tuple[Size, ...] = Field(min_length=1, max_length=16, description="Up-sampling of each stage.")
    kernels: tuple[Kernel, ...] = Field(description="Kernel of each stage's transposed convolution.")
    block_kernels: tuple[Kernel, ...] = Field(min_length=1, max_length=16, description="Kernel of each residual block.")
    block_dilations: tuple[Annotated[tuple[Kernel, ...], Field(min_length=1, max_length=16)], ...] = Field(
        description="Dilations of each residual block."
    )
    duration_channels: Size = Field(description="Channels of the duration predictor.")
    duration_kernel: Kernel = Field(default=3, description="Kernel of its convolutions.")

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
    def context(self) -> tuple[int, int]:
        """Frames before and after a frame that reach its samples: the generator's receptive field.

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
        if not all(kernel % 2 for kernel in (*self.block_kernels, self.duration_kernel)):
            raise ValueError("kernels of residual blocks and of the duration predictor are odd")
        if self.channels % (1 << len(self.rates)):
            raise ValueError(f"channels {self.channels} cannot be halved {len(self.rates)} times")
        for name, chosen, size in (
            ("speaker", self.speaker, self.speakers),
            ("expression", self.expression, self.expressions),
        ):
            if chosen >= max(1, size):
                raise ValueError(f"{name} {chosen} is not one of {size}")
        return self


EDGE_KERNEL = 7
"""Kernel of the first and the last convolution."""

_EDGE = EDGE_KERNEL // 2
