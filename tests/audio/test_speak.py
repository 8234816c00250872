"""Synthetic speech: which utterances there are, that they are made as they were planned, that nothing leaks."""

from __future__ import annotations

import hashlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spiritlm_core import failures
from spiritlm_core.align.config import WordsConfig
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.audio.voices.spoken import speak
from spiritlm_core.errors import Rejection, SourceError, SpiritLMError
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.sources.folder import FolderSource
from spiritlm_core.intake.sources.manifest import ManifestSource
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.intake.speak.draw import Draw
from spiritlm_core.intake.speak.transcripts import Told, plain
from spiritlm_core.intake.speak.utterance import Utterance, engine_of, parse_utterance
from spiritlm_core.intake.speak.voices import PiperVoices
from spiritlm_core.intake.statcache import StatCache, sha256_of
from spiritlm_core.lake.schema import Row
from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.support.items import Item, collect, identified, list_items

CLEAN = {"bands": [16000], "loudness": None, "noise": None, "room": None, "silence": None}


def _source(**settings: object) -> SpeakSource:
    return SpeakSource.model_validate({"utterances": 30, **settings})


def _items(source: SpeakSource) -> dict[str, Item]:
    return {item.source_uri: item for item in list_items(source, "en", StatCache())}


def _texts(source: SpeakSource, told: Told | None = None) -> list[str]:
    return [str(draft.text) for draft in source.drafts(told)]


names = st.text(min_size=1, max_size=20)


@given(names, names, st.dictionaries(names.filter(lambda name: name != "text"), names, max_size=3))
def test_an_address_says_all_of_an_utterance(name: str, text: str, settings: dict[str, str]) -> None:
    utterance = Utterance("espeak", name, text, settings)
    assert parse_utterance(utterance.uri) == utterance
    assert engine_of(utterance.uri) == "espeak"
    assert engine_of(f"file:///{name}") is None


def test_more_utterances_keep_those_that_there_are() -> None:
    few, many = _items(_source(utterances=40)), _items(_source(utterances=60))
    assert list(many)[:40] == list(few)
    assert {uri: many[uri].key for uri in few} == {uri: item.key for uri, item in few.items()}
    assert len(many) == len({item.recording_id for item in many.values()}) == 60
    assert not any(item.error for item in many.values())
    assert not _items(_source(utterances=40, seed=1)).keys() & few.keys()
    minutes = [sum(item.size for item in _items(_source(utterances=None, minutes=m)).values()) for m in (1, 2)]
    assert [round(size / 32_000 / 60) for size in minutes] == [1, 2]


def test_what_is_drawn_stays_what_it_was() -> None:
    """Another digest means that all synthetic speech of earlier lakes is made anew."""
    told = Told(
        "en", tuple(f"{one} of the {two}" for one in "abcdefg" for two in ("words", "letters")), ("a of the b",)
    )
    texts = [{"kind": "transcripts", "weight": 2}, {"kind": "grammar", "grammar": "everyday"}]
    voices = [{"engine": "espeak", "weight": 3}, {"engine": "espeak", "names": ["en"]}]
    drafts = list(_source(texts=texts, voices=voices, utterances=600).drafts(told))
    assert all(draft.file and draft.file.sha256 == sha256_of(draft.uri) for draft in drafts)
    drawn = repr(
        [(draft.uri, draft.text, draft.speaker, draft.label, draft.file and draft.file.size) for draft in drafts]
    )
    assert (
        hashlib.sha256(drawn.encode()).hexdigest() == "1a001e29d8a40f170920437ce7af44a075851c058c06c356e79183bcfb6adf97"
    )


def test_another_voice_or_text_changes_only_what_it_takes_over() -> None:
    own = {"engine": "espeak", "names": ["en-us"], "weight": 3}
    other = {"engine": "espeak", "names": ["en"], "weight": 1}
    before = _items(_source(utterances=400, voices=[own]))
    after = _items(_source(utterances=400, voices=[own, other]))
    new = after.keys() - before.keys()
    assert all(uri.startswith(("speak://espeak/en+", "speak://espeak/en?")) for uri in new)
    assert 60 < len(new) < 140  # a quarter, by its weight
    rules = "public <a> = one | two | three;"
    texts = [
        _texts(_source(utterances=400, texts=[{"kind": "grammar", "grammar": r}]))
        for r in (rules, rules.replace(";", "| four;"))
    ]
    changed = {new for old, new in zip(*texts, strict=True) if old != new}
    assert changed == {"four"}
    assert 60 < texts[1].count("four") < 140


def _told(*transcripts: str) -> Told:
    """Every other one is held out."""
    return Told("en", transcripts[::2], transcripts[1::2])


WORDS = ["press", "one", "two", "star", "now", "please", "the", "key"]
spoken = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)


@given(st.lists(spoken, min_size=2, max_size=12), st.integers(0, 3))
def test_nothing_of_a_held_out_recording_is_said(transcripts: list[str], context: int) -> None:
    told = _told(*transcripts)
    source = _source(utterances=25, texts=[{"kind": "transcripts", "context": context, "words": [1, 4]}])
    try:
        texts = _texts(source, told)
    except SourceError as error:
        assert "held-out" in str(error)  # noqa: PT017 - everything that can be said is held out
        return
    heard = {word for text in told.train for word in text.split()}
    follows = {pair for text in told.train for pair in itertools.pairwise(text.split())}
    ends = {text.split()[-1] for text in told.train}
    for text in texts:
        words = text.split()
        assert set(words) <= heard
        assert len(words) == 1 or plain(words) not in {plain(held.split()) for held in told.held_out}
        if context == 1:  # only behind a word that nothing follows there is any other
            pairs = set(itertools.pairwise(words)) - follows
            assert all(first in ends and not any(first == other for other, _ in follows) for first, _ in pairs)


def test_every_word_that_was_heard_is_said() -> None:
    told = Told("en", ("Please enter the number.", "Number", "Monday", "please hold", "press * now", "call 4242 now"))
    texts = _texts(_source(utterances=11, texts=[{"kind": "transcripts", "words": [1, 3]}]), told)
    words = {word for text in texts for word in text.split()}
    assert words == {"please", "enter", "the", "number", "Monday", "hold", "press", "now", "call"}
    with pytest.raises(SourceError, match="none of them has a transcript and is trained on"):
        _texts(_source(texts=[{"kind": "transcripts"}]))


def test_the_split_of_the_other_sources_decides(tmp_path: Path) -> None:
    for number, word in enumerate(("left", "right", "up", "down")):
        sound(tmp_path / f"{word}.wav", voice(1.0, number), subtype="PCM_16")
        (tmp_path / f"{word}.txt").write_text(word)
    source = _source(utterances=20, texts=[{"kind": "transcripts", "words": [2, 3]}])

    def split(row: Row) -> str:
        return "train" if row["text"] in ("left", "up") else "held_out"

    items = collect([source, FolderSource(path=str(tmp_path))], "en", StatCache(), split)
    said = {word for item in items if item.origin == "synthetic" for word in str(item.text).split()}
    assert said == {"left", "up"}
    with pytest.raises(SourceError, match="none of them has a transcript and is trained on"):
        collect([source, FolderSource(path=str(tmp_path))], "en", StatCache())  # nobody says what is held out


def test_lines_and_words(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("One two. Three four five six!\n\n...\nseven\n")
    (tmp_path / "rows.jsonl").write_text('{"body": "eight\\nnine"}\n')
    lines = {"kind": "lines", "path": str(tmp_path / "lines.txt"), "words": [1, 3], "label": "x"}
    drafts = list(_source(utterances=8, texts=[lines]).drafts())
    texts = [draft.text for draft in drafts]
    assert set(texts[:4]) == set(texts[4:]) == {"One two.", "Three four five", "six!", "seven"}
    assert {draft.label for draft in drafts} == {"x"}
    assert len({draft.uri for draft in drafts}) == 8  # said twice, and not in the same way
    both = _texts(_source(utterances=6, texts=[{**lines, "path": str(tmp_path), "field": "body"}]))
    assert set(both) == {*texts, "eight", "nine"}
    words = _texts(_source(texts=[{"kind": "words", "path": str(tmp_path / "lines.txt"), "words": [2, 2]}]))
    assert {text.split()[0] for text in words} == {"One", "seven"}
    assert {"seven seven", "seven One two. Three four five six!"} <= set(words)
    for settings, message in (
        ({"path": str(tmp_path / "rows.jsonl")}, "no text in field 'text'"),
        ({"path": str(tmp_path / "none.txt")}, "file not found"),
        ({"path": str(tmp_path / "lines.txt"), "words": [9, 9]}, "no texts of the wanted length"),
    ):
        with pytest.raises(SourceError, match=message):
            _texts(_source(texts=[{"kind": "lines", **settings}]))


def test_short_forms(tmp_path: Path) -> None:
    (tmp_path / "a.jsgf").write_text("public <a> = hello;")
    (tmp_path / "a.txt").write_text("hello\n")
    for short in ("a.jsgf", "a.txt"):
        source = parse_source(f"speak:{tmp_path / short}")
        assert isinstance(source, SpeakSource)
        assert {draft.text for draft in source.drafts()} == {"hello"}
    assert next(parse_source("speak:everyday").drafts()).label


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"utterances": 3, "minutes": 2}, "not both"),
        ({"voices": [{"engine": "command", "command": "say {text}"}]}, "must say {wav}"),
        ({"voices": [{"engine": "espeak", "rate": [200, 100]}]}, "write the lower bound first"),
        ({"sound": {"bands": [44100]}}, "no sampling rate from 4000 to 16000"),
        ({"texts": [{"kind": "transcripts", "words": [3, 1]}]}, "the fewest and the most words"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SpeakSource.model_validate(settings)


def test_rows_are_what_was_planned_and_words_have_exact_times() -> None:
    rules = {
        "kind": "grammar",
        "grammar": "public <a> = press <1..9> now {keys} | the key of the door | I am here, now;",
    }
    items = list(_items(_source(utterances=12, texts=[rules])).values())
    config = AudioConfig(held_out_share=0.99)
    stage = AudioStage(config, {})
    table = stage.process(items_table(items, RECORDINGS))
    rows = table.to_pylist()
    assert [row["text"] for row in rows] == [item.text for item in items]
    assert {(row["origin"], row["split"], row["reject_reason"]) for row in rows} == {("synthetic", "train", None)}
    assert {row["label"] for row in rows if "press" in row["text"]} == {"keys"}
    assert all(row["speaker"].startswith("espeak:en") for row in rows)
    assert AudioStage(config, {}).process(items_table(items[3:5], RECORDINGS)).to_pylist() == rows[3:5]

    aligned = WordsStage(WordsConfig(), {}).process(table).to_pylist()  # there is no aligner
    for row, words in zip(rows, aligned, strict=True):
        assert [word["word"] for word in words["words"]] == row["text"].split()
        edges = [edge for word in words["words"] for edge in (word["start"], word["end"])]
        assert edges == sorted(edges)
        assert 0 <= edges[0] < 0.5 < row["duration"] >= edges[-1]
        exact = [word["word"] for word in words["words"] if not word["interpolated"]]
        assert (
            exact == [word for word in row["text"].split() if (word, row["text"][:3]) != ("the", "the")]
            or len(exact) >= 3
        )


def test_word_times_are_where_the_sound_is() -> None:
    settings = {"rate": "150", "pitch": "50", "range": "50"}
    waveform, words = speak(Utterance("espeak", "en-us", "Stop. Stop.", settings))
    (first, second), seconds = words, len(waveform) / 16_000  # type: ignore[misc]
    assert first
    assert second
    assert first[1] < second[0]
    loud = np.abs(waveform) > 0.02
    between = loud[round(first[1] * 16_000) + 800 : round(second[0] * 16_000)]
    assert len(between) > 1600
    assert not between.any()
    assert loud[round(second[0] * 16_000) : round(second[1] * 16_000)].any()
    assert second[1] <= seconds


def test_a_sound_depends_on_its_address_alone() -> None:
    plain_ones = [draft.uri for draft in _source(utterances=3, sound=CLEAN).drafts()]
    changed = [draft.uri for draft in _source(utterances=3).drafts()]
    once = [speak(uri)[0] for uri in (*plain_ones, *changed)]
    again = [speak(uri)[0] for uri in reversed((*plain_ones, *changed))]
    assert all(np.array_equal(a, b) for a, b in zip(once, reversed(again), strict=True))
    quiet, loud = (
        speak(Utterance("espeak", "en", "hello", {"rate": "150", "pitch": "50", "range": "50", "loudness": level}))[0]
        for level in ("-40", "-20")
    )
    assert np.sqrt((loud**2).mean() / (quiet**2).mean()) == pytest.approx(10, rel=0.01)


def test_a_band_leaves_nothing_above_it() -> None:
    settings = {"rate": "150", "pitch": "50", "range": "50"}
    wide, narrow = (speak(Utterance("espeak", "en", "success", s))[0] for s in (settings, {**settings, "band": "8000"}))
    assert len(wide) == len(narrow)
    high = [float((np.abs(np.fft.rfft(w))[int(len(w) * 4300 / 16_000) :] ** 2).sum()) for w in (wide, narrow)]
    assert high[1] < 1e-3 * high[0]


def test_what_cannot_be_said_is_a_rejected_row_and_a_wrong_voice_stops() -> None:
    with pytest.raises(Rejection, match="nothing is heard"):
        speak(Utterance("espeak", "en", "...", {"rate": "150", "pitch": "50", "range": "50"}))
    with pytest.raises(SpiritLMError, match="there is no such voice"):
        speak(Utterance("espeak", "zz", "one", {"rate": "150", "pitch": "50", "range": "50"}))


PROGRAM = """
import sys, wave
text, voice, path = open(sys.argv[1]).read().strip(), sys.argv[2], sys.argv[3]
assert voice == "bob", "I know no " + voice
with wave.open(path, "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(8000)
    file.writeframes(b"\\x00\\x40\\x00\\xc0" * 400 * len(text))
"""


def test_any_program_can_speak(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text(PROGRAM)
    command = f"{sys.executable} {tmp_path}/say.py {{text_file}} {{voice}} {{wav}}"
    voices = {"engine": "command", "command": command, "names": ["bob"]}
    draft = next(_source(voices=[voices], sound=CLEAN, texts="everyday").drafts())
    waveform, words = speak(draft.uri)
    assert len(waveform) == pytest.approx(1600 * len(str(draft.text)), rel=0.01)
    assert (draft.speaker, list(words)) == ("command:bob", [])
    for changed, message in (
        ({"names": ["eve"]}, "I know no eve"),
        ({"command": "no-such-program {text} {wav}"}, "cannot be run"),
        ({"command": "true {text} {wav}"}, "has written no sound"),
    ):
        with pytest.raises(SpiritLMError, match=message):
            speak(next(_source(voices=[voices | changed]).drafts()).uri)


def test_a_list_of_recordings_cannot_make_a_program_run(tmp_path: Path) -> None:
    uri = Utterance("command", "x", "x", {"command": f"touch {tmp_path}/ran {{text}} {{wav}}"}).uri
    (tmp_path / "m.jsonl").write_text(f'{{"path": "{uri}", "text": "x"}}\n')
    source = ManifestSource(path=str(tmp_path / "m.jsonl"), origin="synthetic")
    (item,) = list_items(source, "en", StatCache())
    assert "speak:// cannot be read" in str(item.error)
    (row,) = AudioStage(AudioConfig(), {}).process(items_table([identified(item)], RECORDINGS)).to_pylist()
    assert row["reject_stage"] == "audio"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("engine", "extra"), [("espeak", "speak"), ("piper", "piper")])
def test_an_engine_that_is_not_installed_is_named_when_the_run_is_planned(
    engine: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "find_spec", lambda _: None)
    lines = ["espeakng-loader; extra == 'speak'", "piper-tts; extra == 'piper'"]
    monkeypatch.setattr(failures, "requires", lambda _: lines)
    voices = {"engine": engine} | ({"model": "file:///x.onnx"} if engine == "piper" else {})
    with pytest.raises(SpiritLMError, match=rf"pip install 'spiritlm-pipeline\[{extra}\]'"):
        next(_source(voices=[voices]).drafts())


def test_a_voice_of_piper_is_known_by_its_content(tmp_path: Path) -> None:
    made = []
    for name in ("here", "there", "bare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "joe.onnx").write_bytes(b"weights")
        if name != "bare":
            (tmp_path / name / "joe.onnx.json").write_text("{}")
            voices = PiperVoices(model=(tmp_path / name).as_uri(), speakers=(3,))
            made.append(voices.utterance("hello", "en", Draw("x")))
    assert {one.voice for one in made} == {"joe-3"}
    assert len({one.uri for one in made}) == 2
    assert len({one.digest for one in made}) == 1
    with pytest.raises(SourceError, match=r"NAME\.onnx with NAME\.onnx\.json"):
        PiperVoices(model=(tmp_path / "bare").as_uri()).utterance("hello", "en", Draw("x"))
