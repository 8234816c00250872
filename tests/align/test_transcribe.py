"""A real recogniser on real speech; needs the wheel of faster-whisper tiny.en, from the cache or an index."""

import jiwer
import pytest

from spiritlm_core.align.config import AlignerFitConfig, WordsConfig
from spiritlm_core.align.fit import AlignerFit
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.align.teacher import spoken
from spiritlm_core.align.whisperx import Transcriber
from spiritlm_core.errors import ModelReferenceError, Rejection
from spiritlm_core.lake.view import TableView
from spiritlm_core.references.reference import resolve
from tests.align.speech import TINY_EN, row, sentences, table

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def asr():
    try:
        return resolve(TINY_EN).path
    except ModelReferenceError as error:
        pytest.skip(f"no speech recogniser here: {error}")


def test_transcribe_then_align(asr, fitted, capfd):
    given = sentences(4)
    rows = [row(f"u{i}", waveform, None) for i, (_, waveform) in enumerate(given)]
    stage = WordsStage(WordsConfig(mode="transcribe", max_misfit=50.0), {"asr": asr, "aligner": fitted[0]})
    stage.setup()
    answers = stage.process(table(rows)).to_pylist()
    printed = capfd.readouterr()
    assert printed.out == "", "standard output belongs to the caller"
    assert "No language specified" not in printed.err
    assert {answer["text_origin"] for answer in answers} == {"asr"}
    truth = [" ".join(spoken(text, "en")) for text, _ in given]
    heard = [" ".join(spoken(answer["text"], "en")) for answer in answers]
    assert jiwer.wer(truth, heard) < 0.3
    assert not any(word["interpolated"] for answer in answers for word in answer["words"])


def test_a_model_of_english_knows_no_other_language(asr):
    with pytest.raises(Rejection, match="English only"):
        Transcriber(asr).transcribe(sentences(1)[0][1], "fr")


def test_an_aligner_is_fitted_on_what_the_recogniser_writes(asr, tmp_path):
    rows = [row(f"u{i}", waveform, None) for i, (_, waveform) in enumerate(sentences(6))]
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    config = AlignerFitConfig(teacher="none", steps=2, channels=16, layers=1, least_minutes=0.05)
    summary = AlignerFit(config, {"asr": asr}).build({"audio": TableView.of(table(rows))}, out, work, lambda *_: None)
    assert summary["fitted"]
    assert summary["utterances"] == 6
    assert list(work.glob("recognised-*.pt"))
