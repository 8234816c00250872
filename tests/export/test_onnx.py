"""Models of a speech tokenizer as ONNX files, run by onnxruntime beside torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from spiritlm_core.cli.app import app
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.export.onnx import _resolved, export_onnx
from spiritlm_core.speech.encoders.registry import load_encoder
from spiritlm_core.speech.folder import write_speech_tokenizer
from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, KMeans
from spiritlm_core.speech.quantizers.quantizer import LINEAR_FILE, LinearQuantizer, resolve_blanks
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.speech.models import small
from tests.support.small_model import sound
from tests.vocoder.models import BASE, EXPRESSIVE, FOURIER, build

WIDTH = 32


def encoder_of(kind: str, folder: Path) -> Path:
    """A small encoder with seeded weights."""
    import transformers

    torch.manual_seed(0)
    if kind == "whisper":
        shape = {"d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
                 "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 80,
                 "max_source_positions": 200, "vocab_size": 60}  # fmt: skip
        special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
        transformers.WhisperModel(transformers.WhisperConfig(**shape, **special)).save_pretrained(folder)
    elif kind == "hubert":
        small(folder)
    else:
        shape = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64,
                 "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
                 "feat_extract_norm": "layer", "do_stable_layer_norm": True}  # fmt: skip
        transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**shape)).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16_000}))
    return folder


def quantizer_of(kind: str, folder: Path) -> Path:
    """K-means at 12.5 units a second, or a linear quantizer whose blanks are frequent."""
    rng = np.random.default_rng(1)
    if kind == "kmeans":
        numbers = [rng.standard_normal(shape).astype(np.float32) for shape in ((20, WIDTH), (WIDTH,))]
        KMeans(*numbers, np.ones(WIDTH, np.float32), {"layer": 2, "rate": 12.5}).save(folder / QUANTIZER_FILE)
    else:
        weights = tuple(
            rng.standard_normal((16 if i < 2 else 9, WIDTH if i == 0 else 16)).astype(np.float32) for i in range(3)
        )
        biases = tuple(np.zeros(len(weight), np.float32) for weight in weights)
        biases[2][8] = 4.0
        LinearQuantizer(weights, biases, {"layer": 2}).save(folder / LINEAR_FILE)
    return folder


@pytest.mark.parametrize("kind", ["whisper kmeans", "hubert linear", "wav2vec2 kmeans"])
def test_onnxruntime_gives_the_units_of_a_waveform(kind: str, tmp_path: Path) -> None:
    import onnxruntime

    models = {role: tmp_path / role for role in ("hubert", "quantizer")}
    for folder in models.values():
        folder.mkdir()
    encoder_of(kind.split(maxsplit=1)[0], models["hubert"])
    quantizer_of(kind.split()[1], models["quantizer"])
    write_speech_tokenizer(tmp_path / "tokenizer", models)
    assert export_onnx(tmp_path / "tokenizer", tmp_path / "onnx") == ["units.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "onnx/units.onnx")
    tokenizer, encoder = (
        SpeechTokenizer.from_pretrained(tmp_path / "tokenizer", device="cpu"),
        load_encoder(models["hubert"], 2),
    )
    if kind.endswith("kmeans"):
        encoder.hop = 1280
    for number, seconds in enumerate((0.08, 0.37, 1.0, 2.93)):
        waveform = sound("middle", number, seconds)
        units, features = session.run(None, {"waveform": waveform})
        assert units.tolist() == tokenizer.encode(waveform).hubert.tolist()
        expected = encoder.features([waveform], [2])[0][2].numpy()
        np.testing.assert_allclose(features, expected, atol=1e-3)


def test_blanks_become_the_unit_before_them() -> None:
    rng = np.random.default_rng(0)
    for classes in (*rng.integers(0, 3, (30, 12)), np.full(5, 2), np.array([2, 2, 0])):
        expected = resolve_blanks(classes, 2)
        assert _resolved(torch.from_numpy(classes), 2).tolist() == expected.tolist()


@pytest.mark.parametrize("config", [BASE, EXPRESSIVE, FOURIER], ids=["base", "expressive", "fourier"])
def test_onnxruntime_speaks_and_times_units(config, speech_tokenizer: Path, tmp_path: Path) -> None:
    import onnxruntime

    model = build(config).model
    models = {"hubert": speech_tokenizer / "hubert", "quantizer": speech_tokenizer / "quantizer"}
    model.save(tmp_path / "vocoder")
    write_speech_tokenizer(tmp_path / "tokenizer", models | {"vocoder": tmp_path / "vocoder"})
    shown = CliRunner().invoke(app, ["export", "onnx", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "onnx")])
    assert shown.exit_code == 0, shown.output
    assert [Path(line).name for line in shown.stdout.split()] == ["durations.onnx", "units.onnx", "vocoder.onnx"]
    speaks, lasts = (onnxruntime.InferenceSession(tmp_path / f"onnx/{name}.onnx") for name in ("vocoder", "durations"))
    rng = np.random.default_rng(0)
    for frames in (1, 9, 77):
        streams = {name: rng.integers(size, size=(1, frames)) for name, size in config.embeddings.items()}
        tensors = {name: torch.from_numpy(stream) for name, stream in streams.items()}
        with torch.inference_mode():
            waveform, lasting = model(tensors).numpy(), model.frames(tensors["units"]).numpy()
        np.testing.assert_allclose(speaks.run(None, streams)[0], waveform, atol=1e-3)
        assert lasts.run(None, {"units": streams["units"]})[0].tolist() == lasting.tolist()


def test_an_encoder_without_an_onnx_form_is_named(tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
             "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}  # fmt: skip
    for role in ("hubert", "quantizer"):
        (tmp_path / role).mkdir()
    transformers.WavLMModel(transformers.WavLMConfig(**shape)).save_pretrained(tmp_path / "hubert")
    quantizer_of("kmeans", tmp_path / "quantizer")
    with pytest.raises(ModelReferenceError, match="WavLMEncoder has no ONNX form"):
        export_onnx(tmp_path, tmp_path / "onnx")
    with pytest.raises(ModelReferenceError, match="gone is not a folder"):
        export_onnx(tmp_path / "gone", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
