"""Small vocoders with seeded random weights."""

import torch
from torch import nn

from spiritlm_core.speech.vocoder.config import HifiganConfig, IstftConfig, VocoderConfig
from spiritlm_core.speech.vocoder.model import VocoderModel
from spiritlm_core.speech.vocoder.vocoder import Vocoder

EXPRESSIVE = VocoderConfig(
    units=60,
    pitch_units=8,
    style_units=5,
    speakers=3,
    expressions=2,
    speaker=1,
    embedding=6,
    generator=HifiganConfig(
        channels=128,
        rates=(5, 4, 4, 4, 2),
        kernels=(11, 8, 8, 8, 4),
        block_kernels=(3, 7),
        block_dilations=((1, 3), (1, 5)),
    ),
    duration_channels=8,
)
BASE = EXPRESSIVE.model_copy(
    update={
        "pitch_units": 0,
        "style_units": 0,
        "expressions": 0,
        "generator": HifiganConfig(
            channels=128, rates=(8, 8, 10), kernels=(16, 10, 12), block_kernels=(5,), block_dilations=((2, 1, 1),)
        ),
    }
)
FOURIER = EXPRESSIVE.model_copy(
    update={"generator": IstftConfig(width=32, expansion=2, unit_layers=1, layers=2, kernel=5, hop=80, window=320)}
)


def build(config: VocoderConfig) -> Vocoder:
    """Weights that keep the loudness from layer to layer, so that every input is heard, and durations that differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = VocoderModel(config).eval()
        for module in model.generator.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                seen = module.in_channels / module.groups * module.kernel_size[0] / module.stride[0]
                nn.init.normal_(module.weight, std=seen**-0.5)
                nn.init.zeros_(module.bias)
        if isinstance(config.generator, IstftConfig):
            nn.init.constant_(model.generator.head.bias[: config.generator.window // 2 + 1], 2.0)
        nn.init.constant_(model.durations.last.bias, 1.2)
    return Vocoder(model)
