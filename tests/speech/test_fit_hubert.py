import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import AutoModel, HubertModel

from spiritlm_core.errors import RecipeError, SpiritLMError
from spiritlm_core.fit import steps
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.encoders.encoder import layer_frames
from spiritlm_core.speech.encoders.registry import load_encoder
from spiritlm_core.speech.fits import HubertFit
from spiritlm_core.speech.grid import unit_count
from spiritlm_core.speech.mel import mfcc_25hz
from spiritlm_core.speech.pretraining import fit_hubert, pretrain
from spiritlm_core.speech.pretraining.config import HubertConfig, PerturbConfig
from spiritlm_core.speech.pretraining.masked_prediction import (
    MaskedPrediction,
    Tape,
    draw_masks,
    gabor_filters,
    hubert_loss,
)
from tests.speech.encoders.families import write
from tests.speech.models import CONFIG
from tests.speech.synthetic import row, speech, table
from tests.support.watching import PATIENCE


class KilledError(Exception):
    pass


def fit(
    audio: pa.Table, folder: Path, *, kill_at: float = 2.0, config: object = CONFIG.hubert, teacher: Path | None = None
) -> dict[str, np.ndarray]:
    def progress(fraction: float, message: str) -> None:
        if fraction >= kill_at:
            raise KilledError(message)

    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    given = {"labels": teacher} if teacher else {}
    HubertFit(config, given).build({"audio": TableView.of(audio)}, out, folder / "work", progress)
    return load_file(out / "model.safetensors")


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_killed_fit_resumes_to_the_same_weights(
    audio: pa.Table, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CHECKPOINT_EVERY", 4)
    for kill_at in (0.2, 0.7):
        with pytest.raises(KilledError):
            fit(audio, tmp_path, kill_at=kill_at)
    assert same(fit(audio, tmp_path), load_file(models["hubert"] / "model.safetensors"))


def test_bf16_fits_as_float32_does(audio: pa.Table, models: dict[str, Path], tmp_path: Path) -> None:
    asked = CONFIG.hubert.model_copy(update={"precision": "bf16"})
    found, plain = fit(audio, tmp_path, config=asked), load_file(models["hubert"] / "model.safetensors")
    assert not same(found, plain)
    moved = sum(float(np.square(found[name] - plain[name]).sum()) for name in plain)
    assert moved < 0.01 * sum(float(np.square(plain[name]).sum()) for name in plain)


@pytest.mark.parametrize("stem", ["iteration-0", "iteration-1"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    audio: pa.Table, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str
) -> None:
    monkeypatch.setattr(steps, "CHECKPOINT_EVERY", 4)
    fit(audio, tmp_path)
    last = max((tmp_path / "work").glob(f"{stem}-*.pt"))
    last.write_bytes(last.read_bytes()[:1000])
    told: list[str] = []
    monkeypatch.setattr(steps, "noting", lambda _: told.append)
    assert same(fit(audio, tmp_path), load_file(models["hubert"] / "model.safetensors"))
    assert [f"{last} is damaged" in message for message in told] == [True]


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
        "iterations",
    }


def test_loss_falls(audio: pa.Table, summaries: dict[str, dict], tmp_path: Path) -> None:
    assert [i["steps"] for i in summaries["hubert"]["iterations"]] == list(CONFIG.hubert.steps)
    config = CONFIG.hubert.model_copy(update={"steps": (60,), "clusters": (8,), "perturb": None})
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
    labels = [np.full(unit_count(len(clip)), int(clip[0] * 8)) for clip in clips]
    tape = Tape.of(clips, labels)
    for seed in range(50):
        wave, crop = tape.crop(3, np.random.default_rng(seed))
        assert wave.shape == (3 * 640 + 80,)
        assert (wave[:1920].reshape(3, 640) * 8 == crop[:, None]).all()


def test_gabor_filters_peak_at_rising_frequencies() -> None:
    filters = gabor_filters(64, 240)[:, 0].numpy()
    peaks = np.abs(np.fft.rfft(filters, 4096)).argmax(axis=1)[::4] * 16_000 / 4096
    assert (np.diff(peaks) > 0).all()
    assert 40 < peaks[0] < 250
    assert 6000 < peaks[-1] < 7600


def test_models_of_earlier_iterations_are_kept(models: dict[str, Path]) -> None:
    kept = models["hubert"] / "iterations"
    assert [folder.name for folder in kept.iterdir()] == ["1"]
    first, last = HubertModel.from_pretrained(kept / "1"), HubertModel.from_pretrained(models["hubert"])
    assert (kept / "1" / "preprocessor_config.json").exists()
    assert not torch.equal(first.feature_projection.projection.weight, last.feature_projection.projection.weight)


def _rank(rank: int, audio: pa.Table, folder: Path, config: HubertConfig) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    found = HubertFit(config, {}).build({"audio": TableView.of(audio)}, out, folder / "work", lambda *_: None)
    (folder / f"summary-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_two_processes_learn_what_one_does(audio: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = CONFIG.hubert.model_copy(update={"steps": (6, 3), "batch_crops": 3})
    with monkeypatch.context() as ranks:
        ranks.setenv("LOCAL_WORLD_SIZE", str(os.cpu_count()))  # one thread each
        spawned = multiprocessing.get_context("spawn")
        processes = [spawned.Process(target=_rank, args=(rank, audio, tmp_path, config)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0, 0]
    alone = tmp_path / "alone" / "out"
    summary = HubertFit(config, {}).build({"audio": TableView.of(audio)}, alone, tmp_path / "alone", lambda *_: None)
    together = [json.loads((tmp_path / f"summary-{rank}.json").read_text()) for rank in range(2)]
    assert together[0] == together[1]
    for one, two in zip(summary["iterations"], together[0]["iterations"], strict=True):
        assert one["loss_last"] == pytest.approx(two["loss_last"], abs=0.01)
    features = [_hidden(folder / "iterations" / "1") for folder in (alone, tmp_path / "out")]
    torch.testing.assert_close(*features, atol=0.02, rtol=0.02)


def _hidden(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        output = HubertModel.from_pretrained(folder)(torch.from_numpy(speech(0, 1.0))[None])
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def test_more_processes_than_crops_are_refused(audio: pa.Table, tmp_path: Path) -> None:
    tape = Tape.of([speech(0, 4.0)], [np.zeros(99, np.int64)])
    fit_of_three = pretrain.Pretraining(CONFIG.hubert, 0, tape, tmp_path / "state.pt", Ranks(0, 3))
    with pytest.raises(RecipeError, match="batch_crops is 2, too few for 3"):
        fit_of_three.run(MaskedPrediction(CONFIG.hubert, 8), lambda *_: None)


@given(st.integers(0, 99), st.floats(1.0, 1.5))
@settings(max_examples=30, deadline=None)
def test_perturbed_crops_keep_the_labels_of_what_is_heard(seed: int, speed: float) -> None:
    values = np.arange(1, 201)
    tape = Tape.of([np.repeat(values / 256, 640).astype(np.float32)], [values])
    only_speed = PerturbConfig(speed=speed, colour=0, noise=0)
    wave, labels = tape.crop(60, np.random.default_rng(seed), only_speed)
    assert wave.shape == (60 * 640 + 80,)
    middles = wave[640 * np.arange(60) + 360]
    heard = 256 * middles * (labels[0] / (256 * middles[0]))  # the gain is one number
    assert np.abs(heard - labels).max() <= 1.01 + 0.03 * labels.max()
    assert np.unique(labels).size > 30


def test_perturbation_depends_on_its_generator_alone() -> None:
    tape = Tape.of([speech(1, 20.0)], [np.arange(499)])
    strong = PerturbConfig(noise=1.0)
    once, again, other = (tape.crop(100, np.random.default_rng(seed), strong) for seed in (1, 1, 2))
    assert np.array_equal(once[0], again[0])
    assert np.array_equal(once[1], again[1])
    assert not np.array_equal(once[0], other[0])
    assert once[0].dtype == np.float32
    assert np.isfinite(once[0]).all()


def test_labels_do_not_hear_the_mean_of_the_clip(tmp_path: Path) -> None:
    wave = speech(3, 2.0)
    for normalize in (True, False):
        config = CONFIG.hubert.model_copy(update={"normalize_labels": normalize})
        fitted = fit_hubert._Fit(config, [wave], tmp_path, lambda *_: None, Ranks(), "cpu")
        (frames,) = fitted._features([wave], None)
        expected = mfcc_25hz(torch.from_numpy(wave))
        np.testing.assert_allclose(frames, expected - normalize * expected.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize(("name", "asked", "layer"), [("hubert", 2, 2), ("ctranslate2", None, 3)])
def test_a_given_encoder_is_the_teacher_of_the_first_iteration(
    audio: pa.Table, models: dict[str, Path], tmp_path: Path, name: str, asked: int | None, layer: int
) -> None:
    teacher, wave = write(name, tmp_path / "teacher"), speech(3, 2.0)
    config = CONFIG.hubert.model_copy(update={"labels_layer": asked})
    fitted = fit_hubert._Fit(config, [wave], tmp_path / "work", lambda *_: None, Ranks(), "cpu", teacher)
    (frames,), (expected,) = fitted._features([wave], None), layer_frames(load_encoder(teacher, layer), [wave], layer)
    np.testing.assert_allclose(frames, expected - expected.mean(axis=0), atol=1e-5)
    (later,) = fitted._features([wave], MaskedPrediction(config, 8))
    assert later.shape[1] == config.hidden_size, "later iterations are taught by the model itself"

    with pytest.raises(KilledError):
        fit(audio, tmp_path / "killed", kill_at=0.6, config=config, teacher=teacher)
    resumed = fit(audio, tmp_path / "killed", config=config, teacher=teacher)
    assert same(resumed, fit(audio, tmp_path / "whole", config=config, teacher=teacher))
    assert not same(resumed, load_file(models["hubert"] / "model.safetensors"))


def test_a_layer_that_the_teacher_lacks_is_named(audio: pa.Table, tmp_path: Path) -> None:
    teacher = write("hubert", tmp_path / "teacher")
    with pytest.raises(RecipeError, match=r"units\.hubert\.labels_layer is 9, but the encoder has 4"):
        fit(audio, tmp_path, config=CONFIG.hubert.model_copy(update={"labels_layer": 9}), teacher=teacher)


@pytest.mark.parametrize(("size", "parameters"), [("tiny", 2.3e6), ("small", 6e6), ("base", 95e6)])
def test_sizes(size: str, parameters: float) -> None:
    from spiritlm_core.speech.pretraining.masked_prediction import hubert_config

    config = HubertConfig.model_validate({"size": size})
    with torch.device("meta"):
        model = HubertModel(hubert_config(config))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.12)
    wider = HubertConfig.model_validate({"size": size, "hidden_size": 1536})
    assert wider.hidden_size == 1536
    assert wider.layers == config.layers
    assert HubertConfig.model_validate(config.model_dump()) == config


def test_unknown_size_and_bad_layer_are_refused() -> None:
    with pytest.raises(ValueError, match="'tiny', 'small' or 'base'"):
        HubertConfig.model_validate({"size": "huge"})
    with pytest.raises(ValueError, match="cluster_layer 5 is above the last of 4"):
        HubertConfig(cluster_layer=5)
