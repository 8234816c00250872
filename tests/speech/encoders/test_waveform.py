"""Encoders over many clips, against the `transformers` models they stand for."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.encoders import waveform as waveform_module
from spiritlm_core.speech.encoders.encoder import batches
from spiritlm_core.speech.encoders.front_end import FrontEnd, _Convolution
from spiritlm_core.speech.encoders.precision import Kind, kind_of
from spiritlm_core.speech.encoders.waveform import HubertEncoder
from tests.speech.synthetic import speech

LENGTHS = (1280, 1281, 16_000, 23_456, 47_840, 1999, 16_001, 33_333)
PAPER = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2, 2), "conv_dim": (16,) * 8}
OWN = {"conv_kernel": (240, 7, 1), "conv_stride": (80, 8, 1), "conv_dim": (24, 16, 12)}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 15,
    "num_conv_pos_embedding_groups": 4,
}
FRONT_ENDS = {
    "paper": PAPER,
    "paper with bias": PAPER | {"conv_bias": True},
    "layer norm": PAPER | {"feat_extract_norm": "layer", "conv_bias": True},
    "own": OWN | {"feat_extract_norm": "layer"},
    "50 Hz": {"conv_dim": (16,) * 7},
}


def clips(lengths: Sequence[int] = LENGTHS) -> list[np.ndarray]:
    return [speech(i, 4.0)[:length] for i, length in enumerate(lengths)]


def hubert(**changes: object) -> HubertModel:
    """A seeded HuBERT whose norms are not the identity."""
    changes["num_feat_extract_layers"] = len(changes.get("conv_dim", (0,) * 7))
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**SMALL | changes)).eval()
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def wav2vec2(**changes: object) -> Wav2Vec2Model:
    torch.manual_seed(0)
    norm = "layer" if changes["do_stable_layer_norm"] else "group"
    settings_ = SMALL | {"conv_dim": (16,) * 7, "feat_extract_norm": norm} | changes
    return Wav2Vec2Model(Wav2Vec2Config(**settings_)).eval()


@pytest.mark.parametrize("changes", FRONT_ENDS.values(), ids=FRONT_ENDS)
@pytest.mark.parametrize("way", ["one after another", "all at once"])
def test_blocks_give_the_frames_of_transformers(changes: dict[str, object], way: str) -> None:
    extractor = hubert(**changes).feature_extractor
    front_end = FrontEnd(extractor)
    waveforms = [torch.from_numpy(clip) for clip in clips()]
    with torch.inference_mode():
        if way == "all at once":  # as on a GPU
            front_end._rest = [_Convolution(layer, "fp32") for layer in extractor.conv_layers[1:]]
            found = front_end._together(waveforms)
        else:
            found = front_end(waveforms)
        for waveform, frames in zip(waveforms, found, strict=True):
            expected = extractor(waveform[None])[0].T
            assert len(frames) == front_end.count(len(waveform)) == len(expected)
            torch.testing.assert_close(frames, expected, atol=2e-5, rtol=1e-4)


def test_silence_and_loud_speech_pass_the_folded_group_norm() -> None:
    extractor = hubert(**PAPER).feature_extractor
    for waveform in (torch.zeros(20_000), torch.ones(20_000), torch.from_numpy(speech(0, 1.0)) * 1e-4):
        with torch.inference_mode():
            found, expected = FrontEnd(extractor)([waveform])[0], extractor(waveform[None])[0].T
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("make", [hubert, wav2vec2], ids=["hubert", "wav2vec2"])
def test_a_shuffled_mixed_batch_gives_what_each_clip_gives_alone(make: object, stable: bool) -> None:
    model = make(do_stable_layer_norm=stable)
    encoder = HubertEncoder(model, 2)
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    waveforms = clips()
    together = encoder.outputs([waveforms[i] for i in order], [1, 2])
    for place, i in enumerate(order):
        with torch.inference_mode():
            expected = model(torch.from_numpy(waveforms[i])[None]).last_hidden_state[0]
        (alone,) = encoder.outputs([waveforms[i]], [1, 2])
        torch.testing.assert_close(encoder.final_norm(together[place][2]), expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(together[place][1], alone[1], atol=2e-5, rtol=1e-4)


def test_the_model_given_stays_as_it_is() -> None:
    model = hubert(**PAPER)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    HubertEncoder(model, 1, precision="bf16")
    assert len(model.encoder.layers) == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert set(model.state_dict()) == set(before)


@pytest.mark.parametrize(("kind", "tolerance"), [("bf16", 0.1)])
def test_coarser_products_err_by_as_much_as_they_may(
    kind: Kind, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = hubert(**PAPER)
    exact = HubertEncoder(model, 2).outputs(clips(), [2])
    monkeypatch.setattr(waveform_module, "kind_of", lambda *_: kind)
    coarse = HubertEncoder(model, 2).outputs(clips(), [2])
    errors = [float((a[2] - b[2]).abs().max()) for a, b in zip(exact, coarse, strict=True)]
    assert tolerance / 1e4 < max(errors) < tolerance


def test_precision_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from spiritlm_core.speech.encoders import precision

    monkeypatch.setattr(precision, "has_amx", lambda: False)
    assert kind_of("exact", "cpu") == kind_of("bf16", "cpu") == "fp32"
    assert (kind_of("exact", "cuda"), kind_of("bf16", "cuda:0")) == ("fp32", "bf16")
    monkeypatch.setattr(precision, "has_amx", lambda: True)
    assert (kind_of("exact", "cpu"), kind_of("bf16", "cpu")) == ("fp32", "bf16")


def test_unknown_activations_are_refused() -> None:
    with pytest.raises(ModelReferenceError, match="feat_extract_activation"):
        FrontEnd(hubert(**PAPER, feat_extract_activation="relu").feature_extractor)


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(0, 2000))
def test_batches_hold_every_clip_once_with_little_padding(frames: list[int], limit: int) -> None:
    groups = list(batches(frames, limit))
    assert sorted(i for group in groups for i in group) == list(range(len(frames)))
    for group in groups:
        padded = len(group) * max(frames[i] for i in group)
        assert len(group) == 1 or (padded <= limit and sum(frames[i] for i in group) >= 0.9 * padded)
