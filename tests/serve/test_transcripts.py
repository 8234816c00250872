"""Times of words in transcripts, and subtitles of a line each."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spiritlm_core.align.ctc import CTCAligner, CTCShape
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.lm.generate.content import Answer, TextSegment
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import ServeConfig
from spiritlm_core.serve.openai.transcripts import Transcript, WordTimes
from spiritlm_core.serve.routes import create_app
from tests.serve.limits import HOME, LIMITS
from tests.support.small_model import sound


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learned nothing: it puts words in their order somewhere."""
    pytest.importorskip("whisperx")
    folder = tmp_path_factory.mktemp("aligner")
    characters = ("<pad>", "|", *string.ascii_lowercase)
    CTCAligner(CTCShape(language="en", characters=characters, channels=8, layers=2)).save(folder)
    return folder


def transcript(words: list[tuple[str, float, float]]) -> Transcript:
    text = " ".join(word for word, _, _ in words)
    timed = [{"word": word, "start": start, "end": end} for word, start, end in words]
    return Transcript(Answer((TextSegment(text),), (1,), (2,), "eos"), 60.0, timed)


def test_a_subtitle_is_a_line_and_ends_at_a_pause() -> None:
    words = [("one", 0.0, 0.4), ("two", 0.5, 0.9), ("three", 2.0, 2.5)]
    cues = [(cue["word"], cue["start"], cue["end"]) for cue in transcript(words).cues()]
    assert cues == [("one two", 0.0, 0.9), ("three", 2.0, 2.5)]
    many = transcript([("word", i * 0.3, i * 0.3 + 0.3) for i in range(40)]).cues()
    assert max(len(cue["word"]) for cue in many) == len(" ".join(["word"] * 8))
    assert " ".join(cue["word"] for cue in many) == " ".join(["word"] * 40)


def test_words_have_times_within_the_recording(aligner: Path) -> None:
    words = WordTimes(aligner).of(np.asarray(sound("low", 1, 2.0)), "Press one, now.", "en")
    assert words is not None
    assert [word["word"] for word in words] == ["Press", "one,", "now."]
    edges = [edge for word in words for edge in (word["start"], word["end"])]
    assert edges == sorted(edges)
    assert 0 <= edges[0] <= edges[-1] <= 2.0
    assert WordTimes(aligner).of(np.zeros(1000, np.float32), "far too many words for so little", "en") is None


def test_verbose_json_has_words_where_an_aligner_is(engine: Engine, aligner: Path, clip: bytes) -> None:
    config = LIMITS.model_copy(update={"aligner": aligner})
    form = {"model": "speaking", "response_format": "verbose_json", "timestamp_granularities[]": "word"}
    with TestClient(create_app(engine, config), HOME) as client:
        found = client.post("/v1/audio/transcriptions", data=form, files={"file": clip}).json()
    assert " ".join(word["word"] for word in found["words"]) == " ".join(found["text"].split())


def test_what_is_no_aligner_is_said_before_models_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelReferenceError, match="is no folder of an aligner"):
        ServeConfig.of_options(aligner=tmp_path)
