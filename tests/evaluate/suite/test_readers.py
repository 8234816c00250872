"""Folders of labelled sets, transcripts and questions; what the builder speaks; the stage and the command."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.voices.espeak import Espeak, Voice
from spiritlm_core.cli.app import app
from spiritlm_core.errors import SourceError, SpiritLMError
from spiritlm_core.evaluate.config import KINDS, PAIRS, SuiteRunConfig
from spiritlm_core.evaluate.suite.labels import LabelTask
from spiritlm_core.evaluate.suite.layouts import read_suite, read_task
from spiritlm_core.evaluate.suite.material import intents, questions, sentiments
from spiritlm_core.evaluate.suite.stage import SuiteStage
from spiritlm_core.evaluate.suite.transcripts import TranscriptTask
from tests.support.small_model import sound


def test_lines_with_labels(tmp_path: Path) -> None:
    lines = [
        '{"label": "a", "text": "one", "split": "train"}',
        '{"label": "b", "audio": "x.wav", "split": "test"}',
        '{"text": "no label"}',
        "nonsense",
        '{"label": "a"}',
        '{"label": "a", "text": "x", "split": "perhaps"}',
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    (task,) = read_task("x", tmp_path)
    assert isinstance(task, LabelTask)
    assert [row.label for row in task.train] == ["a"]
    assert [row.side.audio for row in task.test] == [tmp_path / "x.wav"]
    assert [one.key for one in task.skipped] == [f"labels.jsonl:{n}" for n in (3, 4, 5, 6)]
    rows = [{"label": "a", "text": f"text {n}"} for n in range(40)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = read_task("x", tmp_path)
    assert isinstance(task, LabelTask)
    assert 5 < len(task.train) < 35
    assert len(task.train) + len(task.test) == 40


def test_slurp(tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "slurp"
    folder.mkdir(parents=True)
    (tmp_path / "audio" / "slurp_real").mkdir(parents=True)
    audio = tmp_path / "audio" / "slurp_real" / "audio-1.flac"
    audio.write_bytes(b"")
    line = {"slurp_id": 1, "sentence": "wake me up", "intent": "alarm_set", "recordings": [{"file": "audio-1.flac"}]}
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps(line) + "\n")
    (task,) = read_task("slurp", folder)
    assert isinstance(task, LabelTask)
    assert (task.test[0].label, task.test[0].side.text, task.test[0].side.audio) == ("alarm_set", "wake me up", audio)
    assert len(task.train) == 1
    (folder / "test.jsonl").write_text('{"sentence": "x", "intent": "y", "recordings": ["audio-1.flac"]}\n')
    (task,) = read_task("slurp", folder)
    assert isinstance(task, LabelTask)
    assert task.test[0].side.audio is None


def test_speech_commands(tmp_path: Path) -> None:
    for name in ("yes/a.wav", "yes/b.wav", "no/a.wav", "no/c.wav", "_background_noise_/hum.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "testing_list.txt").write_text("yes/a.wav\nno/a.wav\n")
    (tmp_path / "validation_list.txt").write_text("no/c.wav\n")
    (task,) = read_task("commands", tmp_path)
    assert isinstance(task, LabelTask)
    assert [row.label for row in task.test] == ["no", "yes"]
    assert [row.key for row in task.train] == ["yes/b.wav"]
    assert task.kinds == ("speech",)


def test_fluent_speech_commands(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    head = ",path,speakerId,transcription,action,object,location\n"
    (tmp_path / "data" / "train_data.csv").write_text(head + "0,wavs/a.wav,s,Go on,activate,music,none\n")
    (tmp_path / "data" / "test_data.csv").write_text(head + '0,wavs/b.wav,s,"Lights, please",activate,lights,kitchen\n')
    (task,) = read_task("fsc", tmp_path)
    assert isinstance(task, LabelTask)
    assert task.labels == ("activate lights kitchen", "activate music")
    assert (task.test[0].side.text, task.test[0].side.audio) == ("Lights, please", tmp_path / "wavs" / "b.wav")
    assert task.test[0].item == "Lights, please", "all who say it are one item"
    (tmp_path / "data" / "test_data.csv").write_text("path\n")
    with pytest.raises(SourceError, match="no column 'transcription'"):
        read_task("fsc", tmp_path)


def test_librispeech(tmp_path: Path) -> None:
    place = tmp_path / "libri" / "84" / "121123"
    place.mkdir(parents=True)
    (place / "84-121123.trans.txt").write_text("84-121123-0000 GO ON\n84-121123-0001 LOST\n84-121123-0002\n")
    (place / "84-121123-0000.flac").write_bytes(encode_flac(sound("low", 0)))
    (task,) = read_suite(tmp_path)
    assert isinstance(task, TranscriptTask)
    assert [(one.key, one.text) for one in task.utterances] == [("84-121123-0000", "go on")]
    assert [one.key for one in task.skipped] == ["84-121123-0001", "84-121123-0002"]


def test_questions_with_choices(tmp_path: Path) -> None:
    good = {"question": "one and one make", "choices": ["two", "three"], "answer": 0}
    bad = [{**good, "answer": 2}, {**good, "choices": ["two"]}, {**good, "choices": ["two", " "]}, {"question": "x"}]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [good, *bad]))
    (task,) = read_task("mine", tmp_path)
    assert (task.entries, len(task.skipped)) == (1, 4)


def test_built_labels_and_questions_give_no_answer_away() -> None:
    for said in (intents(), sentiments()):
        counts = {(row.split, row.label): 0 for row in said}
        for row in said:
            counts[row.split, row.label] += 1
        assert len(set(counts.values())) == 1
        assert len({row.text for row in said}) == len(said)
        assert not {row.text for row in said if row.split == "train"} & {r.text for r in said if r.split == "test"}
    asked = questions()
    assert len({one.question for one in asked}) == len(asked)
    assert all(len(set(one.choices)) == len(one.choices) == 4 for one in asked)
    assert {one.answer for one in asked} == {0, 1, 2, 3}


def test_the_synthesizer_depends_on_its_arguments_alone(tmp_path: Path) -> None:
    def said(voice: Voice | str, text: str = "The lamp is on.") -> tuple[int, bytes]:
        speak(text, voice, tmp_path / "x.wav")
        with wave.open(str(tmp_path / "x.wav")) as file:
            return file.getframerate(), file.readframes(file.getnframes())

    with Espeak() as speak:
        first = said("en-us+f3")
        other = said("en-us", "something else")
        assert said("en-us+f3") == first != other
        assert first[0] == 22050
        slow, fast = (len(said(Voice("en-us", rate=rate))[1]) for rate in (100, 250))
        assert slow > 1.5 * fast
        assert said(Voice("en-us", pitch=90))[1] != said(Voice("en-us", pitch=10))[1]
        wrong = (("x", "zzz", "no such voice"), ("x", "en-us+zz", "no such voice"), ("", "en-us", "nothing is heard"))
        for text, voice, match in wrong:
            with pytest.raises(SpiritLMError, match=match):
                said(voice, text)
    with Espeak() as speak:
        assert said("en-us+f3") == first


def test_stage(speaking: Path, tmp_path: Path) -> None:
    config = SuiteRunConfig.model_validate(
        {"sets": ["words", "intents", "styles", "transcripts"], "items": 3, "voices": ["en-us"],
         "ask": {"shots": 1, "max_new_tokens": 8, "bootstrap_samples": 100}}
    )  # fmt: skip
    summaries, files = [], []
    shutil.copytree(speaking, tmp_path / "model", ignore=shutil.ignore_patterns("speech_tokenizer"))
    parts = {path.name: path for path in (speaking / "speech_tokenizer").iterdir() if path.is_dir()}
    for name, models in (("one", {"model": speaking}), ("two", {"model": tmp_path / "model", **parts})):
        out, work = tmp_path / name / "out", tmp_path / name / "work"
        out.mkdir(parents=True)
        work.mkdir()
        summaries.append(SuiteStage(config, models).build({}, out, work, lambda *_: None))
        files.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert summaries[0] == summaries[1]
    assert files[0] == files[1]
    assert set(files[0]) == {"suite.json", "suite.md", "suite.html"}
    assert {name.partition("/")[0] for name in summaries[0]} <= {"words", "intents", "styles", "transcripts"}
    assert str(tmp_path).encode() not in b"".join(files[0].values())
    with pytest.raises(ValidationError, match="no set 'poems'"):
        SuiteRunConfig.model_validate({"sets": ["poems"]})


def test_commands(speaking: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = str(tmp_path / "sets")
    build = ["evaluate", "build-suite", "--out", out, "--text-only", "--items", "2"]
    built = run(app, [*build, "--set", "intents", "--set", "words"])
    assert (built.exit_code, built.stdout) == (0, "words\t2\nintents\t8\n")
    assert set(KINDS) > set(PAIRS)
    found = run(app, ["evaluate", str(speaking), "--suite", out, "--shots", "1", "--json"])  # short for `suite`
    assert found.exit_code == 0, found.output
    for wrong, match in (
        (["nonsense", "--suite", out], "nonsense is not a folder"),
        ([str(speaking), "--suite", out, "--out", f"{out}/words/pairs.jsonl"], "pairs.jsonl is not a folder"),
        ([str(speaking), "--suite", out, "--recogniser", f"{out}/gone"], "there is no file or folder"),
        ([str(speaking), str(speaking), "--suite", out], "named twice"),
        (["build-suite", "--out", f"{out}/words/pairs.jsonl/x", "--text-only"], "x cannot be made"),
        (["build-suite", "--out", f"{out}/none", "--text-only", "--set", "transcripts"], "none in text alone"),
        (["build-suite", "--out", f"{out}/none", "--set", "words", "--voice", "zzz"], "no such voice"),
    ):
        failed = run(app, ["evaluate", *wrong])
        assert isinstance(failed.exception, SpiritLMError), wrong
        assert match in str(failed.exception)
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["intents", "words"], "nothing half-written"
    assert "no folder nonsense" in str(run(app, ["evaluate", "nonsense"]).exception)
