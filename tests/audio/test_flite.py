"""Flite itself, out of Debian's packages where the machine has none; and what a run does that cannot have it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flows.graphs.speech_lm import notes, speech_lm
from flows.recipes import load_recipe
from spiritlm_core.audio.config import AudioConfig, SyntheticAudioConfig
from spiritlm_core.audio.stage import split_of
from spiritlm_core.audio.voices.spoken import speak
from spiritlm_core.errors import Rejection, SourceError, SpiritLMError
from spiritlm_core.intake.optional import SYNTHETIC, is_synthetic, lacking, settled
from spiritlm_core.intake.recordings import collect
from spiritlm_core.intake.sources.folder import FolderSource
from spiritlm_core.intake.sources.prompts import PromptsSource
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.intake.speak import flite
from spiritlm_core.intake.speak.utterance import Utterance
from spiritlm_core.intake.statcache import StatCache

PROMPTS = PromptsSource(optional=True)
RULES = {"kind": "grammar", "grammar": "public <a> = press <0..9999>;"}


def _source(**settings: object) -> SpeakSource:
    voices = [{"engine": "espeak"}, {"engine": "flite", "optional": True}]
    return SpeakSource.model_validate({"utterances": 40, "texts": [RULES], "voices": voices, **settings})


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Flite, without apt-get and with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


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


def test_an_optional_entry_that_is_there_changes_nothing() -> None:
    (kept,) = settled([_source()])
    assert isinstance(kept, SpeakSource)
    wanted = _source(voices=[{"engine": "espeak"}, {"engine": "flite"}])
    assert [draft.uri for draft in kept.drafts()] == [draft.uri for draft in wanted.drafts()]
    assert lacking([kept, FolderSource(path="x")]) == []


def test_without_flite_the_others_say_what_it_would(nowhere: Path) -> None:
    with pytest.raises(SourceError, match=r"engine flite.*on the PATH.*apt-get is not on this machine"):
        next(_source(voices=[{"engine": "flite"}]).drafts())
    found = settled([FolderSource(path="x"), _source()])
    (line,) = lacking(found)
    assert line.startswith("the voices of flite could not be had")
    assert settled(found) == found
    alone = _source(voices=[{"engine": "espeak"}])
    assert isinstance(found[1], SpeakSource)
    assert [draft.uri for draft in found[1].drafts()] == [draft.uri for draft in alone.drafts()]
    with pytest.raises(SourceError, match="there is no other voice"):
        settled([_source(voices=[{"engine": "flite", "optional": True}])])


def test_without_prompts_all_is_synthetic_and_a_share_of_it_held_out(nowhere: Path) -> None:
    with pytest.raises(SourceError, match="prompts:en is optional and could not be had, and there is nothing else"):
        settled([PROMPTS])
    with pytest.raises(SourceError, match="apt-get is not on this machine"):
        list(PromptsSource().drafts())
    wanted = _source(utterances=200, texts=[RULES, {"kind": "transcripts", "weight": 2}])
    sources = [source.model_dump(mode="json") for source in (PROMPTS, wanted)]
    recipe = load_recipe("quickstart", [], [f"sources={json.dumps(sources)}"])
    assert is_synthetic(recipe.sources)
    told = notes(recipe)
    assert [line.split(" could not")[0] for line in told[:2]] == ["prompts:en", "the voices of flite"]
    assert told[2] == SYNTHETIC
    graph = speech_lm(recipe)
    assert SYNTHETIC in graph.nodes["evaluation"].models["lineage"]({})["note"]
    config = graph.nodes["audio"].config
    assert isinstance(config, SyntheticAudioConfig)
    items = collect(recipe.sources, "en", StatCache())
    assert len(items) == 200
    sides = {item.text: split_of(vars(item), config) for item in items}
    assert all(split_of(vars(item), config) == sides[item.text] for item in items)  # in whatever voice
    assert 5 < list(sides.values()).count("held_out") < 40
    assert {split_of(vars(item), AudioConfig()) for item in items} == {"train"}


def test_a_recipe_with_recorded_speech_holds_out_that_alone(tmp_path: Path) -> None:
    sources = [{"kind": "folder", "path": str(tmp_path)}, {"kind": "speak", "utterances": 3}]
    recipe = load_recipe("quickstart", [], [f"sources={json.dumps(sources)}"])
    assert (notes(recipe), speech_lm(recipe).nodes["audio"].config) == ([], recipe.audio)
