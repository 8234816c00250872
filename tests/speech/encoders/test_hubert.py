import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import HubertModel

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.encoders.encoder import batches, layer_frames
from spiritlm_core.speech.encoders.registry import load_encoder
from spiritlm_core.speech.grid import unit_count
from tests.speech.models import small
from tests.speech.synthetic import speech

LENGTHS = (1280, 1919, 1920, 16_000, 17_123, 9_000, 16_000, 31_999)


FIFTY_HERTZ = {"conv_dim": (16,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
FIFTY_HERTZ["num_feat_extract_layers"] = 7
KINDS = {
    "paper": {},
    "50 Hz": FIFTY_HERTZ,
    "pre-norm": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_batches_with_padding_equal_one_at_a_time(tmp_path: Path, changes: dict[str, object]) -> None:
    hubert = load_encoder(small(tmp_path, **changes), 3)
    clips = [speech(i, 2.0)[:length] for i, length in enumerate(LENGTHS)]
    alone = [hubert.features([clip], [1, 3])[0] for clip in clips]
    together = hubert.features(clips, [1, 3])
    assert len(list(batches([len(clip[1]) for clip in alone], hubert.batch_frames))) < len(clips)
    for length, one, other in zip(LENGTHS, alone, together, strict=True):
        assert one[1].shape == one[3].shape == (unit_count(length), 32)
        np.testing.assert_allclose(one[3], other[3], atol=2e-5)
        np.testing.assert_allclose(one[1], other[1], atol=2e-5)


@pytest.mark.parametrize("stable", [False, True])
def test_layers_are_those_of_transformers(tmp_path: Path, stable: bool) -> None:
    folder = small(tmp_path, do_stable_layer_norm=stable)
    clip = speech(0, 1.0)
    model = HubertModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(torch.from_numpy(clip)[None], output_hidden_states=True).hidden_states
    for layer in (1, 2):
        found = layer_frames(load_encoder(folder, layer), [clip], layer)[0]
        np.testing.assert_allclose(found, states[layer][0].numpy(), atol=1e-5)


def test_blocks_above_the_layer_are_not_loaded(tmp_path: Path) -> None:
    assert len(load_encoder(small(tmp_path), 2)._encoder.layers) == 2


def test_fifty_hertz_frames_are_averaged_in_pairs(tmp_path: Path) -> None:
    folder = small(tmp_path, **FIFTY_HERTZ)
    clip = speech(0, 1.0)
    with torch.inference_mode():
        frames = HubertModel.from_pretrained(folder).eval()(torch.from_numpy(clip)[None]).last_hidden_state[0].numpy()
    found = layer_frames(load_encoder(folder, 3), [clip], 3)[0]
    assert (len(frames), len(found)) == (49, 24)
    np.testing.assert_allclose(found, (frames[0:48:2] + frames[1:48:2]) / 2, atol=1e-5)


def test_preprocessor_normalisation_is_followed(tmp_path: Path) -> None:
    folder = small(tmp_path, **KINDS["pre-norm"])
    clip = speech(0, 1.0)
    plain = load_encoder(folder, 3)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16_000}))
    normalised = load_encoder(folder, 3)
    (quiet,), (loud,) = (layer_frames(normalised, [wave], 3) for wave in (clip * 0.1 + 0.2, clip))
    np.testing.assert_allclose(quiet, loud, atol=5e-3)
    assert np.abs(loud - layer_frames(plain, [clip], 3)[0]).max() > 0.05


def test_unsuitable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelReferenceError, match="not a Hugging Face model folder"):
        load_encoder(tmp_path / "nothing", 1)
    with pytest.raises(ModelReferenceError, match="layer 4 is wanted"):
        load_encoder(small(tmp_path / "good"), 4)
    with pytest.raises(ModelReferenceError, match="640 samples"):
        load_encoder(small(tmp_path / "grid", conv_stride=(5, 2, 2, 2, 2, 2, 2, 3)), 1)
    (tmp_path / "good" / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(ModelReferenceError, match="8000 Hz"):
        load_encoder(tmp_path / "good", 1)


def test_missing_weights_are_noticed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = small(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layers.0.attention.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelReferenceError, match="q_proj"):
        load_encoder(folder, 1)
