"""Small models of the speech units: their settings, and a HuBERT of the official make."""

from pathlib import Path

import torch
from transformers import HubertConfig as ModelConfig
from transformers import HubertModel

from spiritlm_core.speech.config import StyleConfig, UnitsConfig
from spiritlm_core.speech.pitch.config import PitchConfig
from spiritlm_core.speech.pretraining.config import PAPER_CONVOLUTIONS, HubertConfig
from spiritlm_core.speech.quantizers.config import QuantizerConfig

CONFIG = UnitsConfig(
    hubert=HubertConfig(
        conv_channels=(32, 32, 32),
        hidden_size=32,
        layers=2,
        heads=2,
        cluster_layer=1,
        clusters=(8, 8),
        steps=(12, 6),
        batch_crops=2,
        crop_frames=40,
    ),
    quantizer=QuantizerConfig(units=20),
    pitch=PitchConfig(codes=16, width=16, depth=1, embedding=8, steps=100, batch_crops=4, learning_rate=5e-3),
    style=StyleConfig(clusters=4, components=3),
)


def small(folder: Path, **changes: object) -> Path:
    """A seeded HuBERT of the official make: group norm over time in front, norm behind each block."""
    torch.manual_seed(0)
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16,) * 8,
        "conv_kernel": PAPER_CONVOLUTIONS["conv_kernels"],
        "conv_stride": PAPER_CONVOLUTIONS["conv_strides"],
        "num_feat_extract_layers": 8,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    HubertModel(ModelConfig(**settings | changes)).save_pretrained(folder)
    return folder
