from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import AutoModel, HubertModel

from spiritlm_core.errors import RecipeError, SpiritLMError
from spiritlm_core.lake.view import TableView
from spiritlm_core.units import fit_hubert
from spiritlm_core.units.fit_hubert import HubertFit
from spiritlm_core.units.masked_prediction import Tape, draw_masks, gabor_filters, hubert_loss
from spiritlm_core.units.types import hubert_count
from tests.units.conftest import CONFIG
from tests.units.synthetic import row, speech, table


class KilledError(Exception):
    pass


def fit(
    audio: pa.Table, folder: Path, *, kill_at: float = 2.0, config: object = CONFIG.hubert
) -> dict[str, np.ndarray]:
    def progress(fraction: float, message: str) -> None:
        if fraction >= kill_at:
            raise KilledError(message)

    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    HubertFit(config, {}).build({"audio": TableView.of(audio)}, out, folder / "work", progress)
    return load_file(out / "model.safetensors")


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_killed_fit_resumes_to_the_same_weights(
    audio: pa.Table, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_hubert, "_CHECKPOINT_EVERY", 4)
    for kill_at in (0.2, 0.7):
        with pytest.raises(KilledError):
            fit(audio, tmp_path, kill_at=kill_at)
    assert same(fit(audio, tmp_path), load_file(models["hubert"] / "model.safetensors"))


def test_fit_sees_train_rows_only_and_no_order_of_rows(
    audio: pa.Table, models: dict[str, Path], tmp_path: Path
) -> None:
    rows = [r for r in audio.to_pylist() if r["split"] == "train"][::-1]
    rows.append(row("other", speech(77, 2.0), "low", "held_out"))
    bad = {**row("bad", speech(78, 2.0)), "audio": None, "reject_stage": "audio", "reject_reason": "noise"}
    again = fit(table(*rows, bad), tmp_path)
    assert same(again, load_file(models["hubert"] / "model.safetensors"))


def test_another_seed_gives_another_model(audio: pa.Table, models: dict[str, Path], tmp_path: Path) -> None:
    again = fit(audio, tmp_path, config=CONFIG.hubert.model_copy(update={"seed": 1}))
    assert not same(again, load_file(models["hubert"] / "model.safetensors"))


def test_artifact_is_an_ordinary_hugging_face_model(models: dict[str, Path]) -> None:
    model = AutoModel.from_pretrained(models["hubert"]).eval()
    assert isinstance(model, HubertModel)
    with torch.inference_mode():
        output = model(torch.from_numpy(speech(0, 1.0))[None]).last_hidden_state
    assert output.shape == (1, 24, CONFIG.hubert.hidden_size)
    assert {p.name for p in models["hubert"].iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def test_loss_falls(audio: pa.Table, summaries: dict[str, dict], tmp_path: Path) -> None:
    assert [i["steps"] for i in summaries["hubert"]["iterations"]] == list(CONFIG.hubert.steps)
    config = CONFIG.hubert.model_copy(update={"steps": (60,), "clusters": (8,)})
    out = tmp_path / "out"
    built = HubertFit(config, {}).build({"audio": TableView.of(audio)}, out, tmp_path, lambda *_: None)
    (iteration,) = built["iterations"]
    assert iteration["loss_last"] < 0.8 * iteration["loss_first"]
    assert iteration["masked_accuracy"] > 1 / 8


def test_nothing_to_fit_is_said(audio: pa.Table, tmp_path: Path) -> None:
    given_model = CONFIG.hubert.model_copy(update={"model": "hf://org/name@main"})
    with pytest.raises(RecipeError, match="nothing to fit"):
        fit(audio, tmp_path, config=given_model)
    with pytest.raises(SpiritLMError, match="no usable train rows"):
        fit(table(row("a", speech(0, 1.0), split="held_out")), tmp_path)


@given(st.integers(1, 200), st.floats(0.01, 1), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_masks_are_spans(frames: int, prob: float, length: int, seed: int) -> None:
    masks = draw_masks((3, frames), prob, length, np.random.default_rng(seed)).numpy()
    assert masks.shape == (3, frames)
    for mask in masks:
        edges = np.flatnonzero(np.diff(np.pad(mask.astype(int), 1)))
        runs = edges[1::2] - edges[::2]
        assert len(runs) >= 1
        assert (runs >= min(length, frames)).all()


def test_loss_weighs_masked_and_other_frames() -> None:
    logits = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(14).reshape(2, 7) % 5
    masked = torch.zeros(2, 7, dtype=torch.bool)
    masked[:, :3] = True
    each = -torch.log_softmax(logits, -1).gather(-1, labels[..., None])[..., 0]
    expected = 0.7 * each[:, :3].mean() + 0.3 * each[:, 3:].mean()
    torch.testing.assert_close(hubert_loss(logits, labels, masked, 0.7), expected)
    nothing = torch.zeros_like(masked)
    torch.testing.assert_close(hubert_loss(logits, labels, nothing, 0.7), 0.3 * each.mean())


def test_tape_keeps_samples_beside_their_labels() -> None:
    clips = [np.full(n, value, np.float32) for n, value in ((2000, 0.25), (1280, 0.5), (5000, -0.125))]
    labels = [np.full(hubert_count(len(clip)), int(clip[0] * 8)) for clip in clips]
    waves, crops = Tape.of(clips, labels).crops(50, 3, np.random.default_rng(0))
    assert waves.shape == (50, 3 * 640 + 80)
    assert torch.equal((waves[:, :1920].reshape(50, 3, 640) * 8).int(), crops[..., None].int().expand(-1, -1, 640))


def test_gabor_filters_peak_at_rising_frequencies() -> None:
    filters = gabor_filters(64, 240)[:, 0].numpy()
    peaks = np.abs(np.fft.rfft(filters, 4096)).argmax(axis=1)[::4] * 16_000 / 4096
    assert (np.diff(peaks) > 0).all()
    assert 40 < peaks[0] < 250
    assert 6000 < peaks[-1] < 7600
