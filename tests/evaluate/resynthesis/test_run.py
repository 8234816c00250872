"""Recordings to units and back, judged from end to end."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.cli.app import app
from spiritlm_core.errors import SourceError, SpiritLMError
from spiritlm_core.evaluate.config import ResynthesisStageConfig
from spiritlm_core.evaluate.rendering import MISSING
from spiritlm_core.evaluate.resynthesis.figures import page, table
from spiritlm_core.evaluate.resynthesis.run import Judges, evaluate_resynthesis
from spiritlm_core.evaluate.resynthesis.stage import ResynthesisStage, draw_clips, list_clips, train_clips
from spiritlm_core.evaluate.resynthesis.systems import (
    INVERSION,
    ORIGINAL,
    MelInverter,
    System,
    UnitMeans,
    references,
    tokenizer_systems,
)
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.evaluate.clips import real_clips, rows_of_clips
from tests.vocoder.models import build

SETTINGS = ResynthesisStageConfig(
    clips=3, players=2, bootstrap_samples=100, griffin_lim_iterations=8, train_minutes=0.2
)


class Parrot:
    """A recogniser that hears the length of a waveform."""

    def hear(self, waveform, language):
        return f"{len(waveform)} samples"


def _figures(report, name):
    return next(result["figures"] for result in report["systems"] if result["name"] == name)


def test_lengths_and_text_are_held_against_the_recording():
    clips = [replace(clip, text=f"{len(clip.waveform)} samples") for clip in real_clips(2)]
    shorter = System("shorter", "", False, lambda clip: clip.waveform[: len(clip.waveform) * 9 // 10])
    systems = [*references(MelInverter(8)), shorter]
    report = evaluate_resynthesis(clips, systems, SETTINGS, Judges(recogniser=Parrot())).report
    original, cut = _figures(report, ORIGINAL), _figures(report, "shorter")
    assert (original["wer"], original["mcd"], original["f0_cents"], original["duration_error"]) == (0, 0, 0, 0)
    assert cut["wer"] == 0.5
    assert cut["duration_error"] == pytest.approx(0.1, abs=1e-3)
    assert cut["duration_seconds"] == pytest.approx(0.1 * np.mean([clip.seconds for clip in clips]), abs=1e-3)
    assert cut["mcd_in_place"] is None
    assert 0 < _figures(report, INVERSION)["mcd"] < 8
    assert report["systems"][2]["minus_original"]["wer"] == 0.5


def test_clips_without_transcript_have_no_word_errors_and_the_reason_is_given():
    clips = [replace(clip, text=None) for clip in real_clips(1)]
    report = evaluate_resynthesis(clips, references(MelInverter(2)), SETTINGS, Judges(recogniser=Parrot())).report
    assert _figures(report, ORIGINAL)["wer"] is None
    assert report["missing"] == {"recogniser": "2 clips: no transcript"}
    assert "WER, CER: 2 clips: no transcript." in table(report).markdown()


def test_griffin_lim_keeps_the_spectrum():
    inverter, waveform = MelInverter(16), real_clips(1)[0].waveform
    mel = inverter.log_mel(waveform)
    again = inverter.log_mel(inverter.waveform(mel, len(waveform)))
    loud = mel > mel.max() - 5
    assert np.abs(again - mel)[loud].mean() < 0.35
    assert np.array_equal(inverter.waveform(mel, len(waveform)), inverter.waveform(mel, len(waveform)))


def test_a_unit_sounds_like_its_mean():
    inverter = MelInverter(8)
    rng = np.random.default_rng(0)
    quiet, loud = (level * rng.normal(size=6400).astype(np.float32) for level in (0.01, 0.1))
    means = UnitMeans(inverter, [(np.full(10, 3), quiet), (np.full(10, 7), loud)])
    assert set(means.means) == {3, 7}
    assert np.mean(means.means[7] - means.means[3]) == pytest.approx(np.log(10), abs=0.2)
    sound = means.waveform(np.array([3] * 10 + [7] * 10 + [99]))
    assert len(sound) == 640 * 21
    assert 5 < sound[7000:12000].std() / sound[:6000].std() < 20


def test_the_stage_judges_both_ways_of_timing(models, tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("spiritlm_core.cores.core_share", lambda: 1)
    audio = TableView.of(table_of(rows_of_clips(), AUDIO))
    roles = {**models, "vocoder": tokenizer_folder / "vocoder", "candidate.<other>": tokenizer_folder}
    told = []
    out = tmp_path / "out"
    out.mkdir()
    settings = SETTINGS.model_copy(update={"clips": 1, "players": 1})
    summary = ResynthesisStage(settings, roles).build({"audio": audio}, out, tmp_path, lambda *args: told.append(args))
    assert sorted(path.name for path in out.iterdir()) == ["resynthesis.html", "resynthesis.json", "resynthesis.md"]
    report = json.loads((out / "resynthesis.json").read_text())
    ways = ("unit means", "timing kept", "predicted")
    names = [ORIGINAL, INVERSION, *(f"{of}, {way}" for of in ("recipe", "<other>") for way in ways)]
    assert [result["name"] for result in report["systems"]] == names == list(summary["systems"])
    # from two loads of one model: the same figures
    assert _figures(report, "recipe, timing kept") == _figures(report, "<other>, timing kept")
    assert (
        _figures(report, "recipe, timing kept")["duration_error"] < 0.05 < _figures(report, names[4])["duration_error"]
    )
    assert {row["clip"] for row in report["systems"][0]["clips"]} <= {r["utterance_id"] for r in rows_of_clips()[::2]}
    assert report["missing"] == {"recogniser": "no model given", "speakers": "no model given"}
    assert all(row[1] == MISSING for row in table(report).rows[1:])
    shown = (out / "resynthesis.html").read_text()
    assert len(re.findall(r'<audio [^>]*src="data:audio/flac;base64,', shown)) == len(names)
    assert "<other>" not in shown
    assert not re.search(r"(?:src|href)=\"(?!data:)", shown)
    assert all(0 <= args[0] <= 1 for args in told)


def test_nothing_to_judge_is_said(models, tokenizer_folder):
    only_train = TableView.of(table_of(rows_of_clips(split="train"), AUDIO))
    with pytest.raises(SpiritLMError, match="is held out"):
        ResynthesisStage(SETTINGS, models).build({"audio": only_train}, tokenizer_folder, tokenizer_folder, print)
    voiceless = SpeechTokenizer(SpeechTokenizer.from_pretrained(tokenizer_folder)._extractor)
    with pytest.raises(SpiritLMError, match="has no vocoder"):
        list(tokenizer_systems("ours", voiceless))


def test_a_speaker_the_vocoder_knows_keeps_the_voice(tokenizer_folder):
    loaded = SpeechTokenizer.from_pretrained(tokenizer_folder)
    clip = replace(real_clips(1)[0], speaker="anna")
    vocoder = build(loaded.vocoder.config.model_copy(update={"speaker_names": ("carl", "berta", "anna")}))
    systems = list(tokenizer_systems("ours", SpeechTokenizer(loaded._extractor, vocoder)))
    kept = systems[0].render(clip)
    units = loaded.encode(clip.waveform, speaker="anna")
    assert np.array_equal(kept, vocoder.decode(units, speaker=2, predict_durations=False))
    assert not np.array_equal(kept, systems[0].render(replace(clip, speaker="somebody")))


@pytest.fixture
def folder(tmp_path):
    """Four recordings with transcripts, one without, one too short, one that is no audio."""
    clips = real_clips(4)
    for number, clip in enumerate([*clips[:5], replace(clips[5], waveform=clips[5].waveform[:800])]):
        soundfile.write(tmp_path / f"{number}.wav", clip.waveform, 16_000)
        if number != 2:
            (tmp_path / f"{number}.txt").write_text(clip.text)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    return tmp_path


def test_clips_with_transcripts_come_first_and_train_clips_are_others(folder):
    items = list_clips(str(folder), "en")
    judged = draw_clips(items, SETTINGS)
    assert len(judged) == 3
    assert all(clip.text for clip in judged)
    assert [clip.key for clip in draw_clips(items[::-1], SETTINGS)] == [clip.key for clip in judged]
    train = list(train_clips(items, judged, SETTINGS))
    assert train
    assert not {clip.key for clip in train} & {clip.key for clip in judged}
    assert len(draw_clips(items, SETTINGS.model_copy(update={"clips": 9}))) == 5
    with pytest.raises(SourceError, match="no recording is 90 to 100 s long"):
        draw_clips(items, SETTINGS.model_copy(update={"min_seconds": 90, "max_seconds": 100}))


def test_the_command(folder, tokenizer_folder, capfd, monkeypatch):
    nobody = Judges(missing={"recogniser": "there is nobody", "speakers": "there is nobody"})
    monkeypatch.setattr(Judges, "fetch", lambda _: nobody)
    out, source = folder / "report", str(folder)
    given = ["evaluate", "resynthesis", "--clips", source, "--model", f"ours={tokenizer_folder}"]
    given += ["--limit", "2", "--out", str(out)]
    done = CliRunner().invoke(app, [*given, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads(done.stdout or capfd.readouterr().out)
    names = [ORIGINAL, INVERSION, "ours, timing kept", "ours, predicted"]
    assert [result["name"] for result in report["systems"]] == names
    assert report["missing"] == nobody.missing
    assert report.pop("seconds") > 0
    assert json.loads((out / "resynthesis.json").read_text()) == report
    with pytest.raises(SpiritLMError, match="either a RECIPE, or recordings"):
        CliRunner().invoke(app, ["evaluate", "resynthesis"], catch_exceptions=False)
    with pytest.raises(SpiritLMError, match="go with a RECIPE"):
        CliRunner().invoke(app, [*given, "--set", "lm.steps=1"], catch_exceptions=False)
    wrong = {"--model": "gone", "--out": str(folder / "0.wav")}
    for option, value in wrong.items():
        with pytest.raises(SpiritLMError, match="is not a folder"):
            CliRunner().invoke(app, [*given[:4], option, value], catch_exceptions=False)
    with pytest.raises(SpiritLMError, match="there is no file or folder"):
        CliRunner().invoke(app, [*given[:4], "--recogniser", "gone"], catch_exceptions=False)
    with pytest.raises(SpiritLMError, match="NAME=FOLDER"):
        CliRunner().invoke(app, [*given, "--model", f"ours={tokenizer_folder}"], catch_exceptions=False)


def test_judges_that_cannot_be_had_are_named():
    settings = SETTINGS.model_copy(update={"recogniser": "file:///gone/ear", "speaker_encoder": "file:///gone/voice"})
    found = Judges.fetch(settings)
    assert (found.recogniser, found.speakers) == (None, None)
    assert {role: reason.split()[0] for role, reason in found.missing.items()} == {
        "recogniser": "file:///gone/ear:", "speakers": "file:///gone/voice:"
    }  # fmt: skip


def test_a_vocoder_that_is_damaged_is_one_message():
    broken = System("broken", "", True, lambda clip: clip.waveform * np.float32(np.nan))
    with pytest.raises(SpiritLMError, match=r"broken renders clip .* with samples that are not finite"):
        evaluate_resynthesis(real_clips(1)[:1], [broken], SETTINGS, Judges())


def test_a_transcript_is_no_markup(folder):
    clips = [replace(clip, text="<script>alert(1)</script>") for clip in real_clips(1)]
    found = evaluate_resynthesis(clips, references(MelInverter(2)), SETTINGS, Judges())
    assert "<script>" not in page(found.report, found.sounds)
