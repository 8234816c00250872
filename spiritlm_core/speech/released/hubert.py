"""``mhubert_base_25hz.pt`` to a Hugging Face HuBERT folder that holds the blocks up to the one used."""

from __future__ import annotations

import ast
import json
import logging
import re
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel

from spiritlm_core.speech.grid import FRAME, RECEPTIVE_FIELD
from spiritlm_core.speech.released.reading import Described, Tensors, describe, field, read_archive, shapes, take

_LONGEST_TEXT = 1000
_MOST_LAYERS = 32
_LARGEST = 8192


class Convolution(NamedTuple):
    """One layer of the front end."""

    channels: int
    kernel: int
    stride: int


def parse_convolutions(text: str) -> list[Convolution]:
    """Read ``"[(512,10,5)] + [(512,3,2)] * 4"``: lists of three integers, joined by + and repeated by *.

    Raises:
        ValueError: It is anything else; nothing in it is ever evaluated as Python.
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"it has {len(text)} characters, more than {_LONGEST_TEXT}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        layers = _value(tree.body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("it is not a list of (channels, kernel, stride)") from error
    if not isinstance(layers, list) or not layers:
        raise ValueError("it is not a list of (channels, kernel, stride)")
    return [_layer(layer) for layer in layers]


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        return _combine(node.op, _value(node.left), _value(node.right))
    raise ValueError(f"{ast.unparse(node)[:60]!r} is not a list, a tuple, an integer, + or *")


def _combine(operator: ast.operator, left: Any, right: Any) -> list[Any]:
    lists = [part for part in (left, right) if isinstance(part, list)]
    if isinstance(operator, ast.Add) and len(lists) == 2:
        total, times = lists[0] + lists[1], 1
    elif isinstance(operator, ast.Mult) and len(lists) == 1 and {type(left), type(right)} == {int, list}:
        total, times = lists[0], left if isinstance(left, int) else right
    else:
        raise ValueError("+ joins two lists, and * repeats a list")
    if len(total) * times > _MOST_LAYERS:
        raise ValueError(f"it has more than {_MOST_LAYERS} layers")
    return total * times


def _layer(layer: Any) -> Convolution:
    numbers = isinstance(layer, tuple | list) and all(type(n) is int and 1 <= n <= _LARGEST for n in layer)
    if not numbers or len(layer) != 3:
        raise ValueError(f"{str(layer)[:60]} is not (channels, kernel, stride), each from 1 to {_LARGEST}")
    return Convolution(*layer)


LAYER = 11
"""Block, counted from 1, whose output is quantized; the last one where there are fewer."""

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
    encoder_layers: int = Field(default=12, ge=1, le=128)
    encoder_embed_dim: Width = 768
    encoder_ffn_embed_dim: Width = 3072
    encoder_attention_heads: int = Field(default=12, ge=1, le=256)
    layer_norm_first: bool = False
    activation_fn: Literal["gelu"] = "gelu"
    conv_pos: int = Field(default=128, ge=1, le=4096)
    conv_pos_groups: int = Field(default=16, ge=1, le=1024)
    required_seq_len_multiple: int = Field(default=2, ge=1)  # pads with masked frames, which changes nothing
    layer_type: Literal["transformer"] = "transformer"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width, field_of_view, step = self.encoder_embed_dim, 1, 1
        layers = parse_convolutions(self.conv_feature_layers)
        for layer in layers:
            field_of_view, step = field_of_view + (layer.kernel - 1) * step, step * layer.stride
        if (total := prod(layer.stride for layer in layers)) != FRAME:
            raise ValueError(f"conv_feature_layers has strides of {total} in all, but a 25 Hz unit is {FRAME} samples")
        if field_of_view != RECEPTIVE_FIELD:
            raise ValueError(f"conv_feature_layers sees {field_of_view} samples, but a unit sees {RECEPTIVE_FIELD}")
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

    Returns:
        The layer that the quantizer reads, and its width.

    Raises:
        CheckpointError: The file is damaged, hostile, or does not fit its configuration.
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
    found: HubertConfig = build(
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
    return found


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
    import torch

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
