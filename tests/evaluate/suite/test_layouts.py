from __future__ import annotations

from pathlib import Path

import pytest

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.voices.espeak import Espeak
from spiritlm_core.cli.evaluate import build_suite, suite
from spiritlm_core.errors import Rejection, SourceError, SpiritLMError
from spiritlm_core.evaluate.config import KINDS, PAIRS
from spiritlm_core.evaluate.suite.build import build_suite as build
from spiritlm_core.evaluate.suite.layouts import read_suite, read_task
from spiritlm_core.evaluate.suite.material import pair_sets
from spiritlm_core.evaluate.suite.stage import SuiteConfig, run_suite
from spiritlm_core.evaluate.suite.task import Recordings
from spiritlm_core.evaluate.suite.zeroshot import published
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.support.small_model import LABELS, sound

CONFIG = SuiteConfig(bootstrap_samples=100)


def record(path: Path, label: str = "low", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_flac(sound(label, seed)))  # the name may say .wav: content decides
    return path


def lexical(folder: Path) -> Path:
    """Two words in two voices; a row without its other half, and a recording that is missing."""
    rows = ["id,filename,voice,frequency,word,phones,length,correct"]
    for number, (word, other) in enumerate((("brick", "blick"), ("table", "tavle"))):
        for voice in "AB":
            for correct, shown in ((1, word), (0, other)):
                rows.append(f"{number},{shown}{voice},{voice},{number * 7},{shown},x,5,{correct}")
                record(folder / "dev" / f"{shown}{voice}.wav", list(LABELS)[number + correct], number)
    (folder / "dev" / "tavleB.wav").unlink()
    (folder / "dev" / "gold.csv").write_text("\n".join([*rows, "9,lost,A,0,lost,x,4,1"]) + "\n")
    return folder


def syntactic(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rows = ["id,filename,voice,type,subtype,transcription,correct"]
    for kind in ("agreement", "islands"):
        rows += [f"1,{kind}0.wav,A,{kind},x,the dogs sings,0", f"1,{kind}1.wav,A,{kind},x,the dogs sing,1"]
    (folder / "gold.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_zerospeech(tmp_path: Path) -> None:
    lexical(tmp_path / "lexical")
    syntactic(tmp_path / "syntactic")
    (tmp_path / "phonetic").mkdir()
    sblimp, swuggy = sorted(read_suite(tmp_path), key=lambda task: task.name)
    assert (swuggy.name, sblimp.name) == ("swuggy", "sblimp")
    assert [(pair.key, pair.item) for pair in swuggy.pairs] == [("0/A", "0"), ("0/B", "0"), ("1/A", "1"), ("1/B", "1")]
    assert (swuggy.pairs[0].good.text, swuggy.pairs[0].bad.text) == ("brick", "blick")
    assert swuggy.pairs[0].good.audio == tmp_path / "lexical" / "dev" / "brickA.wav"
    assert [pair.kind for pair in swuggy.pairs] == ["out of vocabulary"] * 2 + ["in vocabulary"] * 2
    assert [one.key for one in swuggy.skipped] == ["9/A"]
    assert [(pair.item, pair.kind, pair.good.text) for pair in sblimp.pairs] == [
        ("agreement/x/1", "agreement", "the dogs sing"),
        ("islands/x/1", "islands", "the dogs sing"),
    ]
    assert [direction.name for direction in sblimp.directions] == ["T", "S"]


def test_salmon(tmp_path: Path) -> None:
    for part in ("gender_consistency", "rir_consistency"):
        for number in range(2):
            for side in ("b", "a"):
                record(tmp_path / "salmon" / part / f"sample_{number}_{side}.wav")
    record(tmp_path / "salmon" / "rir_consistency" / "sample_7_a.wav")
    first, second = read_suite(tmp_path)
    assert (first.name, second.name) == ("salmon/gender_consistency", "salmon/rir_consistency")
    assert [(str(p.good.audio)[-5], str(p.bad.audio)[-5]) for p in first.pairs] == [("a", "b")] * 2
    assert [one.reason for one in second.skipped] == ["sample_7: 1 files instead of 2"]
    assert published(first.name, first.layout, "S") == {"Spirit LM Base 7B": 67.0, "Spirit LM Expressive 7B": 85.0}
    assert published(first.name, "pairs.jsonl", "S") == published("sblimp", "ZeroSpeech 2021", "T") == {}


def test_stories(tmp_path: Path) -> None:
    for part in ("correct", "incorrect", "mutual"):
        record(tmp_path / "tsc" / "0" / f"0_{part}.wav")
        (tmp_path / "tsc" / "0" / f"0_{part}.txt").write_text(f"a {part}\n")
    record(tmp_path / "tsc" / "0" / "1_correct.wav")
    record(tmp_path / "whole" / "4_correct.wav")
    record(tmp_path / "whole" / "4_incorrect.wav")
    sentences = ",".join(f"InputSentence{n}" for n in range(1, 5))
    head = f"InputStoryid,{sentences},RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "test.csv").write_text(f'{head}\nx,A.,B.,"C, c.",D.,no,yes,2\ny,A.,B.,C.,D.,no,yes,3\n')
    text, tsc, whole = read_suite(tmp_path)
    assert [direction.name for direction in tsc.directions] == ["T", "S", "T→S", "S→T"]
    assert tsc.pairs[0].prefix is not None
    assert tsc.pairs[0].prefix.text == "a mutual"
    assert [one.reason for one in tsc.skipped] == ["1_incorrect.wav is missing"]
    assert [direction.name for direction in whole.directions] == ["S"]
    assert (text.pairs[0].prefix.text, text.pairs[0].good.text) == ("A. B. C, c. D.", "yes")  # type: ignore[union-attr]
    assert [one.key for one in text.skipped] == ["y"]
    assert [direction.name for direction in text.directions] == ["T"]


def test_folders_that_are_no_task_are_one_message(tmp_path: Path) -> None:
    for wrong, match in ((tmp_path / "gone", "not a folder"), (tmp_path, "none of the known layouts")):
        with pytest.raises(SourceError, match=match):
            read_task("x", wrong)
    with pytest.raises(SourceError, match="known layout"):
        read_suite(tmp_path)
    (tmp_path / "gold.csv").write_text("id,filename\n1,a\n")
    with pytest.raises(SourceError, match=r"gold\.csv: no column 'correct'; it has id, filename"):
        read_task("x", tmp_path)
    (tmp_path / "gold.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"gold\.csv is not UTF-16 text \(byte 2\): save it as UTF-8"):
        read_task("x", tmp_path)


def test_recordings_are_encoded_once_and_bad_ones_skipped(
    speaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lexical(tmp_path / "lexical")
    (folder / "dev" / "blickA.wav").write_bytes(b"no sound at all")
    seen: list[int] = []
    encode = SpeechTokenizer.encode_batch
    monkeypatch.setattr(SpeechTokenizer, "encode_batch", lambda *a, **k: seen.append(len(a[1])) or encode(*a, **k))
    tasks = [*read_task("one", folder), *read_task("two", folder)]
    spirit = SpiritLM.from_pretrained(speaking)
    report = run_suite({"a": lambda: spirit, "b": lambda: spirit}, tasks, CONFIG)
    assert sum(seen) == 4  # of eight files one is missing and one no sound; two sound the same; two tasks, two models
    spoken = [measure for measure in report["measures"] if measure["direction"] == "S"]
    for measure in spoken:
        reasons = {one["pair"]: one["reason"] for one in measure["skipped"]}
        assert set(reasons) == {"9/A", "0/A", "1/B"}
        assert "blickA.wav" in reasons["0/A"]
        assert "tavleB.wav: cannot be read" in reasons["1/B"]
        assert (measure["items"], measure["pairs"]) == (2, 2)
    assert [m["pairs"] for m in report["measures"] if m["direction"] == "T"] == [4] * 4


def test_samples_that_are_no_sound_are_named(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    wrong = {"nan.wav": np.full(16_000, np.nan), "none.wav": np.zeros(0)}
    for name, samples in wrong.items():
        soundfile.write(tmp_path / name, samples, 16_000, subtype="FLOAT")
    found = Recordings()
    found.encode(None, [tmp_path / name for name in wrong], lambda _: None)  # type: ignore[arg-type]
    for name, reason in (("nan.wav", "no numbers"), ("none.wav", "no samples")):
        with pytest.raises(Rejection, match=f"{name}: .*{reason}"):
            found.tokens(tmp_path / name)


def test_without_a_speech_tokenizer_text_is_still_scored(spirit: SpiritLM, tmp_path: Path) -> None:
    text, speech = run_suite({"m": lambda: spirit}, read_task("x", lexical(tmp_path / "x")), CONFIG)["measures"]
    assert (text["pairs"], speech["pairs"], speech["sum"]) == (4, 0, None)
    assert "need a speech tokenizer" in speech["skipped"][-1]["reason"]


def test_command(speaking: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lexical(tmp_path / "sets" / "lexical")
    suite([speaking], folder=tmp_path / "sets", out=tmp_path / "report", batch=4)
    shown = capfd.readouterr()
    assert [line.split()[:3] for line in shown.out.splitlines()[1:5:2]] == [["swuggy", d, "model"] for d in ("T", "S")]
    assert "swuggy S" in shown.err
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"suite.json", "suite.md", "suite.html"}
    with pytest.raises(SpiritLMError, match="NAME=FOLDER"):
        suite([speaking], task=["nothing"])
    with pytest.raises(SpiritLMError, match="at least one task"):
        suite([speaking])


def test_built_sets_give_no_answer_away() -> None:
    found = pair_sets()
    for pairs in found.values():
        assert len({pair.key for pair in pairs}) == len(pairs) >= 50
        assert all(pair.good != pair.bad for pair in pairs)
    grammar = [pair for pair in found["grammar"] if pair.kind != "reflexives"]
    for side in ("good", "bad"):  # every word is as often right as wrong
        assert sorted(w for p in grammar for w in p.good.text.split()) == sorted(
            w for p in grammar for w in p.bad.text.split()
        ), side
    endings = {
        side: sorted(getattr(pair, side).text for pair in found["topic-stories"] if pair.key.endswith("-0"))
        for side in ("good", "bad")
    }
    assert endings["good"] == endings["bad"]


def test_text_sets_are_built_and_scored(spirit: SpiritLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_suite(tmp_path / "sets", text_only=True)
    assert capsys.readouterr().out.startswith("words\t50\n")
    tasks = [task for task in read_suite(tmp_path / "sets") if task.name in PAIRS]
    report = run_suite({"m": lambda: spirit}, tasks, SuiteConfig(limit=8))
    assert {measure["task"] for measure in report["measures"]} == set(pair_sets())
    assert all(measure["items"] == 8 for measure in report["measures"])
    with pytest.raises(SpiritLMError, match="not empty"):
        build_suite(tmp_path / "sets", text_only=True)


def test_few_items_are_as_different_as_may_be(tmp_path: Path) -> None:
    build(tmp_path / "sets", None, kinds=("stories", "sentiments"), items=8)
    stories, sentiments = sorted(read_suite(tmp_path / "sets"), key=lambda task: task.name, reverse=True)
    assert len({pair.item for pair in stories.pairs}) == len(stories.pairs) == 8  # type: ignore[attr-defined]
    for part in (sentiments.test, sentiments.train):  # type: ignore[attr-defined]
        assert len({row.item for row in part}) == len(part) == 8


def _contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_spoken_sets_are_the_same_every_time(speaking: Path, tmp_path: Path) -> None:
    again = ("words", "styles", "transcripts")
    for name, kinds in (("one", KINDS), ("two", again)):
        with Espeak() as speak:  # a fresh process for each
            build(tmp_path / name, speak, ("en-us", "en-us+f3"), kinds, items=2)
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(KINDS)
    for kind in again:
        assert _contents(tmp_path / "one" / kind) == _contents(tmp_path / "two" / kind)
    spirit = SpiritLM.from_pretrained(speaking)
    asked = SuiteConfig(limit=2, shots=1, max_new_tokens=8, bootstrap_samples=100)
    tasks = [task for task in read_suite(tmp_path / "one") if task.name != "choices"]
    report = run_suite({"m": lambda: spirit}, tasks, asked)
    assert {measure["task"] for measure in report["measures"]} == set(KINDS) - {"choices"}
    assert all(measure["items"] == 2 for measure in report["measures"] if measure["task"] in ("words", "grammar"))
    reasons = [one["reason"] for measure in report["measures"] for one in measure["skipped"]]
    assert all("context of the model" in one or "max_new_tokens" in one or "context, which" in one for one in reasons)
    with pytest.raises(SpiritLMError, match="there is no such voice"), Espeak() as speak:
        build(tmp_path / "three", speak, ("zzz",), ("words",), 2)
    with pytest.raises(SpiritLMError, match="there is no set 'poems'"):
        build(tmp_path / "four", None, kinds=("poems",))
