"""What the model heard, said and classified, as the report and the verdicts have it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.clips import Clip, read_clips, rows_of
from spiritlm_core.evaluate.heldout import fewshot
from spiritlm_core.evaluate.heldout.answers import Evaluated, labels_of, train_words
from spiritlm_core.evaluate.heldout.asked import (
    ANSWER,
    KNOWN_WORDS,
    NAME_ONE,
    NO_VOCODER,
    RECORDING,
    RESYNTHESIS,
    ask_all,
    groups_of,
    listen,
)
from spiritlm_core.evaluate.heldout.fewshot import Classified, classify, questions
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.fewshot import FewShot
from spiritlm_core.metrics.distances import Errors
from spiritlm_core.metrics.verdicts import read_verdicts
from spiritlm_core.speech.vocoder.vocoder import Vocoder
from tests.evaluate.corpora import CONFIG, SCHEMAS, SIZES, Corpus, evaluate
from tests.vocoder.models import BASE, EXPRESSIVE, build

ALL = CONFIG.model_copy(update={"fewshot_utterances": 12, "listened": 3})


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"units": SIZES["hubert"], "pitch_units": SIZES["pitch"], "style_units": SIZES["style"]}
    voices = {"speaker_names": ("s0", "s1", "s2"), "usual_styles": (1,)}
    folder = tmp_path_factory.mktemp("vocoder")
    build(EXPRESSIVE.model_copy(update={**sizes, **voices})).model.save(folder)
    return folder


@pytest.fixture(scope="module")
def base_vocoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that makes any unit audible, with pitch or without."""
    folder = tmp_path_factory.mktemp("vocoder")
    build(BASE.model_copy(update={"units": SIZES["hubert"]})).model.save(folder)
    return folder


class Scripted:
    """Writes down what it is told to for each sound, else nothing; stands for a recogniser."""

    def __init__(self, texts: dict[bytes, str]) -> None:
        self.texts = texts

    def hear(self, waveform: np.ndarray, language: str | None) -> str:
        if language == "tlh":
            raise Rejection("the recogniser does not know the language tlh")
        return self.texts.get(waveform.tobytes(), "")


def held_out(corpus: Corpus, count: int) -> list[Clip]:
    return read_clips(corpus.tables["audio"], list(labels_of(corpus.tables["audio"], "held_out"))[:count])


def units_of(corpus: Corpus, clips: list[Clip]) -> dict:
    return rows_of(corpus.tables["units"], {clip.key for clip in clips}, ["hubert", "pitch", "style"])


def said(corpus: Corpus, evaluated: Evaluated, clips: list[Clip]) -> dict[str, str]:
    """The speech tokens of the recordings themselves, as the answer to their texts."""
    rows = rows_of(corpus.tables["sequences"], {clip.key for clip in clips}, ["speech_ids"])
    return {key: evaluated.speech(row["speech_ids"]) for key, row in rows.items()}


def test_sounds_are_the_recording_its_resynthesis_and_the_answer(
    corpus: Corpus, evaluated: Evaluated, vocoder: Path
) -> None:
    clips, loaded = held_out(corpus, 3), Vocoder.load(vocoder)
    answers = {**said(corpus, evaluated, clips), clips[1].key: ""}
    del answers[clips[2].key]
    found = listen(clips, answers, units_of(corpus, clips), loaded, None)
    assert [set(one.sounds) for one in found.clips] == [
        {RECORDING, RESYNTHESIS, ANSWER},
        {RECORDING, RESYNTHESIS},  # an answer without units cannot be heard
        {RECORDING, RESYNTHESIS},  # it was not asked
    ]
    for one in found.clips:
        assert abs(len(one.sounds[RESYNTHESIS]) - len(one.sounds[RECORDING])) < 1280
    again = loaded.decode(loaded_streams(corpus, clips[0]), speaker=clips[0].speaker, predict_durations=False)
    assert np.array_equal(found.clips[0].sounds[RESYNTHESIS], again), "in the voice of its speaker"
    assert found.notes == (NAME_ONE,)
    assert found.rates() == {}


def loaded_streams(corpus: Corpus, clip: Clip):
    from spiritlm_core.tokens.speech import Streams

    row = units_of(corpus, [clip])[clip.key]
    return Streams(*(np.array(row[name]) for name in ("hubert", "pitch", "style")))


def test_word_errors_of_what_is_heard_stand_beside_those_of_silence_and_of_other_answers(
    corpus: Corpus, evaluated: Evaluated, vocoder: Path
) -> None:
    clips, loaded = held_out(corpus, 3), Vocoder.load(vocoder)
    answers = said(corpus, evaluated, clips)
    plain = listen(clips, answers, units_of(corpus, clips), loaded, None)
    texts = {one.sounds[ANSWER].tobytes(): one.clip.text for one in plain.clips}
    texts |= {one.sounds[RECORDING].tobytes(): "8 9 " + one.clip.text for one in plain.clips[:1]}
    texts |= {one.sounds[RESYNTHESIS].tobytes(): one.clip.text.replace("nine", "9") for one in plain.clips}
    found = listen(clips, answers, units_of(corpus, clips), loaded, Scripted(texts))
    rates = {who: errors.rate for who, errors in found.rates().items()}
    assert (rates["model"], rates["nothing"]) == (0, 1)
    assert rates["shuffled"] > 0.3
    assert found.errors(RECORDING) == Errors((2, 4, 4), (4, 4, 4)), "each digit is a word"
    assert found.errors(RESYNTHESIS).rate == 0, "however it is written"
    assert found.notes == ()


def test_an_answer_that_cannot_be_heard_counts_as_nothing_said(
    corpus: Corpus, evaluated: Evaluated, vocoder: Path
) -> None:
    clips = held_out(corpus, 2)
    answers = {**said(corpus, evaluated, clips), clips[1].key: ""}
    found = listen(clips, answers, units_of(corpus, clips), Vocoder.load(vocoder), Scripted({}))
    assert found.clips[1].heard[ANSWER] == ""
    assert len(found.rates()["model"].edits) == 2


def test_what_is_missing_is_said_once(corpus: Corpus, vocoder: Path) -> None:
    clips = held_out(corpus, 2)
    assert listen(clips, {}, {}, None, None).notes == (NO_VOCODER, NAME_ONE)
    assert listen(clips, {}, {}, None, Scripted({})).notes == (NO_VOCODER,)
    assert listen([], {}, {}, None, None).notes == ()
    foreign = [replace(clip, language="tlh") for clip in clips]
    found = listen(foreign, {}, units_of(corpus, clips), Vocoder.load(vocoder), Scripted({}))
    assert found.notes == ("The recogniser does not listen: the recogniser does not know the language tlh.",)
    assert found.errors(RECORDING) is None


def test_groups_are_known_words_and_labels_where_they_are_not_all(corpus: Corpus) -> None:
    asked, _ = questions(corpus.tables["sequences"], ALL, 256)
    groups = groups_of(asked, corpus.tables)
    labels = labels_of(corpus.tables["audio"], "held_out")
    assert groups[""] == list(range(len(asked)))
    assert [labels[asked[i].key] for i in groups["high"]] == ["high"] * len(groups["high"])
    assert set(groups["high"]) | set(groups["low"]) == set(groups[""])
    assert KNOWN_WORDS not in groups, "all are known"
    odd = [asked[0], replace(asked[1], text="one xyzzy"), *asked[2:]]
    assert groups_of(odd, corpus.tables)[KNOWN_WORDS] == [0, *range(2, len(odd))]
    assert train_words(corpus.tables["sequences"]) >= set(asked[0].words.split())


RIGHT = ("a", "a", "a", "b", "b", "c")


def test_accuracy_stands_beside_the_commonest_label() -> None:
    found = Classified(tuple("123456"), RIGHT, ("a", "a", "b", "b", "b", "a"), ("a", "b", "c"))
    whole, *parts = found.verdicts(200, 0)
    assert (whole.value, whole.trivial, whole.trivial_answer, whole.items) == (
        pytest.approx(4 / 6, abs=1e-4),
        0.5,
        "majority",
        6,
    )
    assert not whole.better
    assert {part.group: (part.value, part.items) for part in parts} == {
        "a": (pytest.approx(2 / 3, abs=1e-4), 3), "b": (1, 2), "c": (0, 1)}  # fmt: skip
    assert found.confusions() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    many = Classified(tuple(map(str, range(60))), RIGHT * 10, RIGHT * 10, ("a", "b", "c"))
    assert many.verdicts(200, 0)[0].better


def test_labels_are_asked_of_held_out_recordings_and_chosen_by_likelihood(
    corpus: Corpus, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spiritlm_core.lm.generate.presets import classify as preset

    found = classify(corpus.tables, evaluated, ALL)
    assert found is not None
    assert (found.labels, len(found.keys)) == (("high", "low"), 12)
    tokens = said(corpus, evaluated, read_clips(corpus.tables["audio"], found.keys))
    want = [preset(evaluated.spirit, ("speech", tokens[key]), found.labels).label for key in found.keys]
    assert list(found.given) == want
    monkeypatch.setattr(fewshot, "MOST_LABELS", 1)
    assert classify(corpus.tables, evaluated, ALL) is None


def test_recordings_without_labels_are_not_classified(corpus: Corpus, evaluated: Evaluated) -> None:
    rows = [{**row, "label": None} for row in corpus.tables["audio"].read().to_pylist()]
    tables = {**corpus.tables, "audio": TableView.of(table_of(rows, SCHEMAS["audio"]))}
    assert classify(tables, evaluated, ALL) is None


def test_every_way_of_asking_has_its_verdict(corpus: Corpus, model_folder: Path, evaluated: Evaluated) -> None:
    answers = ask_all(corpus.tables, {"model": model_folder}, evaluated, ALL, lambda *_: None)
    found = [(one.task, one.shots, one.group) for one in answers.verdicts(ALL)]
    for task in ("transcribe", "say"):
        assert [(task, shots, group) for shots in (0, 2) for group in ("", "high", "low")] == [
            one for one in found if one[0] == task
        ]
    assert found[-3:] == [("classify", 0, name) for name in ("", "high", "low")]
    none = ask_all(corpus.tables, {}, evaluated, ALL.model_copy(update={"shots": 0}), lambda *_: None)
    assert {one.shots for one in none.verdicts(ALL)} == {0}


def test_the_artifact_of_a_model_that_speaks(
    corpus: Corpus, model_folder: Path, base_vocoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = {"speech": "[Hu1][Hu2]", "text": "eight nine"}  # the model itself is random
    monkeypatch.setattr(FewShot, "answers", lambda one, asked: [(one.labels or (answered[one.kind],))[0]] * len(asked))
    evaluate(corpus, model_folder, tmp_path / "out", ALL, vocoder=base_vocoder)
    verdicts = read_verdicts(tmp_path / "out")
    assert {one.task for one in verdicts} == {"transcribe", "say", "classify"}
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    heard = verdicts[0]
    assert metrics["heard/wer"] == pytest.approx(heard.value, abs=1e-4)
    assert metrics[f"heard/{heard.trivial_answer}_wer"] == heard.trivial
    assert "heard/low/wer_low" in metrics
    assert metrics["classified/accuracy_utterances"] == 12
    answers = json.loads((tmp_path / "out/answers.json").read_text())
    assert len(answers["speech_to_text"]) == len(answers["text_to_speech"]) == heard.items
    assert sum(map(sum, answers["classification"]["confusions"])) == 12
    report = (tmp_path / "out/report.html").read_text()
    for title in ("What it heard", "What it said", "How it classifies", "evaluate.recogniser"):
        assert title in report
    samples = json.loads((tmp_path / "out/samples.json").read_text())
    assert report.count("The answer, by the vocoder:") == sum(one["kind"] == "text_to_speech" for one in samples) == 1
    heard_rows, said_rows = 3, 3 * 3
    sample_sounds, figures = 2 + 1, 2
    assert len(re.findall("<audio", report)) == heard_rows + said_rows + sample_sounds + figures
