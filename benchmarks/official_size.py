"""A speech tokenizer of the official sizes with random weights, in this project's layout, for timing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForSequenceClassification

from spiritlm_core.speech.encoders.encoder import layer_frames
from spiritlm_core.speech.encoders.registry import load_encoder
from spiritlm_core.speech.pitch.architecture import PitchArchitecture
from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.config import PitchConfig
from spiritlm_core.speech.pretraining.config import PAPER_CONVOLUTIONS
from spiritlm_core.speech.quantizers.kmeans import KMeans

LAYER, UNITS = 11, 500
_KERNELS, _STRIDES = PAPER_CONVOLUTIONS["conv_kernels"], PAPER_CONVOLUTIONS["conv_strides"]


def write(folder: Path, clips: list[np.ndarray]) -> None:
    """Fill `folder`; centres of the quantizer are frames of `clips`, so that units are as many as can be."""
    torch.manual_seed(0)
    config = HubertConfig(
        num_hidden_layers=LAYER,
        conv_dim=PAPER_CONVOLUTIONS["conv_channels"],
        conv_kernel=_KERNELS,
        conv_stride=_STRIDES,
        num_feat_extract_layers=len(_KERNELS),
    )
    _sharpened(HubertModel(config)).save_pretrained(folder / "hubert")
    classifier = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(num_labels=100))
    _sharpened(classifier).save_pretrained(folder / "style")
    (folder / "style" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    frames = np.concatenate(layer_frames(load_encoder(folder / "hubert", LAYER), clips, LAYER))
    rng = np.random.default_rng(0)
    centres = frames[rng.choice(len(frames), UNITS, replace=False)]
    ones = np.ones(frames.shape[1], np.float32)
    (folder / "quantizer").mkdir()
    KMeans(centres, 0 * ones, ones, {"layer": LAYER}).save(folder / "quantizer" / "kmeans.safetensors")
    (folder / "pitch").mkdir()
    coder = PitchCoder(PitchArchitecture.fitted(PitchConfig(codes=64, width=32, depth=4, embedding=128)))
    coder.codebook.normal_()
    coder.save(folder / "pitch")


def _sharpened(model: torch.nn.Module) -> torch.nn.Module:
    """Twice the usual start: at 0.02 a random transformer hardly depends on its input."""
    for name, parameter in model.named_parameters():
        if "encoder.layers" in name and name.endswith("weight") and parameter.ndim == 2:
            parameter.data *= 2.0
    return model
