"""``mhubert_base_25hz.pt`` to a Hugging Face folder with the blocks up to the one used, and its quantizer."""

import json
import logging
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import AfterValidator, Field, model_validator
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel

from spiritlm_core.speech.grid import FRAME, RECEPTIVE_FIELD, reach_of
from spiritlm_core.speech.quantizers.quantizer import LINEAR_FILE, MAPS, LinearQuantizer
from spiritlm_core.speech.released.reading import (
    CheckpointError,
    Described,
    Tensors,
    describe,
    field,
    read_archive,
    shapes,
    take,
)

_MOST_LAYERS = 32
_LARGEST = 8192
_LAYER = re.compile(r"\(\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\)")
_LAYERS = re.compile(r"\s*\[([\d\s,()]+)\]\s*(?:\*\s*(\d{1,2}))?\s*")


class Convolution(NamedTuple):
    """One layer of the front end."""

    channels: int
    kernel: int
    stride: int


def parse_convolutions(text: str) -> list[Convolution]:
    """Read ``"[(512,10,5)] + [(512,3,2)] * 4"``: lists of three integers, joined by + and repeated by *.

    Raises ValueError: it is anything else; nothing in it is ever evaluated as Python.
    """
    layers: list[Convolution] = []
    for part in text.split("+"):
        match = _LAYERS.fullmatch(part)
        if match is None or _LAYER.sub("", match[1]).strip(" ,"):
            raise ValueError(f"{part.strip()[:60]!r} is not a list of (channels, kernel, stride)")
        layers += [Convolution(*map(int, numbers)) for numbers in _LAYER.findall(match[1])] * int(match[2] or 1)
    if not 1 <= len(layers) <= _MOST_LAYERS or not all(1 <= n <= _LARGEST for layer in layers for n in layer):
        raise ValueError(f"it has no layers, more than {_MOST_LAYERS}, or numbers beyond 1 to {_LARGEST}")
    return layers


LAYER = 11  # block, counted from 1, whose output is quantized; the last one where there are fewer

_LEFTOVERS = {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"}
_PREPROCESSOR = {"do_normalize": False, "feature_size": 1, "padding_value": 0.0, "sampling_rate": 16_000}

# Hugging Face name → name in the file; the first pattern that is found is replaced
_RENAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (
        r"^encoder\.pos_conv_embed\.conv\.(?:parametrizations\.weight\.original0|weight_g)$",
        "encoder.pos_conv.0.weight_g",
    ),
    (
        r"^encoder\.pos_conv_embed\.conv\.(?:parametrizations\.weight\.original1|weight_v)$",
        "encoder.pos_conv.0.weight_v",
    ),
    (r"^encoder\.pos_conv_embed\.conv\.", "encoder.pos_conv.0."),
    (r"^(encoder\.layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"^(encoder\.layers\.\d+)\.feed_forward\.intermediate_dense\.", r"\1.fc1."),
    (r"^(encoder\.layers\.\d+)\.feed_forward\.output_dense\.", r"\1.fc2."),
)
_NORM = r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\."

Width = Annotated[int, Field(ge=1, le=16_384)]


def _checked(text: str) -> str:
    parse_convolutions(text)
    return text


class ModelConfig(Described):
    """``model_cfg``, with the defaults of the released code."""

    label_rate: float
    conv_feature_layers: Annotated[str, AfterValidator(_checked)]
    extractor_mode: Literal["default", "layer_norm"] = "default"
    conv_bias: bool = False
    encoder_layers: int = Field(12, ge=1, le=128)
    encoder_embed_dim: Width = 768
    encoder_ffn_embed_dim: Width = 3072
    encoder_attention_heads: int = Field(12, ge=1, le=256)
    layer_norm_first: bool = False
    activation_fn: Literal["gelu"] = "gelu"
    conv_pos: int = Field(128, ge=1, le=4096)
    conv_pos_groups: int = Field(16, ge=1, le=1024)
    required_seq_len_multiple: int = Field(2, ge=1)  # pads with masked frames, which changes nothing
    layer_type: Literal["transformer"] = "transformer"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width = self.encoder_embed_dim
        _, kernels, strides = zip(*parse_convolutions(self.conv_feature_layers), strict=True)
        reach, step = reach_of(kernels, strides)
        if step != FRAME:
            raise ValueError(f"conv_feature_layers has strides of {step} in all, but a 25 Hz unit is {FRAME} samples")
        if reach != RECEPTIVE_FIELD:
            raise ValueError(f"conv_feature_layers sees {reach} samples, but a unit sees {RECEPTIVE_FIELD}")
        for name, parts in (
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("conv_pos_groups", self.conv_pos_groups),
        ):
            if width % parts:
                raise ValueError(f"encoder_embed_dim {width} is not a multiple of {name} {parts}")
        return self


class TaskConfig(Described):
    """``task_cfg``. With `normalize` the released code cannot encode mono audio, so no released file says so."""

    sample_rate: Literal[16_000] = 16_000
    normalize: Literal[False] = False


def convert_hubert(path: Path, out: Path) -> tuple[int, int]:
    """Write the folder `out`.

    Returns the layer that the quantizer reads, and its width. Raises CheckpointError: the file is damaged, hostile, or
    does not fit its configuration.
    """
    content = read_archive(path)
    config = describe(ModelConfig, field(content, "model_cfg", path), f"{path}: model_cfg")
    describe(TaskConfig, field(content, "task_cfg", path), f"{path}: task_cfg")
    whole = _hugging_face(config, config.encoder_layers)
    names = {name: (_released(name, config), shape) for name, shape in shapes(lambda: HubertModel(whole)).items()}
    weights = _take(field(content, "model_weight", path), names, config, path)
    layer = min(LAYER, config.encoder_layers)
    out.mkdir(parents=True)
    _hugging_face(config, layer).save_pretrained(out)
    kept = {name: tensor for name, tensor in weights.items() if not _above(name, layer)}
    save_file(kept, out / "model.safetensors", metadata={"format": "pt"})
    (out / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2) + "\n")
    return layer, config.encoder_embed_dim


def _hugging_face(config: ModelConfig, layers: int) -> HubertConfig:
    convolutions = parse_convolutions(config.conv_feature_layers)
    build: Any = HubertConfig  # untyped
    return build(
        architectures=["HubertModel"],
        conv_dim=[c.channels for c in convolutions],
        conv_kernel=[c.kernel for c in convolutions],
        conv_stride=[c.stride for c in convolutions],
        conv_bias=config.conv_bias,
        feat_extract_norm="group" if config.extractor_mode == "default" else "layer",
        hidden_size=config.encoder_embed_dim,
        num_hidden_layers=layers,
        num_attention_heads=config.encoder_attention_heads,
        intermediate_size=config.encoder_ffn_embed_dim,
        do_stable_layer_norm=config.layer_norm_first,
        num_conv_pos_embeddings=config.conv_pos,
        num_conv_pos_embedding_groups=config.conv_pos_groups,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        layerdrop=0.0,
    )


def _released(name: str, config: ModelConfig) -> str:
    """Name in the file of a weight of `transformers.HubertModel`."""
    infix = "2" if config.extractor_mode == "default" else "2.1"
    for pattern, replacement in (*_RENAMES, (_NORM, rf"feature_extractor.conv_layers.\g<1>.{infix}.")):
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def _take(
    weights: dict[str, Any], names: dict[str, tuple[str, tuple[int, ...]]], config: ModelConfig, path: Path
) -> Tensors:
    """Weights by Hugging Face name; a model without input projection gets an identity for it."""
    width = config.encoder_embed_dim
    projected = parse_convolutions(config.conv_feature_layers)[-1].channels != width
    expected = {released: shape for released, shape in names.values() if projected or "post_extract" not in released}
    # The released loader drops whatever it does not know, and pre-training leaves more behind than is known for sure.
    others = set(weights) - set(expected)
    if unknown := sorted(str(name) for name in others - _LEFTOVERS):
        logging.getLogger(__name__).warning("%s: tensors of no use for encoding are left out: %s", path, unknown[:5])
    tensors = take(weights, expected, path, leftovers=others)
    if not projected:
        tensors |= {"post_extract_proj.weight": torch.eye(width), "post_extract_proj.bias": torch.zeros(width)}
    return {name: tensors[released] for name, (released, _) in names.items()}


def _above(name: str, layer: int) -> bool:
    block = re.match(r"encoder\.layers\.(\d+)\.", name)
    return block is not None and int(block[1]) >= layer


class QuantizerModelConfig(Described):
    """``model_cfg``: units without the blank, and the width of the features (twice)."""

    vocab_size: int = Field(ge=1, le=500)
    dim: int = Field(ge=1, le=16_384)
    upstream_dim: int = Field(ge=1, le=16_384)

    @property
    def sizes(self) -> list[int]:
        """Widths from the features to the classes, of which the last is the blank."""
        excess = self.upstream_dim - (self.vocab_size + 1)
        return [self.dim, self.dim - excess // 4, self.dim - excess // 2, self.vocab_size + 1]


def convert_quantizer(path: Path, out: Path, layer: int, width: int) -> None:
    """``L11_quantizer_500.pt`` to `out`, for features of so many values from that HuBERT layer.

    Raises CheckpointError: the file is damaged, hostile, or does not fit its configuration or this HuBERT.
    """
    content = read_archive(path)
    config = describe(QuantizerModelConfig, field(content, "model_cfg", path), f"{path}: model_cfg")
    if config.dim != width:
        raise CheckpointError(f"{path}: model_cfg.dim is {config.dim}, but the HuBERT beside it has {width} features")
    sizes = config.sizes
    if min(sizes) < 1:
        raise CheckpointError(f"{path}: model_cfg makes layers of {sizes} values, which cannot be")
    expected: dict[str, tuple[int, ...]] = {}
    for i, name in enumerate(MAPS):
        expected |= {f"{name}.weight": (sizes[i + 1], sizes[i]), f"{name}.bias": (sizes[i + 1],)}
    tensors = take(field(content, "model_weight", path), expected, path)
    weights, biases = (tuple(tensors[f"{name}.{kind}"].numpy() for name in MAPS) for kind in ("weight", "bias"))
    out.mkdir(parents=True)
    LinearQuantizer(weights, biases, {"layer": layer}).save(out / LINEAR_FILE)
