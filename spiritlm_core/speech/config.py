"""Configuration of the speech units: HuBERT, its quantizer, pitch and style."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.fit.config import FitCompute

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
ExtractionPrecision = Literal["exact", "bf16", "int8"]


class PerturbConfig(FrozenConfig):
    """How crops are changed before HuBERT hears them, while their labels stay those of the clean recording.

    What differs between voices, rooms and microphones then says nothing about the label, and the features come to
    carry less of it (Qian et al. 2022, arXiv 2204.09224; Chen et al. 2021, arXiv 2110.13900). The changes cost an
    eighth of a training step of a tiny model, and next to nothing of a larger one.
    """

    speed: float = Field(
        default=1.13,
        ge=1,
        le=1.5,
        description="Largest factor by which a crop is played faster or slower; pitch and formants go along.",
    )
    colour: float = Field(
        default=3.0,
        ge=0,
        le=12,
        description="Standard deviation of the gain at eight frequencies from 0 to 8 kHz, in dB.",
    )
    noise: float = Field(default=0.3, ge=0, le=1, description="Share of crops with noise or another voice mixed in.")
    snr: tuple[float, float] = Field(
        default=(0.0, 20.0), description="Lowest and highest signal-to-noise ratio of what is mixed in, in dB."
    )

    def idle(self) -> AbstractSet[str]:
        """The distance of noise that there is not."""
        return frozenset() if self.noise else {"snr"}


class HubertConfig(FrozenConfig):
    """Where HuBERT comes from: a `model` reference, or fitted on the corpus with the other fields.

    Fitting follows Hsu et al. 2021, arXiv 2106.07447: masked prediction of k-means labels, first of MFCC
    frames, then, once per further entry of `clusters` and `steps`, of features of the model fitted so far.
    `size` chooses the defaults of all other fields (`SIZES`); those written here are the ones of ``tiny``. Its
    convolutions need a hundredth of the work of the paper's eight (`PAPER_CONVOLUTIONS`) and start as a mel filter
    bank, which lets an hour of speech and some minutes of CPU go a long way.
    """

    model: str | None = Field(
        default=None,
        description="Reference of a HubertModel folder, hf://org/name@revision or file://…; null fits one.",
    )
    size: Literal["tiny", "small", "base"] = Field(
        default="tiny",
        description="Sets the defaults of the other fields; tiny takes minutes of CPU, base is the paper's.",
    )
    conv_channels: tuple[Size, ...] = Field(default=(256, 192, 192), description="Channels of each convolution.")
    conv_kernels: tuple[Size, ...] = Field(default=(240, 7, 1), description="Kernel of each convolution, in samples.")
    conv_strides: tuple[Size, ...] = Field(
        default=(80, 8, 1), description="Stride of each convolution; their product must be 640 samples."
    )
    hidden_size: int = Field(default=192, ge=16, description="Width of the transformer; a multiple of `heads`.")
    layers: int = Field(default=4, ge=1, le=48, description="Transformer blocks.")
    heads: int = Field(default=4, ge=1, le=32, description="Attention heads of a transformer block.")
    position_kernel: int = Field(default=31, ge=1, le=255, description="Frames seen by the position convolution.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of activations dropped in training.")
    clusters: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(
        default=(100, 200), min_length=1, description="Number of different labels in each iteration."
    )
    steps: tuple[Size, ...] = Field(default=(2000, 2000), min_length=1, description="Optimizer steps per iteration.")
    normalize_labels: bool = Field(
        default=True, description="Take the mean of the clip from its frames before they are clustered into labels."
    )
    cluster_layer: int | None = Field(
        default=None,
        ge=1,
        description="Layer that is clustered into the labels of later iterations; null: three quarters up.",
    )
    batch_crops: int = Field(default=4, ge=1, description="Crops per optimizer step, over all processes.")
    crop_frames: int = Field(default=100, ge=20, le=3000, description="Length of a crop, in 40 ms frames.")
    learning_rate: float = Field(default=2e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    mask_prob: float = Field(default=0.08, gt=0, le=1, description="Share of frames that start a masked span.")
    mask_length: int = Field(default=5, ge=1, le=20, description="Frames in a masked span.")
    masked_weight: float = Field(
        default=0.5, gt=0, le=1, description="Weight of masked frames in the loss; the rest goes to the other frames."
    )
    perturb: PerturbConfig | None = Field(
        default=PerturbConfig(),
        description="How crops are changed before HuBERT hears them; null: not at all, as in the paper.",
    )
    max_minutes: Minutes = 600.0
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, data: Any) -> Any:
        """Put the defaults of `size` below what is given."""
        size = data.get("size") if isinstance(data, dict) else None
        return {**SIZES[size], **data} if isinstance(size, str) and size in SIZES else data

    @property
    def teacher_layer(self) -> int:
        """The layer that is clustered for the second and later iterations, counted from 1."""
        return self.cluster_layer or max(1, round(0.75 * self.layers))

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
        if self.teacher_layer > self.layers:
            raise ValueError(f"cluster_layer {self.cluster_layer} is above the last of {self.layers} layers")
        return self

    def idle(self) -> AbstractSet[str]:
        """The layer of later iterations where there is one iteration."""
        return {"cluster_layer"} if len(self.clusters) == 1 else frozenset()


class AugmentConfig(FrozenConfig):
    """How copies of recordings are changed; each of the four changes with the same probability."""

    probability: float = Field(default=0.5, gt=0, le=1, description="Probability of each of the four changes.")
    tempo: float = Field(
        default=1.15, ge=1, le=1.5, description="Largest factor by which a copy is faster or slower, at the same pitch."
    )
    semitones: float = Field(
        default=3.0, ge=0, le=12, description="Most semitones by which a copy is higher or lower, at the same tempo."
    )
    reverberation: float = Field(default=0.5, gt=0, le=3, description="Longest seconds in which sound falls by 60 dB.")
    snr: tuple[float, float] = Field(
        default=(0.0, 20.0), description="Lowest and highest signal-to-noise ratio of what is mixed in, in dB."
    )


class LinearConfig(FrozenConfig):
    """The noise-robust quantizer (Gat et al. 2022, arXiv 2209.15483), taught by k-means on clean speech."""

    iterations: int = Field(
        default=1, ge=1, le=10, description="Rounds of teaching; from the second on, the last student is the teacher."
    )
    steps: int = Field(default=1000, ge=1, description="Optimizer steps per iteration.")
    batch_crops: int = Field(default=16, ge=1, description="Crops per optimizer step.")
    crop_frames: int = Field(default=100, ge=10, le=2500, description="Longest crop, in 40 ms frames.")
    learning_rate: float = Field(default=2e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    warm_up: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Share of the steps trained frame by frame before CTC; 0 in the paper.",
    )
    augment: AugmentConfig = Field(
        default=AugmentConfig(), description="How the copies are changed that must get the same units."
    )


class QuantizerConfig(FrozenConfig):
    """K-means over the frames of one HuBERT layer; the index of the nearest centre is the unit.

    With ``kind: linear``, a small network learns to give the same units for changed recordings as k-means gives for the
    originals; it has a class more, the blank.
    """

    kind: Literal["kmeans", "linear"] = Field(
        default="kmeans",
        description="kmeans: the nearest centre; linear: a small network that is robust against noise and rooms.",
    )
    linear: LinearConfig = Field(default=LinearConfig(), description="How the network of `kind: linear` is fitted.")
    units: int = Field(default=500, ge=2, le=501, description="Number of HuBERT units (500 or 501 in the paper).")
    layer: int | None = Field(default=None, ge=1, description="Layer that is quantized, from 1; null: the last.")
    normalize: bool = Field(default=False, description="Bring features to zero mean and unit variance first.")
    max_minutes: Minutes = 600.0
    restarts: int = Field(default=3, ge=1, le=20, description="Runs of k-means++, of which the best is kept.")
    iterations: int = Field(default=100, ge=1, description="Most passes of mini-batch k-means over the frames.")
    seed: Seed = 0

    @model_validator(mode="after")
    def _room_for_blank(self) -> Self:
        if self.size > 501:
            raise ValueError("units must be at most 500 where kind is linear: the blank is one more")
        return self

    @property
    def size(self) -> int:
        """Number of units that can come out, the blank included."""
        return self.units + (self.kind == "linear")

    def idle(self) -> AbstractSet[str]:
        """The settings of the other kind."""
        return {"linear"} if self.kind == "kmeans" else frozenset()


class PitchConfig(FrozenConfig):
    """A VQ-VAE over fundamental frequency and voicing at 200 Hz, one code per 80 ms (Polyak et al. 2021)."""

    codes: int = Field(default=64, ge=2, le=64, description="Number of pitch units.")
    width: int = Field(default=32, ge=4, le=1024, description="Channels of the convolutions of the pitch model.")
    depth: int = Field(default=1, ge=0, le=8, description="Residual blocks after each strided convolution.")
    embedding: int = Field(default=32, ge=2, le=1024, description="Size of the vector of a pitch unit.")
    normalize: bool = Field(
        default=True, description="Subtract the mean of the voiced frames of the clip: register goes, melody stays."
    )
    steps: int = Field(default=800, ge=1, description="Optimizer steps of the fit.")
    batch_crops: int = Field(default=12, ge=1, description="Crops per optimizer step.")
    crop_codes: int = Field(default=24, ge=2, description="Length of a crop, in pitch units of 80 ms.")
    learning_rate: float = Field(default=3e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    decay: float = Field(default=0.98, ge=0, lt=1, description="Decay of the moving averages of the codebook.")
    commitment: float = Field(default=0.02, ge=0, description="Weight of the distance of encoder and codebook.")
    max_minutes: Minutes = 10.0
    seed: Seed = 0


class StyleConfig(FrozenConfig):
    """K-means over one vector per second: what is said how, beside the words and the melody."""

    clusters: int = Field(default=100, ge=2, le=100, description="Number of style units.")
    layer: int = Field(
        default=1,
        ge=1,
        description="HuBERT layer whose mean and deviation over a second are clustered, counted from 1.",
    )
    components: int = Field(default=8, ge=1, le=64, description="Principal components that are kept before clustering.")
    max_minutes: Minutes = 10.0
    restarts: int = Field(default=5, ge=1, le=20, description="Runs of k-means++, of which the best is kept.")
    seed: Seed = 0


class UnitsConfig(FrozenConfig):
    """Everything about speech units; `pitch` and `style` are used by the Expressive variant only."""

    hubert: HubertConfig = Field(default=HubertConfig(), description="HuBERT, whose features become units.")
    quantizer: QuantizerConfig = Field(default=QuantizerConfig(), description="Features of a frame to a unit.")
    pitch: PitchConfig = Field(default=PitchConfig(), description="Pitch units; Expressive only.")
    style: StyleConfig = Field(default=StyleConfig(), description="Style units; Expressive only.")
    precision: ExtractionPrecision = Field(
        default="exact",
        description="Precision of matrix products in unit extraction; bf16 and int8 are faster and change units.",
    )

    def stage(self, *, expressive: bool) -> UnitsStageConfig:
        """What the stages are given that use the models, without how these are fitted."""
        sizes = {"pitch": self.pitch.codes, "style": self.style.clusters} if expressive else {}
        return UnitsStageConfig(precision=self.precision, hubert=self.quantizer.size, **sizes)


class StreamSizes(FrozenConfig):
    """How many units there are of each kind."""

    hubert: int = Field(ge=1, description="HuBERT units, the blank included.")
    pitch: int = Field(default=0, ge=0, description="Pitch units; 0 for Base.")
    style: int = Field(default=0, ge=0, description="Style units; 0 for Base.")

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units of each stream that there is."""
        sizes = {"hubert": self.hubert, "pitch": self.pitch, "style": self.style}
        return {name: size for name, size in sizes.items() if size}


class UnitsStageConfig(StreamSizes):
    """What the stages that use the unit models are given, besides these."""

    precision: ExtractionPrecision = Field(default="exact", description="Precision of unit extraction.")


class UnitsCompute(FitCompute):
    """How the unit models are fitted. Up to rounding, nothing here changes what is learned."""

    workers: int = Field(
        default=1, ge=1, description="Processes that fit HuBERT together (one GPU each, or one group of CPU cores)."
    )


PAPER_CONVOLUTIONS: dict[str, tuple[int, ...]] = {
    "conv_channels": (512,) * 8,
    "conv_kernels": (10, 3, 3, 3, 3, 2, 2, 2),
    "conv_strides": (5, 2, 2, 2, 2, 2, 2, 2),
}
"""The 25 Hz front end of Spirit LM, as keyword arguments of :class:`HubertConfig`."""

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "conv_channels": (512, 256, 256),
        "hidden_size": 256,
        "layers": 6,
        "steps": (5000, 5000),
        "clusters": (100, 500),
        "batch_crops": 8,
        "crop_frames": 150,
        "learning_rate": 1.5e-3,
    },
    "base": {
        **PAPER_CONVOLUTIONS,
        "hidden_size": 768,
        "layers": 12,
        "heads": 12,
        "position_kernel": 128,
        "dropout": 0.1,
        "steps": (25_000, 50_000),
        "clusters": (100, 500),
        "batch_crops": 32,
        "crop_frames": 390,
        "learning_rate": 5e-4,
        "masked_weight": 1.0,
        "max_minutes": 6000.0,
    },
}
"""Defaults of :class:`HubertConfig` by `size`: ``base`` is the paper's with layer norm in the convolutions."""
