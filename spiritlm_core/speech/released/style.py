"""``style_encoder_w2v2`` to a Hugging Face folder with safetensors and a preprocessor of its own."""

import json
import re
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

from spiritlm_core.speech.released.reading import Described, describe, read_archive, read_config, shapes, take
from spiritlm_core.speech.style.coder import STRIDE

_LEFTOVERS = ("wav2vec2.masked_spec_embed",)
_PREPROCESSOR = {
    "do_normalize": True,
    "feature_size": 1,
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16_000,
}
_GAIN = re.compile(r"\.parametrizations\.weight\.original0$")
_DIRECTION = re.compile(r"\.parametrizations\.weight\.original1$")

Width = Annotated[int, Field(ge=1, le=16_384)]
Widths = Annotated[list[Width], Field(min_length=1, max_length=32)]


class StyleEncoderConfig(Described):
    """The fields of ``config.json`` that decide what the model computes, with the defaults of wav2vec2."""

    model_type: Literal["wav2vec2"]
    id2label: dict[str, str] = Field(min_length=2, max_length=100)
    classifier_proj_size: Width = 256
    hidden_size: Width = 768
    num_hidden_layers: int = Field(12, ge=1, le=128)
    num_attention_heads: int = Field(12, ge=1, le=256)
    intermediate_size: Width = 3072
    hidden_act: Literal["gelu"] = "gelu"
    layer_norm_eps: float = Field(1e-5, gt=0, lt=1)
    feat_extract_norm: Literal["group", "layer"] = "group"
    feat_extract_activation: Literal["gelu"] = "gelu"
    conv_dim: Widths = Field([512] * 7)
    conv_stride: Widths = Field([5, 2, 2, 2, 2, 2, 2])
    conv_kernel: Widths = Field([10, 3, 3, 3, 3, 2, 2])
    conv_bias: bool = False
    num_conv_pos_embeddings: int = Field(128, ge=1, le=4096)
    num_conv_pos_embedding_groups: int = Field(16, ge=1, le=1024)
    do_stable_layer_norm: bool = False
    add_adapter: Literal[False] = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel):
            raise ValueError("conv_dim, conv_stride and conv_kernel must be of one length")
        if prod(self.conv_stride) != STRIDE:
            raise ValueError(f"conv_stride is {prod(self.conv_stride)} in all, but a 50 Hz frame is {STRIDE} samples")
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, name):
                raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {name} {getattr(self, name)}")
        return self


def convert_style(folder: Path, out: Path) -> None:
    """Write the folder `out`.

    Raises CheckpointError: a file is missing, damaged, hostile, or does not fit the configuration.
    """
    path = folder / "config.json"
    described = describe(StyleEncoderConfig, read_config(path, ", or use --variant base"), str(path))
    build: Any = Wav2Vec2Config  # untyped, as the model is
    config = build(
        architectures=["Wav2Vec2ForSequenceClassification"],
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        layerdrop=0.0,
        **described.model_dump(exclude={"model_type", "id2label"}),
        id2label={int(index): name for index, name in described.id2label.items()},
        label2id={name: int(index) for index, name in described.id2label.items()},
    )
    path = folder / "pytorch_model.bin"
    model: Any = Wav2Vec2ForSequenceClassification
    weights = {_current(str(name)): value for name, value in read_archive(path).items()}
    expected = {_current(n): s for n, s in shapes(lambda: model(config)).items()}
    tensors = take(weights, expected, path, leftovers=_LEFTOVERS)
    out.mkdir(parents=True)
    config.save_pretrained(out)
    save_file({_written(name): tensor for name, tensor in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    (out / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2) + "\n")


def _current(name: str) -> str:
    """One spelling of the weight norm of the positional convolution."""
    return _DIRECTION.sub(".weight_v", _GAIN.sub(".weight_g", name))


def _written(name: str) -> str:
    """The spelling of today's torch."""
    name = re.sub(r"\.weight_g$", ".parametrizations.weight.original0", name)
    return re.sub(r"\.weight_v$", ".parametrizations.weight.original1", name)
