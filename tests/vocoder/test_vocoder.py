"""Whole, in batches and in pieces: the same waveform. What reaches how far, and what cannot be loaded."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.vocoder.config import VocoderConfig
from spiritlm_core.speech.vocoder.vocoder import Vocoder
from tests.vocoder.models import BASE, EXPRESSIVE, FOURIER, build


def rows(count: int, seed: int = 0) -> SimpleNamespace:
    """One entry of each stream per unit."""
    draw = np.random.default_rng(seed)
    return SimpleNamespace(hubert=draw.integers(0, 60, count), pitch=draw.integers(0, 8, count),
                           style=draw.integers(0, 5, count))  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 25])
def test_pieces_have_no_seams(vocoder: Vocoder, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vocoder.decode(rows(40), speaker=2)
    monkeypatch.setattr("spiritlm_core.speech.vocoder.vocoder._LONGEST", chunk)
    assert np.abs(vocoder.decode(rows(40), speaker=2) - whole).max() < 1e-5
    assert whole.std() > 0.1


def test_long_units_are_computed_in_parts(vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    units = [rows(n, n) for n in (50, 3, 30)]
    whole = [vocoder.decode(one) for one in units]
    monkeypatch.setattr("spiritlm_core.speech.vocoder.vocoder._LONGEST", 40)
    for found in ([vocoder.decode(one) for one in units], vocoder.decode_batch(units)):
        assert all(np.abs(a - b).max() < 1e-5 for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("config", [BASE, EXPRESSIVE, FOURIER])
def test_the_context_is_the_receptive_field(config: VocoderConfig) -> None:
    """A frame is heard as far as `context` says, and no further: gradients of the middle frame's samples."""
    model = build(config).model
    before, after = config.context
    middle, count = before + 3, before + after + 7
    x = torch.randn(1, config.inputs, count, requires_grad=True)
    model.generator(x)[0, middle * FRAME : (middle + 1) * FRAME].abs().sum().backward()
    assert x.grad is not None
    (felt,) = np.nonzero(x.grad[0].abs().sum(dim=0).numpy())
    assert (felt.min(), felt.max()) == (middle - before, middle + after)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), st.integers(1, 4), st.booleans())
def test_together_as_alone(counts: list[int], batch_size: int, predict: bool) -> None:
    vocoder = build(EXPRESSIVE)
    batch = [rows(count, seed) for seed, count in enumerate(counts)]
    together = vocoder.decode_batch(batch, batch_size=batch_size, predict_durations=predict)
    for one, found in zip(batch, together, strict=True):
        alone = vocoder.decode(one, predict_durations=predict)
        assert found.shape == alone.shape
        assert np.abs(found - alone).max() < 1e-5


def test_every_input_is_heard(expressive: Vocoder) -> None:
    plain = expressive.decode(rows(10), predict_durations=False)
    for change in ("hubert", "pitch", "style"):
        units = rows(10)
        getattr(units, change)[4] ^= 1
        assert np.abs(expressive.decode(units, predict_durations=False) - plain).max() > 1e-3
    for option in ({"speaker": 0}, {"expression": 1}):
        assert np.abs(expressive.decode(rows(10), predict_durations=False, **option) - plain).max() > 1e-3
    assert np.array_equal(expressive.decode(rows(10), predict_durations=False, speaker=1, expression=0), plain)
    assert expressive.decode_batch([]) == []


def test_saved_and_loaded(vocoder: Vocoder, tmp_path: Path) -> None:
    vocoder.model.save(tmp_path)
    loaded = Vocoder.load(tmp_path, "cpu")
    assert loaded.config == vocoder.config
    assert np.array_equal(loaded.decode(rows(5)), vocoder.decode(rows(5)))
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"units": 61}, "size mismatch"),
        ({"units": "x"}, "config.json: units: Input should be a valid integer"),
        ({"odd": 1}, "odd"),
        ({"generator": {"kind": "hifigan", "rates": [640, 2]}}, "1280"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelReferenceError, match=message) as error:
            Vocoder.load(tmp_path, "cpu")
        assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ModelReferenceError, match="not a vocoder"):
        Vocoder.load(tmp_path, "cpu")
    (tmp_path / "model.safetensors").write_bytes(weights[:-4] + b"\x00\x00\xc0\x7f")
    with pytest.raises(ModelReferenceError, match="NaN"):
        Vocoder.load(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("hifigan", {"rates": (5, 4, 4, 4, 4)}),
        ("hifigan", {"kernels": (11, 8)}),
        ("hifigan", {"kernels": (10, 8, 8, 8, 4)}),
        ("hifigan", {"kernels": (3, 8, 8, 8, 4)}),
        ("hifigan", {"block_kernels": (3, 6)}),
        ("hifigan", {"block_dilations": ((1,),)}),
        ("hifigan", {"channels": 40}),
        ("istft", {"hop": 150}),
        ("istft", {"window": 160}),
        ("istft", {"hop": 160, "window": 400}),
        ("istft", {"kernel": 6}),
        ("griffin", {}),
    ],
)
def test_generators_that_cannot_be(kind: str, change: dict) -> None:
    with pytest.raises(ValidationError):
        VocoderConfig.model_validate(EXPRESSIVE.model_dump() | {"generator": {"kind": kind, **change}})


@pytest.mark.parametrize(
    "change",
    [{"speaker": 3}, {"expression": 2}, {"duration_kernel": 4}, {"speaker_names": ("a", "b")}, {"usual_styles": (5,)}],
)
def test_configurations_that_cannot_be(change: dict) -> None:
    with pytest.raises(ValidationError):
        VocoderConfig.model_validate(EXPRESSIVE.model_dump() | change)


def test_a_broken_predictor_does_not_take_all_memory() -> None:
    vocoder = build(BASE)
    torch.nn.init.constant_(vocoder.model.durations.last.bias, 500.0)
    assert vocoder.durations(np.array([3, 4])).tolist() == [2500, 2500]


def test_bad_requests(expressive: Vocoder) -> None:
    for options, message in (
        ({"speaker": 3}, "no speaker 3: it knows 0 to 2"),
        ({"speaker": -1}, "no speaker -1"),
        ({"expression": 2}, "no expression 2"),
    ):
        with pytest.raises(SpiritLMError, match=message):
            expressive.decode(rows(3), **options)
    with pytest.raises(SpiritLMError, match="it knows none"):
        build(BASE).decode(rows(3), expression=0)
    with pytest.raises(SpiritLMError, match="no HuBERT units"):
        expressive.decode(rows(0))
