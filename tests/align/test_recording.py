"""The words of one recording, with the aligner of a lake, in each format; needs the folder of shared speech."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from spiritlm_core.align.config import AlignerFitConfig
from spiritlm_core.align.recording import LEAST_GAIN, align_recording, lines_of
from spiritlm_core.align.whisperx import Aligner, Heard
from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.cli.app import app
from spiritlm_core.cli.options import check_file
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.references.reference import resolve
from tests.align.speech import TINY_EN, sentences
from tests.support.filled_lake import commit_artifact
from tests.support.limits import no_file_larger

GAP = 4.0  # seconds between the sentences: they become segments of their own


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[tuple[float, str]]]:
    """A file of three sentences, its transcript, and when each sentence begins."""
    folder, pieces, begins = tmp_path_factory.mktemp("recording"), [], []
    for text, waveform in sentences(3):
        pieces.append(np.zeros(round(GAP * 16_000), np.float32))
        begins.append((sum(map(len, pieces)) / 16_000, text))
        pieces.append(waveform)
    (folder / "talk.wav").write_bytes(encode_wav(np.concatenate(pieces)))
    (folder / "talk.txt").write_text("\n".join(text for _, text in begins))
    return folder / "talk.wav", folder / "talk.txt", begins


@pytest.fixture(scope="module")
def lake(fitted, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake whose recipe "mine" fitted an aligner."""
    lake, key = Lake(tmp_path_factory.mktemp("lake")), "a" * 64
    commit_artifact(lake, "aligner", key, fitted[0], AlignerFitConfig())
    lake.write_ref("mine", "aligner", "artifact", key, "0" * 64)
    return str(lake.uri)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["align", *map(str, arguments)])


def test_words_get_times_in_the_recording(recording, lake, tmp_path) -> None:
    audio, text, begins = recording
    out = tmp_path / "talk.json"
    shown = run(audio, "--text", text, "--format", "json", "--aligner", "mine", "--lake", lake, "--out", out)
    assert shown.exit_code == 0, shown.output
    found = json.loads(out.read_text())
    assert [word["word"] for word in found["words"]] == text.read_text().split()
    assert "is its text?" not in shown.stderr
    assert sum(word["doubtful"] for word in found["words"]) <= len(found["words"]) // 3
    starts = [word["start"] for word in found["words"]]
    assert starts == sorted(starts)
    firsts = np.cumsum([0, *(len(sentence.split()) for _, sentence in begins)])
    off = [abs(starts[first] - begin) for first, (begin, _) in zip(firsts, begins, strict=False)]
    assert np.median(off) < 0.5, "one word at a border may be put on its wrong side, where no recogniser reads along"


def test_a_text_that_was_not_said_is_doubted(recording, fitted, tmp_path) -> None:
    audio, text, _ = recording
    (tmp_path / "other.txt").write_text(" ".join(reversed(text.read_text().split())))
    out = tmp_path / "talk.json"
    shown = run(audio, "--text", tmp_path / "other.txt", "--format", "json", "--aligner", fitted[0], "--out", out)
    words = json.loads(out.read_text())["words"]
    assert sum(word["doubtful"] for word in words) > len(words) // 2
    assert f"do not sound like what is said: is {tmp_path / 'other.txt'} its text?" in shown.stderr


def test_every_format_has_the_words(recording, fitted, tmp_path, monkeypatch) -> None:
    audio, text, _ = recording
    monkeypatch.chdir(tmp_path)
    for form, suffix in {"srt": "srt", "vtt": "vtt", "textgrid": "TextGrid", "ctm": "ctm"}.items():
        shown = run(audio, "--text", text, "--format", form, "--aligner", fitted[0], "--per", "word")
        assert shown.stdout.split() == [f"talk.{suffix}"], shown.output
        written = (tmp_path / f"talk.{suffix}").read_text()
        places = [re.search(rf"(?<!\w){re.escape(word)}(?!\w)", written) for word in text.read_text().split()]
        assert all(places), form
    shown = run(audio, "--text", text, "--format", "srt", "--aligner", fitted[0])
    cues = (tmp_path / "talk.srt").read_text().strip().split("\n\n")
    assert " ".join(cue.splitlines()[2] for cue in cues) == " ".join(text.read_text().split())
    assert max(len(cue.splitlines()[2]) for cue in cues) <= 42


def test_a_file_that_cannot_be_written_whole_stays_what_it_was(recording, fitted, tmp_path) -> None:
    audio, text, _ = recording
    for form in ("srt", "textgrid", "ctm", "json"):
        (tmp_path / "talk").write_text("mine")
        with no_file_larger(100):
            shown = run(audio, "--text", text, "--format", form, "--aligner", fitted[0], "--out", tmp_path / "talk")
        assert "talk cannot be written: File too large" in str(shown.exception), form
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("talk", "mine")]


def test_how_well_a_text_fits_is_told_by_what_placed_its_words(recording, fitted, monkeypatch, tmp_path) -> None:
    audio, text, _ = recording
    (tmp_path / "twice.wav").write_bytes(encode_wav(np.tile(as_waveform(audio), 2)))
    heard: list[int] = []
    hear, gains = Aligner.hear, iter([LEAST_GAIN] * 3 + [LEAST_GAIN - 0.01] * 3)
    monkeypatch.setattr(Aligner, "hear", lambda self, waveform: heard.append(len(waveform)) or hear(self, waveform))
    monkeypatch.setattr(Heard, "gain", lambda self, words: next(gains))
    said = f"{text.read_text()} {text.read_text()}"
    words = align_recording(tmp_path / "twice.wav", said, "en", {"aligner": fitted[0]})["words"]
    assert (len(heard), heard[:6]) == (12, heard[6:]), "once to find which words are in a segment, once for their times"
    doubtful = [word["doubtful"] for word in words]
    assert (doubtful, set(doubtful)) == (sorted(doubtful), {False, True}), "those of the last three segments"


def test_an_aligner_that_the_lake_has_is_offered(recording, lake) -> None:
    shown = run(recording[0], "--text", recording[1], "--lake", lake)
    assert str(shown.exception).endswith("name one with --aligner, for example mine")


@pytest.mark.integration
def test_a_recogniser_writes_the_missing_transcript(recording, fitted, tmp_path) -> None:
    try:
        asr = resolve(TINY_EN).path
    except ModelReferenceError as error:
        pytest.skip(f"no speech recogniser here: {error}")
    audio, text, _ = recording
    out = tmp_path / "talk.json"
    shown = run(audio, "--asr", asr, "--format", "json", "--aligner", fitted[0], "--out", out)
    assert shown.exit_code == 0, shown.output
    heard = {word["word"].lower().strip(".,") for word in json.loads(out.read_text())["words"]}
    said = {word.lower().strip(".,") for word in text.read_text().split()}
    assert len(heard & said) > 0.7 * len(said)


def test_what_is_missing_is_named(recording, lake, tmp_path) -> None:
    audio, text, _ = recording
    assert "--text FILE, or a recogniser with --asr" in str(run(audio).exception)
    assert "no aligner of a recipe 'other'" in str(
        run(audio, "--text", text, "--aligner", "other", "--lake", lake).exception
    )
    (tmp_path / "silence.wav").write_bytes(encode_wav(np.zeros(32_000, np.float32)))
    silent = run(tmp_path / "silence.wav", "--text", text, "--aligner", "mine", "--lake", lake)
    assert "silence.wav: silent" in str(silent.exception)


def test_what_is_wrong_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a.wav").touch()
    for wrong in (["--out", tmp_path], ["--language", "no language"]):  # before an aligner is looked for
        shown = run(tmp_path / "a.wav", "--asr", "hf://no/such", *wrong)
        assert wrong[0] in f"{shown.output}{shown.exception}"
    for out, message in ((tmp_path, "is a folder: name a file in it"), (tmp_path / "file/a.srt", "is not a folder")):
        with pytest.raises(SpiritLMError, match=message):
            check_file(out)
    check_file(tmp_path / "new/er/a.srt")
    assert (tmp_path / "new/er").is_dir()


def test_lines_end_at_pauses_and_sentences_and_before_they_are_too_long() -> None:
    said = ["one", "two.", "three", "four", "five"]
    words = [{"word": word, "start": i * 1.0, "end": i + 0.9, "score": 1.0} for i, word in enumerate(said)]
    words[4] |= {"start": 6.0, "end": 6.5}
    assert [line["word"] for line in lines_of(words)] == ["one two.", "three four", "five"]
    assert [line["word"] for line in lines_of(words, characters=7)] == ["one", "two.", "three", "four", "five"]
    assert [line["end"] for line in lines_of(words, seconds=1.0)] == [0.9, 1.9, 2.9, 3.9, 6.5]
