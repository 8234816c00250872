"""Configuration of the speech units: HuBERT, its quantizer, pitch and style."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig

FRAME = 640
"""Samples from one HuBERT unit to the next: 25 Hz at 16 kHz."""

RECEPTIVE_FIELD = 720
"""Samples seen by the convolutions of one HuBERT unit."""


def on_grid(kernels: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether frames of these convolutions can be pooled to one per 640 samples that sees no more than 720."""
    field, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field, step = field + (kernel - 1) * step, step * stride
    return FRAME % step == 0 and field + (FRAME // step - 1) * step <= RECEPTIVE_FIELD


Minutes = Annotated[float, Field(gt=0, description="Upper bound of the train speech used for fitting, in minutes.")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of every random choice of the fit.")]
Size = Annotated[int, Field(ge=1)]


class HubertConfig(FrozenConfig):
    """Where HuBERT comes from: a `model` reference, or fitted on the corpus with the other fields.

    Fitting follows Hsu et al. 2021, arXiv 2106.07447: masked prediction of k-means labels, first of MFCC
    frames, then, once per further entry of `clusters` and `steps`, of features of the model fitted so far.
    The default convolutions need a hundredth of the work of the paper's eight (`PAPER_CONVOLUTIONS`) and start as a
    mel filter bank, which lets half an hour of speech and one minute of CPU go a long way.
    """

    model: str | None = Field(
        default=None, description="hf://org/name@revision or file://… of a HubertModel folder; empty: fit one."
    )
    conv_channels: tuple[Size, ...] = Field(default=(256, 192, 192), description="Channels of each convolution.")
    conv_kernels: tuple[Size, ...] = Field(default=(240, 7, 1), description="Kernel of each convolution, in samples.")
    conv_strides: tuple[Size, ...] = Field(default=(80, 8, 1), description="Strides; their product must be 640.")
    hidden_size: int = Field(default=192, ge=16, description="Width of the transformer; a multiple of `heads`.")
    layers: int = Field(default=4, ge=1, le=48, description="Transformer blocks.")
    heads: int = Field(default=4, ge=1, le=32, description="Attention heads.")
    position_kernel: int = Field(default=31, ge=1, le=255, description="Frames seen by the position convolution.")
    clusters: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(
        default=(100,), min_length=1, description="Clusters of the labels of each iteration."
    )
    steps: tuple[Size, ...] = Field(default=(400,), min_length=1, description="Optimizer steps of each iteration.")
    cluster_layer: int = Field(default=3, ge=1, description="Layer clustered for the second and later iterations.")
    batch_crops: int = Field(default=4, ge=1, description="Crops per optimizer step.")
    crop_frames: int = Field(default=100, ge=20, le=3000, description="Length of a crop, in 40 ms frames.")
    learning_rate: float = Field(default=2e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    mask_prob: float = Field(default=0.08, gt=0, le=1, description="Share of frames that start a masked span.")
    mask_length: int = Field(default=5, ge=1, le=20, description="Frames in a masked span.")
    masked_weight: float = Field(
        default=0.5, gt=0, le=1, description="Alpha of the loss: weight of masked frames; the rest goes to the others."
    )
    max_minutes: Minutes = 600.0
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise ValueError("conv_channels, conv_kernels and conv_strides must have one entry per convolution each")
        if prod(self.conv_strides) != FRAME:
            raise ValueError(f"conv_strides multiply to {prod(self.conv_strides)}, but a 25 Hz unit is {FRAME} samples")
        if not on_grid(self.conv_kernels, self.conv_strides):
            raise ValueError(f"the convolutions of one unit may see at most {RECEPTIVE_FIELD} samples")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if len(self.clusters) != len(self.steps):
            raise ValueError("clusters and steps must have one entry per iteration each")
        if self.cluster_layer > self.layers:
            raise ValueError(f"cluster_layer {self.cluster_layer} is above the last of {self.layers} layers")
        return self


class QuantizerConfig(FrozenConfig):
    """K-means over the frames of one HuBERT layer; the index of the nearest centre is the unit."""

    units: int = Field(default=500, ge=2, le=501, description="Number of HuBERT units (500 or 501 in the paper).")
    layer: int | None = Field(default=None, ge=1, description="HuBERT layer, counted from 1; empty: the last one.")
    normalize: bool = Field(default=False, description="Bring every feature to zero mean and unit variance first.")
    max_minutes: Minutes = 600.0
    restarts: int = Field(default=3, ge=1, le=20, description="k-means++ starts, of which the best is kept.")
    iterations: int = Field(default=100, ge=1, description="Most passes of mini-batch k-means over the frames.")
    seed: Seed = 0


class PitchConfig(FrozenConfig):
    """A VQ-VAE over fundamental frequency and voicing at 200 Hz, one code per 80 ms (Polyak et al. 2021)."""

    codes: int = Field(default=64, ge=2, le=64, description="Number of pitch units.")
    width: int = Field(default=32, ge=4, le=1024, description="Channels of the convolutions.")
    depth: int = Field(default=1, ge=0, le=8, description="Residual blocks after each strided convolution.")
    embedding: int = Field(default=32, ge=2, le=1024, description="Size of a code vector.")
    normalize: bool = Field(
        default=True, description="Subtract the mean of the voiced frames of the clip: register goes, melody stays."
    )
    steps: int = Field(default=800, ge=1, description="Optimizer steps.")
    batch_crops: int = Field(default=12, ge=1, description="Crops per optimizer step.")
    crop_codes: int = Field(default=24, ge=2, description="Length of a crop, in codes of 80 ms.")
    learning_rate: float = Field(default=3e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    decay: float = Field(default=0.98, ge=0, lt=1, description="Decay of the moving averages of the codebook.")
    commitment: float = Field(default=0.02, ge=0, description="Weight of the commitment loss.")
    max_minutes: Minutes = 10.0
    seed: Seed = 0


class StyleConfig(FrozenConfig):
    """K-means over one vector per second: what is said how, beside the words and the melody."""

    clusters: int = Field(default=100, ge=2, le=100, description="Number of style units.")
    layer: int = Field(default=1, ge=1, description="HuBERT layer whose mean and deviation are pooled.")
    components: int = Field(default=8, ge=1, le=64, description="Principal components kept of the pooled layer.")
    max_minutes: Minutes = 10.0
    restarts: int = Field(default=5, ge=1, le=20, description="k-means++ starts, of which the best is kept.")
    seed: Seed = 0


class UnitsConfig(FrozenConfig):
    """Everything about speech units; `pitch` and `style` are used by the Expressive variant only."""

    hubert: HubertConfig = HubertConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    pitch: PitchConfig = PitchConfig()
    style: StyleConfig = StyleConfig()


PAPER_CONVOLUTIONS: dict[str, tuple[int, ...]] = {
    "conv_channels": (512,) * 8,
    "conv_kernels": (10, 3, 3, 3, 3, 2, 2, 2),
    "conv_strides": (5, 2, 2, 2, 2, 2, 2, 2),
}
"""The 25 Hz front end of Spirit LM, as keyword arguments of :class:`HubertConfig`."""
