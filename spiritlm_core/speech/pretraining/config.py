"""Configuration of the HuBERT that is fitted on the corpus."""

from collections.abc import Set as AbstractSet
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig, Span
from spiritlm_core.fit.config import Precision
from spiritlm_core.references.syntax import ModelReference
from spiritlm_core.speech.grid import FRAME, RECEPTIVE_FIELD, on_grid
from spiritlm_core.speech.settings import Minutes, Seed, Size


class PerturbConfig(FrozenConfig):
    """How crops are changed before HuBERT hears them, while their labels stay those of the clean recording.

    What differs between voices, rooms and microphones then says nothing about the label, and the features come to
    carry less of it (Qian et al. 2022, arXiv 2204.09224; Chen et al. 2021, arXiv 2110.13900). The changes cost an
    eighth of a training step of a tiny model, and next to nothing of a larger one.
    """

    speed: float = Field(
        1.13,
        ge=1,
        le=1.5,
        description="Largest factor by which a crop is played faster or slower; pitch and formants go along.",
    )
    colour: float = Field(
        3.0, ge=0, le=12, description="Standard deviation of the gain at eight frequencies from 0 to 8 kHz, in dB."
    )
    noise: float = Field(0.3, ge=0, le=1, description="Share of crops with noise or another voice mixed in.")
    snr: Span = Field((0.0, 20.0), description="Lowest and highest signal-to-noise ratio of what is mixed in, in dB.")

    def idle(self) -> AbstractSet[str]:
        """The distance of noise that there is not."""
        return frozenset() if self.noise else {"snr"}


class HubertConfig(FrozenConfig):
    """Where HuBERT comes from: a `model` reference, or fitted on the corpus with the other fields.

    Fitting follows Hsu et al. 2021, arXiv 2106.07447: masked prediction of k-means labels, first of MFCC
    frames (or of what a pretrained encoder, `labels`, makes of the speech), then, once per further entry of
    `clusters` and `steps`, of features of the model fitted so far. `size` chooses the defaults of all other fields
    (`SIZES`); those written here are the ones of ``tiny``. Its convolutions need a hundredth of the work of the
    paper's eight (`PAPER_CONVOLUTIONS`) and start as a mel filter bank, which lets an hour of speech and some
    minutes of CPU go a long way.
    """

    younger: ClassVar[AbstractSet[str]] = {"labels", "labels_layer", "precision"}

    model: ModelReference | None = Field(
        None, description="Reference of a HubertModel folder, hf://org/name@revision or file://…; null fits one."
    )
    labels: ModelReference | None = Field(
        None,
        description="Reference of an encoder (see `encoder`) whose clustered features are the labels of the first "
        "iteration; null: MFCC, as in the paper.",
    )
    labels_layer: int | None = Field(
        None, ge=1, description="Layer of `labels` that is clustered; null: the usual one of its family."
    )
    size: Literal["tiny", "small", "base"] = Field(
        "tiny", description="Sets the defaults of the other fields; tiny takes minutes of CPU, base is the paper's."
    )
    conv_channels: tuple[Size, ...] = Field((256, 192, 192), description="Channels of each convolution.")
    conv_kernels: tuple[Size, ...] = Field((240, 7, 1), description="Kernel of each convolution, in samples.")
    conv_strides: tuple[Size, ...] = Field(
        (80, 8, 1), description="Stride of each convolution; their product must be 640 samples."
    )
    hidden_size: int = Field(192, ge=16, description="Width of the transformer; a multiple of `heads`.")
    layers: int = Field(4, ge=1, le=48, description="Transformer blocks.")
    heads: int = Field(4, ge=1, le=32, description="Attention heads of a transformer block.")
    position_kernel: int = Field(31, ge=1, le=255, description="Frames seen by the position convolution.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of activations dropped in training.")
    clusters: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(
        (100, 200), min_length=1, description="Number of different labels in each iteration."
    )
    steps: tuple[Size, ...] = Field((2000, 2000), min_length=1, description="Optimizer steps per iteration.")
    normalize_labels: bool = Field(
        True, description="Take the mean of the clip from its frames before they are clustered into labels."
    )
    cluster_layer: int | None = Field(
        None, ge=1, description="Layer that is clustered into the labels of later iterations; null: three quarters up."
    )
    batch_crops: int = Field(4, ge=1, description="Crops per optimizer step, over all processes.")
    crop_frames: int = Field(100, ge=20, le=3000, description="Length of a crop, in 40 ms frames.")
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    mask_prob: float = Field(0.08, gt=0, le=1, description="Share of frames that start a masked span.")
    mask_length: int = Field(5, ge=1, le=20, description="Frames in a masked span.")
    masked_weight: float = Field(
        0.5, gt=0, le=1, description="Weight of masked frames in the loss; the rest goes to the other frames."
    )
    perturb: PerturbConfig | None = Field(
        PerturbConfig(),
        description="How crops are changed before HuBERT hears them; null: not at all, as in the paper.",
    )
    precision: Precision = Field(
        "auto",
        description="Arithmetic of the fit; auto: bf16 on a GPU and on a CPU with bf16 tiles (Intel AMX), else fp32.",
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
