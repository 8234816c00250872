"""Flite itself, out of Debian's packages where the machine has none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.audio.voices.spoken import speak
from spiritlm_core.errors import Rejection, SourceError, SpiritLMError
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.intake.speak import flite
from spiritlm_core.intake.speak.utterance import Utterance, parse_utterance

RULES = {"kind": "grammar", "grammar": "public <a> = press <0..9999>;"}


def _source(**settings: object) -> SpeakSource:
    voices = [{"engine": "espeak"}, {"engine": "flite", "optional": True}]
    return SpeakSource.model_validate({"utterances": 40, "texts": [RULES], "voices": voices, **settings})


@pytest.mark.parametrize("voice", flite.PITCH)
def test_the_real_engine_says_the_same_again_and_heeds_what_is_drawn(voice: str) -> None:
    def said(**settings: str) -> np.ndarray:
        waveform, words = speak(Utterance("flite", voice, "Hello! Press 4, please.", settings))
        assert not words  # they are aligned
        return waveform

    plain = said(duration_stretch="1", int_f0_target_mean="120")
    assert np.array_equal(plain, said(duration_stretch="1", int_f0_target_mean="120"))
    assert 1.0 < len(plain) / 16_000 < 4.0
    assert len(said(duration_stretch="1.3")) > 1.2 * len(said(duration_stretch="0.9"))
    assert np.array_equal(plain, said(duration_stretch="1", int_f0_target_mean="150")) == (flite.PITCH[voice] is None)


def test_what_the_real_engine_cannot_say_is_rejected() -> None:
    with pytest.raises(Rejection, match="nothing is heard"):
        speak(Utterance("flite", "slt", "...", {}))
    with pytest.raises(SpiritLMError, match=r"no voice 'zz', but awb.*slt"):
        speak(Utterance("flite", "zz", "one", {}))


def test_voices_speed_and_pitch_are_drawn_of_each_text() -> None:
    drafts = list(_source(voices=[{"engine": "flite"}], utterances=60).drafts())
    assert {draft.speaker for draft in drafts} == {"flite:slt", "flite:rms", "flite:awb", "flite:kal16"}
    assert all(("int_f0_target_mean" in draft.uri) == (draft.speaker != "flite:rms") for draft in drafts)
    with pytest.raises(SourceError, match="flite speaks English, not fr"):
        next(
            _source(
                voices=[{"engine": "flite"}], language="fr", texts=[RULES | {"grammar": "public <a> = un;"}]
            ).drafts()
        )


def test_another_version_of_the_program_is_another_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drafts(version: str) -> list[str]:
        program = tmp_path / version / "flite"
        program.parent.mkdir()
        program.write_text(
            f"#!/bin/sh\necho version: flite-{version} of today\necho Voices available: slt rms awb kal16\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        return [draft.uri for draft in _source(voices=[{"engine": "flite"}]).drafts()]

    old, new = drafts("2.1"), drafts("2.2")
    assert [uri.replace("version=2.1", "version=2.2") for uri in old] == new
    assert parse_utterance(old[0]).digest != parse_utterance(new[0]).digest
    with pytest.raises(SpiritLMError, match=r"is to be said by Flite 2.1, and this machine has Flite 2.2"):
        speak(old[0])
