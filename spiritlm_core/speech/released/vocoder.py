"""``hifigan_spiritlm_…`` to the folder of a :class:`~spiritlm_core.speech.vocoder.vocoder.Vocoder`."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.released.reading import (
    CheckpointError,
    Described,
    Tensors,
    describe,
    field,
    in_our_terms,
    read_archive,
    read_config,
    shapes,
    take,
)
from spiritlm_core.speech.vocoder.config import HifiganConfig, VocoderConfig
from spiritlm_core.speech.vocoder.model import VocoderModel

_SPEAKER, _EXPRESSION = 2, 8
_EMBEDDINGS = {"units": "dict", "pitch": "f0_dict", "style": "style_dict", "speaker": "spkr", "expression": "style"}
_DURATIONS = {"conv1": "conv1.0", "norm1": "ln1", "conv2": "conv2.0", "norm2": "ln2", "last": "proj"}
_SIDES = {"dilated": "convs1", "plain": "convs2"}

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=16)]


class DurationParams(Described):
    """``dur_predictor_params``; another kernel would not keep the length."""

    encoder_embed_dim: Size
    var_pred_hidden_dim: Size
    var_pred_kernel_size: Literal[3]


class ReleasedConfig(Described):
    """The fields of ``config.json`` that decide what the model computes."""

    resblock: Literal["1", 1] = "1"
    sampling_rate: Literal[16_000] = SAMPLE_RATE  # type: ignore[assignment]
    upsample_rates: Sizes
    upsample_kernel_sizes: Sizes
    upsample_initial_channel: Size
    resblock_kernel_sizes: Sizes
    resblock_dilation_sizes: Annotated[list[Sizes], Field(min_length=1, max_length=16)]
    model_in_dim: Size
    num_embeddings: Size
    embedding_dim: Size
    code_hop_size: Literal[640] = FRAME  # type: ignore[assignment]
    multispkr: Any = None
    num_speakers: Size = 200
    multistyle: Any = None
    num_styles: Size = 100
    num_f0_tokens: Size | None = None
    f0_hop_size: Size = 2 * FRAME
    num_style_tokens: Size | None = None
    style_hop_size: Size = 25 * FRAME
    dur_predictor_params: DurationParams

    @property
    def generator(self) -> HifiganConfig:
        """The generator in our terms. Raises ValueError: fields do not fit each other."""
        return HifiganConfig(
            channels=self.upsample_initial_channel,
            rates=tuple(self.upsample_rates),
            kernels=tuple(self.upsample_kernel_sizes),
            block_kernels=tuple(self.resblock_kernel_sizes),
            block_dilations=tuple(map(tuple, self.resblock_dilation_sizes)),
        )

    @property
    def architecture(self) -> VocoderConfig:
        """The same in our terms. Raises ValueError: fields do not fit each other."""
        speakers, expressions = (
            self.num_speakers if self.multispkr else 0,
            self.num_styles if self.multistyle else 0,
        )
        config = VocoderConfig(
            units=self.num_embeddings,
            pitch_units=self.num_f0_tokens or 0,
            style_units=self.num_style_tokens or 0,
            speakers=speakers,
            expressions=expressions,
            speaker=_SPEAKER if speakers > _SPEAKER else 0,
            expression=_EXPRESSION if expressions > _EXPRESSION else 0,
            pitch_frames=round(self.f0_hop_size / self.code_hop_size),
            style_frames=round(self.style_hop_size / self.code_hop_size),
            embedding=self.embedding_dim,
            generator=self.generator,
            duration_channels=self.dur_predictor_params.var_pred_hidden_dim,
            duration_kernel=self.dur_predictor_params.var_pred_kernel_size,
        )
        if self.model_in_dim != config.inputs:
            names = ", ".join(config.embeddings)
            raise ValueError(f"model_in_dim is {self.model_in_dim}, but embeddings of {names} make {config.inputs}")
        if self.dur_predictor_params.encoder_embed_dim != self.embedding_dim:
            raise ValueError("dur_predictor_params.encoder_embed_dim is not embedding_dim")
        return config


def convert_vocoder(folder: Path, out: Path) -> None:
    """Write the folder `out`.

    Raises CheckpointError: a file is missing, damaged, hostile, or does not fit the configuration.
    """
    path = folder / "config.json"
    described = describe(ReleasedConfig, read_config(path), str(path))
    config = in_our_terms(lambda: described.architecture, path)
    path = folder / "generator.pt"
    ours = shapes(lambda: VocoderModel(config))
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in ours.items():
        released = _released(name, config)
        if _is_normed(name):
            expected |= {f"{released}_v": shape, f"{released}_g": (shape[0], 1, 1)}
        else:
            expected[released] = shape
    tensors = take(field(read_archive(path), "generator", path), expected, path)
    model = VocoderModel.unfilled(config)
    weights = {name: _weight(tensors, _released(name, config), path, normed=_is_normed(name)) for name in ours}
    model.load_state_dict(weights, assign=True)
    model.save(out)


def _is_normed(name: str) -> bool:
    """Whether a weight of ours is stored as a direction and a gain."""
    return name.startswith("generator.") and name.endswith(".weight")


def _released(name: str, config: VocoderConfig) -> str:
    """Name in the file of a weight of `VocoderModel`; of a normed one, without ``_v`` and ``_g``."""
    if match := re.fullmatch(r"embeddings\.(\w+)\.weight", name):
        return f"{_EMBEDDINGS[match[1]]}.weight"
    if match := re.fullmatch(r"durations\.(\w+)\.(\w+)", name):
        return f"dur_predictor.{_DURATIONS[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"generator\.blocks\.(\d+)\.(\d+)\.(\w+)\.(\d+)\.(\w+)", name):
        assert isinstance(config.generator, HifiganConfig)  # noqa: S101 -- see ReleasedConfig
        block = int(match[1]) * len(config.generator.block_kernels) + int(match[2])
        return f"resblocks.{block}.{_SIDES[match[3]]}.{match[4]}.{match[5]}"
    return name.removeprefix("generator.").replace("first", "conv_pre").replace("last", "conv_post")


def _weight(tensors: Tensors, name: str, path: Path, *, normed: bool) -> torch.Tensor:
    """A weight, its weight norm folded in: gain times direction over its length, for each first index."""
    if not normed:
        return tensors[name]
    direction, gain = tensors[f"{name}_v"].double(), tensors[f"{name}_g"].double()
    weight: torch.Tensor = (direction * (gain / direction.norm(dim=(1, 2), keepdim=True))).float()
    if not bool(weight.isfinite().all()):
        raise CheckpointError(f"{path}: tensor {name}_v has no direction, so its weight cannot be computed")
    return weight
