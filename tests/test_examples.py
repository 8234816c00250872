"""The programs of `examples/` do what they say, on a small model that hears and speaks."""

from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav, to_int16
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.lm.generate.presets import ask
from tests.support.small_model import LABELS, sound

EXAMPLES = Path(__file__).parents[1] / "examples"


def ran(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def recordings(folder: Path, each: int) -> Path:
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for seed in range(each):
            (folder / label / f"{seed}.wav").write_bytes(encode_wav(sound(label, seed)))
    return folder


def test_every_recording_of_a_folder_gets_its_text(speaking: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = recordings(tmp_path / "talks", 1)
    (folder / "low/broken.wav").write_bytes(b"RIFF")
    ran(monkeypatch, "transcribe_folder", speaking, folder)
    seen = capsys.readouterr()
    assert "broken.wav" in seen.err
    (expected,) = ask(SpiritLM.from_pretrained(speaking), "asr", [folder / "low/0.wav"], max_new_tokens=200)
    assert (folder / "low/0.txt").read_text().rstrip("\n") == expected.text
    assert len(seen.out.splitlines()) == len(LABELS)


def test_a_question_is_answered_by_voice(speaking: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    question, answer = tmp_path / "question.wav", tmp_path / "answer.wav"
    question.write_bytes(encode_wav(sound("low", 1)))
    ran(monkeypatch, "answer_by_voice", speaking, question, answer)
    assert capsys.readouterr().out.strip()
    assert abs(as_waveform(answer)).max() > 0.01


def test_captions_end_where_somebody_pauses(speaking: Path, monkeypatch, capsys) -> None:
    quiet = np.zeros(16_000, np.float32)
    spoken = np.concatenate([sound("low", 1, 1.0), quiet, sound("high", 2, 1.0), quiet, sound("low", 3, 0.5)])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(to_int16(spoken).astype("<i2").tobytes())))
    ran(monkeypatch, "live_captions", speaking)
    shown = capsys.readouterr().out
    assert shown.count("\n") == 3
    assert shown.count("\r") > 5, "captions come while somebody speaks"


@pytest.mark.integration
@pytest.mark.slow
def test_a_classifier_of_ones_own(speaking: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    settings = (
        "lm.steps=60", "lm.tokens_per_step=512", "tokens.context_length=64", "lm.validate_every=20",
        "lm.optimizer.learning_rate=1e-2", "lm.optimizer.warmup_steps=5", "data.split.held_out_share=0.25",
    )  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    folder = recordings(tmp_path / "sounds", 12)
    ran(monkeypatch, "own_classifier", speaking, folder, tmp_path / "mine", *options, "--lake", tmp_path / "lake")
    told = [line.split("\t") for line in capfd.readouterr().out.splitlines() if line.startswith(str(folder))]
    assert len(told) == 36
    assert {label for _, label in told} <= set(LABELS)
    measures = json.loads((tmp_path / "mine/finetune-metrics.json").read_text())
    assert measures["after"]["loss"] < measures["before"]["loss"] / 4
