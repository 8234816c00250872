"""``vqvae_f0_quantizer`` to the folder of a :class:`~spiritlm_core.speech.pitch.coder.PitchCoder`."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.config import PitchArchitecture, PitchBlocks
from spiritlm_core.speech.released.reading import (
    Described,
    describe,
    field,
    in_our_terms,
    read_archive,
    read_config,
    shapes,
    take,
)

Count = Annotated[int, Field(ge=1, le=16)]
Stages = Annotated[list[Count | Annotated[list[Count], Field(max_length=16)]], Field(min_length=1, max_length=1)]


class BlockParams(Described):
    """``encoder_params`` or ``decoder_params``; one level only."""

    input_emb_width: Literal[2] = 2
    output_emb_width: int = Field(ge=1, le=16_384)
    levels: Literal[1] = 1
    downs_t: Stages
    strides_t: Stages
    width: int = Field(ge=1, le=8192)
    depth: int = Field(ge=0, le=64)
    m_conv: float = Field(1.0, gt=0, le=64)
    dilation_growth_rate: int = Field(1, ge=1, le=16)
    dilation_cycle: int | None = Field(None, ge=1, le=64)
    res_scale: bool = False
    reverse_decoder_dilation: bool = False

    @property
    def strides(self) -> list[int]:
        """Stride of each stage: one number for all of them, or one for each."""
        (downs,), (strides,) = self.downs_t, self.strides_t
        if isinstance(downs, int) and isinstance(strides, int):
            return [strides] * downs
        if isinstance(downs, int) or isinstance(strides, int) or len(downs) != len(strides):
            raise ValueError("downs_t and strides_t must both be [number], or both [[number, ...]] of one length")
        return [stride for stride, count in zip(strides, downs, strict=True) for _ in range(count)]

    def blocks(self, *, reverse: bool) -> PitchBlocks:
        """The same in our terms; the largest dilation comes first where `reverse` says so."""
        return PitchBlocks(
            strides=tuple(self.strides),
            width=self.width,
            depth=self.depth,
            expansion=self.m_conv,
            growth=self.dilation_growth_rate,
            cycle=self.dilation_cycle,
            scaled=self.res_scale,
            reversed=reverse,
        )


class CodebookParams(Described):
    """``vq_params``."""

    l_bins: int = Field(ge=2, le=64)
    emb_width: int = Field(ge=1, le=8192)
    levels: Literal[1] = 1


class F0Config(Described):
    """``config.yaml``; `speaker_stats` is not used, because no speaker is ever named when encoding."""

    features: Literal["f0_interp,vuv", "f0,vuv", "norm_f0_interp,vuv", "norm_f0,vuv"]
    speaker_norm: bool | None = None
    encoder_params: BlockParams
    decoder_params: BlockParams
    vq_params: CodebookParams

    @model_validator(mode="after")
    def _fits(self) -> Self:
        code, out = self.vq_params.emb_width, self.encoder_params.output_emb_width
        if out not in (code, 2 * code):
            raise ValueError(f"encoder_params.output_emb_width {out} is not vq_params.emb_width {code} or twice that")
        if self.decoder_params.output_emb_width != code:
            raise ValueError(f"decoder_params.output_emb_width is not vq_params.emb_width {code}")
        return self

    @property
    def architecture(self) -> PitchArchitecture:
        """The same in our terms."""
        encoder, decoder = self.encoder_params, self.decoder_params
        return PitchArchitecture(
            codes=self.vq_params.l_bins,
            embedding=self.vq_params.emb_width,
            encoder=encoder.blocks(reverse=False),
            decoder=decoder.blocks(reverse=decoder.reverse_decoder_dilation),
            tail=decoder.output_emb_width,
            folded=encoder.output_emb_width != self.vq_params.emb_width,
            scale="hertz",
            relative=bool(self.speaker_norm) or "norm_" in self.features,
            interpolated="_interp" in self.features,
            trimmed=False,
        )


def convert_pitch(folder: Path, out: Path) -> None:
    """Write the folder `out`.

    Raises CheckpointError: a file is missing, damaged, hostile, or does not fit the configuration.
    """
    config = folder / "config.yaml"
    described = describe(F0Config, read_config(config, ", or use --variant base"), str(config))
    architecture = in_our_terms(lambda: described.architecture, config)
    path = folder / "model.pt"
    ours = shapes(lambda: PitchCoder(architecture))
    names = {name: _released(name, architecture) for name in ours}
    weights = field(read_archive(path), "model", path)
    tensors = take(weights, {names[name]: shape for name, shape in ours.items()}, path)
    coder = PitchCoder(architecture)
    coder.load_state_dict({name: tensors[released] for name, released in names.items()})
    out.mkdir(parents=True)
    coder.save(out)


def _released(name: str, architecture: PitchArchitecture) -> str:
    """Name in the file of a weight of `PitchCoder`."""
    stages, depth = len(architecture.decoder.strides), architecture.decoder.depth
    if name == "codebook":
        return "vq.level_blocks.0.k"
    if match := re.fullmatch(r"encoder\.(\d+)\.(\d+)\.layers\.(\d)\.(\w+)", name):
        stage, block, layer, kind = match.groups()
        return f"encoder.level_blocks.0.model.{stage}.1.model.{int(block) - 1}.model.{layer}.{kind}"
    if match := re.fullmatch(r"decoder\.(\d+)\.(\d+)\.layers\.(\d)\.(\w+)", name):
        stage, block, layer, kind = match.groups()
        return f"decoder.level_blocks.0.model.{stage}.0.model.{block}.model.{layer}.{kind}"
    if match := re.fullmatch(rf"decoder\.(\d+)\.{depth}\.(\w+)", name):
        return f"decoder.level_blocks.0.model.{match[1]}.1.{match[2]}"
    if match := re.fullmatch(rf"decoder\.{stages + 1}\.(\w+)", name):
        return f"decoder.out.{match[1]}"
    side, rest = name.split(".", 1)
    return f"{side}.level_blocks.0.model.{rest}"
