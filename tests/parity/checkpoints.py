"""Seeded checkpoints in the released layout, of our own making: small, and the same on every machine.

What tensors a file holds is asked of the converter that reads it. Each is drawn from its own name, so that a
converter that takes one for another gives other answers.
"""

from __future__ import annotations

import importlib
import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from spiritlm_core.tokens.released import ReleasedTextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary

HUBERT = {
    "model_cfg": {
        "label_rate": 25.0,
        "conv_feature_layers": "[(24, 10, 5)] + [(24, 3, 2)] * 4 + [(24, 2, 2)] * 3",
        "encoder_layers": 3,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 48,
        "encoder_attention_heads": 4,
        "conv_pos": 16,
        "conv_pos_groups": 4,
    },
    "task_cfg": {"sample_rate": 16_000, "normalize": False},
}
QUANTIZER = {"model_cfg": {"vocab_size": 500, "dim": 32, "upstream_dim": 505}}
BLOCKS = {"levels": 1, "downs_t": [4], "strides_t": [2], "width": 8, "depth": 2, "dilation_growth_rate": 3}
PITCH = {
    "features": "norm_f0_interp,vuv",
    "encoder_params": BLOCKS | {"output_emb_width": 12},
    "decoder_params": BLOCKS | {"output_emb_width": 12},
    "vq_params": {"l_bins": 64, "emb_width": 12},
}
STYLE = {
    "model_type": "wav2vec2",
    "id2label": {str(number): str(number) for number in range(100)},
    "classifier_proj_size": 24,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [24] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
VOCODER = {
    "upsample_rates": [5, 4, 4, 4, 2],
    "upsample_kernel_sizes": [11, 8, 8, 8, 4],
    "upsample_initial_channel": 64,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [1, 5]],
    "num_embeddings": 501,
    "embedding_dim": 8,
    "dur_predictor_params": {"encoder_embed_dim": 8, "var_pred_hidden_dim": 12, "var_pred_kernel_size": 3},
}
EXPRESSIVE = {"model_in_dim": 40, "num_f0_tokens": 64, "num_style_tokens": 100, "multispkr": "from_input_file",
              "num_speakers": 4, "multistyle": "from_input_file", "num_styles": 3}  # fmt: skip
TOKENIZER = Path(__file__).with_name("tokenizer.model")
"""A SentencePiece BPE with bytes, of a few sentences."""
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VOCODERS = {"base": VOCODER | {"model_in_dim": 8}, "expressive": VOCODER | EXPRESSIVE}


class _WantedError(Exception):
    """Carries the shapes by name that a converter asks for."""


def write_checkpoints(root: Path, variant: str) -> Path:
    """Write the speech tokenizer of a variant, its vocoder included, below `root`; returns `root`."""
    folder, out = root / "speech_tokenizer", root / "unused"
    for name in ("hubert_25hz", "vqvae_f0_quantizer", "style_encoder_w2v2"):
        (folder / name).mkdir(parents=True)
    hubert, quantizer = folder / "hubert_25hz/mhubert_base_25hz.pt", folder / "hubert_25hz/L11_quantizer_500.pt"
    _write(hubert, HUBERT, "model_weight", "hubert", lambda convert: convert(hubert, out))
    _write(quantizer, QUANTIZER, "model_weight", "quantizer", lambda convert: convert(quantizer, out, 3, 32))
    pitch, style = folder / "vqvae_f0_quantizer", folder / "style_encoder_w2v2"
    (pitch / "config.yaml").write_text(yaml.safe_dump(PITCH))
    _write(pitch / "model.pt", {}, "model", "pitch", lambda convert: convert(pitch, out))
    (style / "config.json").write_text(json.dumps(STYLE))
    _write(style / "pytorch_model.bin", {}, None, "style", lambda convert: convert(style, out))
    vocoder = folder / {"base": "hifigan_spiritlm_base", "expressive": "hifigan_spiritlm_expressive_w2v2"}[variant]
    vocoder.mkdir()
    (vocoder / "config.json").write_text(json.dumps(VOCODERS[variant]))
    _write(vocoder / "generator.pt", {}, "generator", "vocoder", lambda convert: convert(vocoder, out))
    return root


def write_language_model(folder: Path, variant: str) -> Path:
    """Write a language model of a variant: its tokens are pieces of ``tokenizer.model`` and added ones."""
    tokenizer = ReleasedTextTokenizer.load(TOKENIZER.parent)
    sizes = {"base": {"pitch": 0, "style": 0}, "expressive": {"pitch": 64, "style": 100}}[variant]
    vocabulary = Vocabulary(len(tokenizer), hubert=501, **sizes, bos=tokenizer.bos, eos=tokenizer.eos)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary.size, **LLAMA))
    model.load_state_dict({name: drawn(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()})
    model.save_pretrained(folder)
    shutil.copyfile(TOKENIZER, folder / TOKENIZER.name)
    added = {token: len(tokenizer) + i for i, token in enumerate(vocabulary.tokens)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


def _write(
    path: Path, content: dict[str, Any], key: str | None, part: str, convert: Callable[[Callable[..., Any]], object]
) -> None:
    """Write `content`, and below `key` all tensors that the converter of the part wants."""
    where = "hubert" if part == "quantizer" else part  # the quantizer is converted beside the layer that it belongs to
    module = importlib.import_module(f"spiritlm_core.speech.released.{where}")
    _save(path, content, key, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "take", _want)
        with pytest.raises(_WantedError) as wanted:
            convert(getattr(module, f"convert_{part}"))
    _save(path, content, key, {name: drawn(name, shape) for name, shape in wanted.value.args[0].items()})


def _save(path: Path, content: dict[str, Any], key: str | None, weights: dict[str, torch.Tensor]) -> None:
    torch.save(content | ({key: weights} if key else weights), path)


def _want(_: object, expected: Mapping[str, tuple[int, ...]], *_arguments: object, **_options: object) -> None:
    raise _WantedError(expected)


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor float32 that follows from its name: gains near one, and weights that keep the loudness."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    draws = rng.standard_normal(shape)
    if name.endswith(("_g", "original0")) or (len(shape) == 1 and name.endswith("weight")):
        values = 1.4 + 0.1 * draws
    elif len(shape) == 1:
        values = 0.02 * draws
    else:
        values = draws / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))
