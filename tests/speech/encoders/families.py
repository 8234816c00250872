"""A small model with random weights of each family, written as its folder is published."""

import struct
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperModel,
)

LAYERS, WIDTH = 4, 32
BLOCKS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout": 0.0,
}
WAVEFORM = BLOCKS | {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 15, "num_conv_pos_embedding_groups": 4}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
WHISPER = WhisperConfig(
    d_model=WIDTH,
    encoder_layers=LAYERS,
    encoder_attention_heads=2,
    encoder_ffn_dim=64,
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=64,
    max_source_positions=100,
    vocab_size=60_000,
)


def whisper() -> WhisperModel:
    """One that takes two seconds at a time."""
    return WhisperModel(WHISPER)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "hubert": lambda: HubertModel(HubertConfig(**WAVEFORM)),
    "wav2vec2": lambda: Wav2Vec2Model(Wav2Vec2Config(**WAVEFORM, **STABLE)),
    "wavlm": lambda: WavLMModel(WavLMConfig(**WAVEFORM)),
    "wavlm large": lambda: WavLMModel(WavLMConfig(**WAVEFORM, **STABLE)),
    "wav2vec2-bert": lambda: Wav2Vec2BertModel(Wav2Vec2BertConfig(**BLOCKS)),
    "whisper": whisper,
}


def model(name: str) -> PreTrainedModel:
    """Seeded, in use; norms are not the identity, and neither is what is zero in a fresh model."""
    torch.manual_seed(0)
    made = MODELS[name]().eval()
    for parameter in made.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def write(name: str, folder: Path) -> Path:
    """The folder of a family; ``ctranslate2`` is Whisper as faster-whisper has it."""
    if name == "ctranslate2":
        return write_ctranslate2(model("whisper"), folder)
    model(name).save_pretrained(folder)
    return folder


def write_ctranslate2(model: WhisperModel, folder: Path) -> Path:
    """What CTranslate2's converter makes of the encoder, in float16, with one array of a decoder."""
    arrays = {"decoder/embeddings/weight": torch.zeros(3, 2)}
    arrays |= {
        _theirs(name): tensor for name, tensor in model.encoder.state_dict().items() if ".self_attn." not in name
    }
    for layer in range(LAYERS):
        attention = model.encoder.layers[layer].self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [torch.zeros(WIDTH) if part.bias is None else part.bias for part in parts]
        stem = f"encoder/layer_{layer}/self_attention"
        arrays[f"{stem}/linear_0/weight"] = torch.cat([part.weight for part in parts])
        arrays[f"{stem}/linear_0/bias"] = torch.cat(biases)
        arrays[f"{stem}/linear_1/weight"], arrays[f"{stem}/linear_1/bias"] = (*attention.out_proj.parameters(),)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"alignment_heads": [[0, 0]]}')
    with (folder / "model.bin").open("wb") as file:
        file.write(struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<II", 3, len(arrays) + 1))
        file.write(_text("encoder/num_heads") + struct.pack("<BBI", 0, 2, 2) + struct.pack("<h", 2))
        for name, tensor in arrays.items():
            half = tensor.detach().half().numpy()
            file.write(_text(name) + struct.pack("<B", half.ndim) + struct.pack(f"<{half.ndim}I", *half.shape))
            file.write(struct.pack("<BI", 4, half.nbytes) + half.tobytes())
        file.write(struct.pack("<I", 0))
    return folder


def _theirs(name: str) -> str:
    changed = name.replace("embed_positions.weight", "position_encodings/encodings").replace("layers.", "layer_")
    changed = changed.replace("self_attn_layer_norm", "self_attention/layer_norm")
    changed = changed.replace("final_layer_norm", "ffn/layer_norm").replace("fc1", "ffn/linear_0")
    changed = changed.replace("fc2", "ffn/linear_1").replace(".", "/")
    if "layer_norm" in changed:
        changed = changed.replace("/weight", "/gamma").replace("/bias", "/beta")
    return f"encoder/{changed}"


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"
