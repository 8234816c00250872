"""Fitting a vocoder: what it learns, that it goes on where it was, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from spiritlm_core.errors import RecipeError, SpiritLMError
from spiritlm_core.fit.checkpoints import Checkpoint
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lake.schema import table_of
from spiritlm_core.speech.fits import VocoderFit
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.stage import UNITS
from spiritlm_core.speech.vocoder.fit_config import SIZES, VocoderFitConfig
from spiritlm_core.speech.vocoder.generators import fold_weight_norm, normalise_weights
from spiritlm_core.speech.vocoder.losses import MelDistance
from spiritlm_core.speech.vocoder.model import start_from_centres
from spiritlm_core.speech.vocoder.tape import read_tape
from spiritlm_core.speech.vocoder.training import Batch, Training
from spiritlm_core.speech.vocoder.vocoder import Vocoder
from spiritlm_core.tokens.speech import Streams
from tests.vocoder.fitting import TINY, TONES, build, config, corpus, quantizer, silent, views


def test_units_get_their_sounds_and_their_durations(tmp_path: Path) -> None:
    fit = TINY.model_copy(update={"steps": 150, "adversarial_from": 145, "batch_crops": 4, "learning_rate": 1e-2})
    summary = build(tmp_path, config(fit), corpus())
    assert summary["last"]["mel"] < 0.7 * summary["first"]["mel"]
    vocoder, tape = Vocoder.load(tmp_path / "out", "cpu"), read_tape(*views(corpus()).values(), config(fit))[0]
    assert np.abs(vocoder.durations(tape.runs) - tape.lasting).mean() < 0.1
    said, wanted = tape.streams["units"], torch.from_numpy(tape.crop(0, tape.frames)[0])[None]
    own, other = (
        MelDistance()(
            torch.from_numpy(vocoder.decode(Streams(units, None, None), predict_durations=False))[None], wanted
        )
        for units in (said, (said + 1) % len(TONES))
    )
    assert own < 0.6 * other


def test_bf16_fits_as_float32_does(tmp_path: Path) -> None:
    """Also the discriminators, which take part in the last steps."""
    found = {}
    for precision in ("auto", "fp32", "bf16"):
        mine = config(TINY.model_copy(update={"precision": precision}))
        found[precision] = build(tmp_path / precision, mine, corpus())["last"]
    assert found["auto"] == found["fp32"] != found["bf16"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.05)


def test_a_killed_fit_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spiritlm_core.fit.steps.CHECKPOINT_EVERY", 2)
    build(tmp_path / "whole", config(), corpus())

    def killed(fraction: float, message: str) -> None:
        if "step" in message:
            raise KeyboardInterrupt

    monkeypatch.setattr("spiritlm_core.fit.steps.REPORT_EVERY", 5)
    folder = tmp_path / "parts"
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        VocoderFit(config(), {}).build(views(corpus()), folder / "out", folder / "work", killed)
    state = Checkpoint(folder / "work/vocoder.pt").load()
    assert state is not None
    assert len(state["history"]) == 4
    last = max((folder / "work").glob("vocoder-*.pt"))
    last.write_bytes(last.read_bytes()[:-1])  # damaged by the kill: the one before it serves
    build(folder, config(), corpus())
    one, other = (Path(tmp_path / name / "out/model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == other
    curves = json.loads((folder / "out/losses.json").read_text())
    assert len(curves["mel"]) == 6
    assert curves["discriminator"][:3] == [0, 0, 0]
    assert min(curves["discriminator"][3:]) > 0


def spaces(rows: torch.Tensor) -> torch.Tensor:
    """Distances between rows, as shares of the largest."""
    distances = torch.cdist(rows.double(), rows.double())
    return distances / distances.max()


def test_units_start_where_the_centres_lie(tmp_path: Path) -> None:
    centres = np.random.default_rng(0).normal(3, 5, (4, 6)).astype(np.float32)  # four points span three axes
    folder, drawn = quantizer(tmp_path / "quantizer", centres), torch.randn(5, 16)
    table = drawn.clone()
    start_from_centres(table, folder)
    assert torch.allclose(spaces(table[:4]), spaces(torch.from_numpy(centres)), atol=1e-5)
    assert torch.equal(table[4], drawn[4])  # a unit that the quantizer lacks
    narrow = torch.zeros(4, 2)
    start_from_centres(narrow, folder)
    assert float(narrow.std(dim=0)[0]) > float(narrow.std(dim=0)[1]) > 0

    fit = TINY.model_copy(update={"unit_init": "centres", "steps": 1, "learning_rate": 1e-9})
    build(tmp_path, config(fit), corpus(), quantizer=folder)
    fitted = Vocoder.load(tmp_path / "out", "cpu").model.embeddings["units"].weight.detach()
    assert torch.allclose(fitted, table[:4], atol=1e-6)
    with pytest.raises(SpiritLMError, match="needs the quantizer of the units: give its folder in that role"):
        build(tmp_path, config(fit), corpus())


def test_voices_have_names_and_the_usual_one_speaks_most(tmp_path: Path) -> None:
    build(tmp_path, config(pitch=3, style=3), corpus(("bob", None, "bob")))
    vocoder = Vocoder.load(tmp_path / "out", "cpu")
    assert vocoder.config.speaker_names == ("bob", "unknown")
    assert vocoder.config.embeddings == {"units": 4, "pitch": 3, "style": 3, "speaker": 2}
    assert vocoder.config.usual_styles == (0, 1, 2)
    units = Streams(np.array([0, 1, 2]), np.array([1, 1, 2]), np.array([0, 0, 0]))
    usual, *same = (vocoder.decode(units, speaker=voice) for voice in (None, "bob", 0, "0"))
    assert all(np.array_equal(usual, one) for one in same)
    assert not np.array_equal(usual, vocoder.decode(units, speaker="unknown"))
    with pytest.raises(SpiritLMError, match="no speaker 'eve': bob, unknown"):
        vocoder.decode(units, speaker="eve")


def test_one_voice_for_all_and_units_alone() -> None:
    fit = TINY.model_copy(update={"speakers": False, "streams": ()})
    tape, architecture = read_tape(*views(corpus()).values(), config(fit, pitch=3, style=3))
    assert architecture.embeddings == {"units": 4}
    assert set(tape.streams) == {"units"}
    assert tape.frames == 150
    assert int(tape.lasting.sum()) == 150


def hertz(samples: np.ndarray) -> float:
    """Of a tone, by its zero crossings."""
    return float(np.diff(np.signbit(samples)).sum() / 2 / (len(samples) / 16_000))


def listen(waveforms: list[np.ndarray]) -> list[np.ndarray]:
    """The unit that sounds in the middle of each whole frame."""
    middles = [waveform[: len(waveform) // FRAME * FRAME].reshape(-1, FRAME)[:, 120:520] for waveform in waveforms]
    return [np.array([np.abs(np.asarray(TONES) - hertz(one)).argmin() for one in frames]) for frames in middles]


@pytest.mark.parametrize("shifts", [1, 4])
def test_frames_of_the_tape_are_those_of_their_units(shifts: int) -> None:
    fit = TINY.model_copy(update={"shifts": shifts})
    tape, _ = read_tape(*views(corpus()).values(), config(fit, pitch=3, style=3), listen if shifts > 1 else None)
    assert tape.frames == 150 + (shifts - 1) * 147
    for frame in range(0, tape.frames, 7):
        samples, streams = tape.crop(frame, 1)
        assert listen([samples])[0].tolist() == streams["units"].tolist()
        assert streams["pitch"][0] == streams["style"][0]


def test_crops_do_not_depend_on_the_number_of_processes() -> None:
    tape, _ = read_tape(*views(corpus()).values(), config())
    fit, device = TINY.model_copy(update={"batch_crops": 5}), torch.device("cpu")
    whole = Batch(tape, fit, 3, Ranks(), device)
    parts = [Batch(tape, fit, 3, Ranks(rank, 2), device) for rank in range(2)]
    assert sum(part.share for part in parts) == pytest.approx(1)
    for rank, part in enumerate(parts):
        assert torch.equal(whole.waveforms[rank::2], part.waveforms)
        assert torch.equal(whole.streams["speaker"][rank::2], part.streams["speaker"])
        assert torch.equal(whole.runs[rank::2], part.runs)


def test_weight_norm_is_folded_in(tmp_path: Path) -> None:
    small = {"kind": "hifigan", "channels": 32, "block_kernels": (3,), "block_dilations": ((1,),)}
    fit = VocoderFitConfig.model_validate({**TINY.model_dump(), "generator": small})
    build(tmp_path, config(fit), corpus())
    vocoder = Vocoder.load(tmp_path / "out", "cpu")
    units = Streams(np.array([0, 1, 2]), None, None)
    before = vocoder.decode(units)
    normalise_weights(vocoder.model.generator)
    assert any("original0" in name for name, _ in vocoder.model.named_parameters())
    assert np.abs(vocoder.decode(units) - before).max() < 1e-5
    fold_weight_norm(vocoder.model.generator)
    assert np.abs(vocoder.decode(units) - before).max() < 1e-5


def test_mel_distance() -> None:
    distance, time = MelDistance(), torch.arange(8000) / 16_000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * time)[None]
    assert float(distance(tone, tone)) == 0
    near, far = (0.3 * torch.sin(2 * torch.pi * hertz * time)[None] for hertz in (450, 900))
    assert 0 < float(distance(near, tone)) < float(distance(far, tone)) / 2
    assert float(distance(tone / 2, tone)) == pytest.approx(0.4, abs=0.35)


def test_what_cannot_be_fitted(tmp_path: Path) -> None:
    no_units = {**corpus(), "units": table_of([], UNITS)}
    with pytest.raises(SpiritLMError, match="no train utterance has units"):
        build(tmp_path, config(), no_units)
    with pytest.raises(SpiritLMError, match=r"5 frames of train speech, less than vocoder.crop_frames 8"):
        build(tmp_path, config(), corpus(("anna",), 5))
    tape, architecture = read_tape(*views(corpus()).values(), config())
    from spiritlm_core.speech.vocoder.model import VocoderModel

    with pytest.raises(RecipeError, match="batch_crops is 2, too few for 3 processes"):
        Training(TINY, tape, VocoderModel(architecture), Ranks(0, 3))
    training = Training(TINY, tape, VocoderModel(architecture), Ranks())
    torch.nn.init.constant_(training.model.durations.last.bias, float("nan"))
    with pytest.raises(SpiritLMError, match=r"not finite in step 1: lower vocoder.learning_rate"):
        training.run(tmp_path / "state", silent)


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("kind", ["istft", "hifigan"])
def test_sizes(size: str, kind: str) -> None:
    fit = VocoderFitConfig.model_validate({"size": size, "generator": {"kind": kind}})
    assert fit.generator.kind == kind
    assert VocoderFitConfig.model_validate(fit.model_dump()) == fit
    assert fit.architecture({"hubert": 500, "pitch": 64, "style": 100}, ("a", "b"), 1).inputs == 4 * fit.embedding


def test_settings_that_cannot_be() -> None:
    for bad in ({"size": "huge"}, {"generator": {"kind": "wavenet"}}, {"generator": {"hop": 7}}, {"step": 3}):
        with pytest.raises(ValidationError):
            VocoderFitConfig.model_validate(bad)
