"""Every family of encoders does what `transformers` does, on the grid of the units, whatever it is batched with."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

from spiritlm_core import SpeechTokenizer
from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.encoders.encoder import layer_frames, pooled
from spiritlm_core.speech.encoders.registry import FAMILIES, chosen_layer, family_name, load_encoder
from spiritlm_core.speech.fits import QuantizerFit
from spiritlm_core.speech.folder import write_speech_tokenizer
from spiritlm_core.speech.grid import FRAME, unit_count
from spiritlm_core.speech.quantizers.config import QuantizerStageConfig
from tests.speech.encoders.families import LAYERS, WIDTH, model, write, write_ctranslate2
from tests.speech.synthetic import speech

NAMES = ("hubert", "wav2vec2", "wavlm", "wavlm large", "wav2vec2-bert", "whisper", "ctranslate2")
LENGTHS = (1280, 1919, 16_000, 17_123, 17_200, 16_100, 31_999)
"""At most two seconds, so that Whisper takes each as a whole."""


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(name, tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [speech(i, 2.0)[:length] for i, length in enumerate(LENGTHS)]


def hiss(samples: int) -> np.ndarray:
    """Noise: no band is empty, where a logarithm would show the rounding of sums."""
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


def close(one: np.ndarray, other: np.ndarray) -> None:
    """Equal but for the rounding of sums."""
    np.testing.assert_allclose(one, other, atol=3e-5 * max(1.0, np.abs(other).max(initial=0)))


@pytest.mark.parametrize("hop", [FRAME, 2 * FRAME])
def test_a_shuffled_padded_batch_gives_what_each_clip_gives_alone(
    folder: Path, clips: list[np.ndarray], hop: int
) -> None:
    encoder = load_encoder(folder, LAYERS, hop=hop)
    order = np.random.default_rng(0).permutation(len(clips))
    together = encoder.features([clips[i] for i in order], [2, LAYERS])
    for clip, i in zip(together, order, strict=True):
        (alone,) = encoder.features([clips[i]], [2, LAYERS])
        for layer in (2, LAYERS):
            assert (
                clip[layer].shape == (encoder.count(LENGTHS[i]), WIDTH) == (unit_count(LENGTHS[i], hop), encoder.width)
            )
            close(clip[layer].numpy(), alone[layer].numpy())
            assert float(clip[layer].std()) > 0.01


def test_the_batch_of_the_test_above_is_padded(folder: Path, clips: list[np.ndarray]) -> None:
    encoder, seen = load_encoder(folder, 1), []
    blocks = encoder.blocks

    def spy(frames: torch.Tensor, mask: torch.Tensor | None) -> object:
        seen.append(None if mask is None else int((~mask).sum()))
        return blocks(frames, mask)

    encoder.blocks = spy  # type: ignore[assignment, method-assign]
    encoder.features(clips, [1])
    assert len(seen) < len(clips)
    assert any(seen)


def test_12_5_hertz_are_means_of_two_frames(folder: Path, clips: list[np.ndarray]) -> None:
    frames = layer_frames(load_encoder(folder, 2), clips, 2)
    halved = layer_frames(load_encoder(folder, 2, hop=2 * FRAME), clips, 2)
    for one, other in zip(frames, halved, strict=True):
        assert len(other) == -(-len(one) // 2)
        close(other[: len(one) // 2], (one[: len(one) // 2 * 2 : 2] + one[1::2]) / 2)
        if len(one) % 2:
            close(other[-1], one[-1])


def test_layers_above_are_not_loaded_and_change_nothing(folder: Path, clips: list[np.ndarray]) -> None:
    whole = layer_frames(load_encoder(folder, LAYERS), clips[:2], 1)
    for one, other in zip(layer_frames(load_encoder(folder, 1), clips[:2], 1), whole, strict=True):
        close(one, other)
    with pytest.raises(ModelReferenceError, match=f"has {LAYERS} layers, but layer {LAYERS + 1} is wanted"):
        load_encoder(folder, LAYERS + 1)


def test_the_family_and_its_usual_layer_are_told_from_the_folder(name: str, folder: Path) -> None:
    family = {"ctranslate2": "whisper", "wavlm large": "wavlm"}.get(name, name)
    usual = {"hubert": 4, "wavlm": 4, "wav2vec2": 2, "wav2vec2-bert": 3, "whisper": 3}
    assert family_name(folder) == family
    assert chosen_layer(folder, None, "units.quantizer.layer") == usual[family]
    assert chosen_layer(folder, 1, "units.quantizer.layer") == 1
    with pytest.raises(RecipeError, match=r"units\.quantizer\.layer is 9, but the encoder has 4 layers"):
        chosen_layer(folder, 9, "units.quantizer.layer")


@pytest.mark.parametrize("other", ["wavlm", "wavlm large", "wav2vec2"])
def test_outputs_are_those_of_transformers(other: str, clips: list[np.ndarray], tmp_path: Path) -> None:
    """The last block's output of a pre-norm model comes before the norm that `transformers` ends with."""
    encoder = load_encoder(write(other, tmp_path), LAYERS)
    with torch.inference_mode():
        expected = model(other)(torch.from_numpy(clips[3])[None], output_hidden_states=True)
    (found,) = encoder.outputs([clips[3]], [1, 2, LAYERS])
    for layer in (1, 2):
        close(found[layer].numpy(), expected.hidden_states[layer][0].numpy())
    close(encoder.final_norm(found[LAYERS]).numpy(), expected.last_hidden_state[0].numpy())


def test_w2v_bert_hears_what_its_preprocessor_gives(tmp_path: Path) -> None:
    encoder, clip = load_encoder(write("wav2vec2-bert", tmp_path), LAYERS), hiss(400 + 160 * 77)
    features = SeamlessM4TFeatureExtractor()(clip, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        states = model("wav2vec2-bert")(**features, output_hidden_states=True).hidden_states
    (found,) = encoder.outputs([clip], [1, LAYERS])
    for layer in (1, LAYERS):
        np.testing.assert_allclose(found[layer], states[layer][0], atol=2e-3)


def test_whisper_hears_what_its_preprocessor_gives(tmp_path: Path) -> None:
    """Two seconds fill the positions of the model, so that `transformers` takes them unpadded; windows begin later."""
    encoder, clip = load_encoder(write("whisper", tmp_path), LAYERS), hiss(400 + 160 * 199)
    centred = WhisperFeatureExtractor()(clip[200:], sampling_rate=16_000, padding=False, return_tensors="pt")
    mel = encoder.log_mel(torch.from_numpy(clip))  # type: ignore[attr-defined]
    inner = slice(2, centred.input_features.shape[2] - 3)
    close(mel[inner].numpy(), centred.input_features[0].T[inner].numpy())
    with torch.inference_mode():
        states = model("whisper").encoder(mel.T[None], output_hidden_states=True).hidden_states
    (found,) = encoder.outputs([clip], [1, 2, 3, LAYERS])
    for layer in (1, 2, 3, LAYERS):
        close(found[layer].numpy(), states[layer][0].numpy())


def test_a_longer_clip_than_whisper_takes_is_cut_into_even_windows(tmp_path: Path) -> None:
    encoder, clip = load_encoder(write("whisper", tmp_path), 3), speech(9, 5.0)
    assert encoder.longest == 50
    (frames,) = layer_frames(encoder, [clip], 3)
    assert len(frames) == unit_count(len(clip)) == 124
    size = 42
    for start in range(0, len(frames), size):
        window = clip[start * FRAME : (start + size) * FRAME + 80]
        close(layer_frames(encoder, [window], 3)[0], frames[start : start + size])


def test_ctranslate2_holds_the_same_model(clips: list[np.ndarray], tmp_path: Path) -> None:
    halved = model("whisper").half().float()
    halved.save_pretrained(tmp_path / "transformers")
    write_ctranslate2(halved, tmp_path / "ctranslate2")
    one, other = (load_encoder(tmp_path / name, LAYERS) for name in ("transformers", "ctranslate2"))
    for a, b in zip(one.features(clips, [3, LAYERS]), other.features(clips, [3, LAYERS]), strict=True):
        assert all(torch.equal(a[layer], b[layer]) for layer in (3, LAYERS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-500], "copy or download it anew"),
        (lambda data: b"\5" + data[1:], "version 5"),
        (lambda data: data.replace(b"WhisperSpec", b"TransforSpe"), "not a WhisperSpec"),
        (lambda data: data.replace(b"encoder/conv1/bias", b"encoder/conv9/bias"), "holds no Whisper"),
    ],
)
def test_a_damaged_model_bin_is_named(change: object, message: str, tmp_path: Path) -> None:
    path = write("ctranslate2", tmp_path) / "model.bin"
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ModelReferenceError, match=message) as caught:
        load_encoder(tmp_path, 2)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["wavlm", "wav2vec2-bert", "whisper"])
def test_bf16_is_close(name: str, clips: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(name, tmp_path)
    exact = layer_frames(load_encoder(folder, 2), clips, 2)
    for module in ("waveform", "w2v_bert", "whisper"):
        monkeypatch.setattr(f"spiritlm_core.speech.encoders.{module}.kind_of", lambda *_: "bf16")
    coarse = layer_frames(load_encoder(folder, 2), clips, 2)
    errors = [np.abs(a - b).max() for a, b in zip(exact, coarse, strict=True)]
    assert 1e-6 < max(errors) < 0.15


def test_other_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelReferenceError, match=r"type llama, not an encoder of speech units: hubert, wav2vec2"):
        load_encoder(tmp_path, 1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelReferenceError, match="type None"):
        family_name(tmp_path)


def test_an_encoder_of_ones_own_makes_units(
    clips: list[np.ndarray], audio: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file and one line: it fits a quantizer, makes units in any batch, and is published."""
    monkeypatch.setitem(FAMILIES, "mel", "tests.examples.encoder:MelEncoder")
    mel, quantizer = tmp_path / "mel", tmp_path / "quantizer"
    for folder in (mel, quantizer):
        folder.mkdir()
    (mel / "config.json").write_text('{"model_type": "mel", "bands": 24}')
    config = QuantizerStageConfig(units=12, layer=2, rate=12.5)
    QuantizerFit(config, {"hubert": mel}).build({"audio": TableView.of(audio)}, quantizer, tmp_path, lambda *_: None)
    write_speech_tokenizer(tmp_path / "published", {"hubert": mel, "quantizer": quantizer})
    record = json.loads((tmp_path / "published" / "config.json").read_text())
    assert record["encoder"] == {"family": "mel", "layer": 2}
    assert record["streams"]["hubert"] == {"classes": 12, "hertz": 12.5}
    tokenizer = SpeechTokenizer.from_pretrained(tmp_path / "published")
    assert tokenizer.rate == 12.5
    for length, clip, units in zip(LENGTHS, clips, tokenizer.encode_batch(clips), strict=True):
        assert len(units.hubert) == unit_count(length, 1280)
        assert np.array_equal(units.hubert, tokenizer.encode(clip).hubert)


def test_pooling_keeps_what_is_left() -> None:
    frames = torch.arange(10.0).reshape(5, 2)
    assert pooled(frames, 2).tolist() == [[1.0, 2.0], [5.0, 6.0], [8.0, 9.0]]
    assert pooled(frames, 1) is frames
