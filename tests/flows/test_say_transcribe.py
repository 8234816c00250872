"""``spiritlm transcribe``, ``say`` and ``classify`` on a small model that hears and speaks."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.cli.files import wav_stream
from spiritlm_core.lm.generate.content import Answer, TextSegment
from spiritlm_core.lm.generate.decode import Finish
from spiritlm_core.lm.generate.presets import ask
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import Offered, Verdict, write_verdicts
from tests.support.small_model import sound

TOKENS = "[St2][Pi3][Hu1][Hu5]"


@pytest.fixture
def spiritlm(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable:
    """Run the command as a user would: exit status, standard output in bytes, standard error."""
    command = importlib.import_module("spiritlm_core.cli.app").command

    def run(*arguments: object) -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["spiritlm", *map(str, arguments)])
        status = command()
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return status, captured.out, captured.err.decode()

    return run


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{label}.wav" for label in ("low", "high")]
    for path in paths:
        path.write_bytes(encode_wav(sound(path.stem, 1)))
    return paths


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_transcribe(spiritlm: Callable, speaking: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = SpiritLM.from_pretrained(speaking, "cpu")
    options = ["--max-new-tokens", 12, "--temperature", 1, "--seed", 3]
    asked = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3}
    want = [" ".join(ask(model, "asr", [clip], **asked)[0].text.split()) for clip in clips]
    code, out, error = spiritlm("transcribe", speaking, *clips, *options)
    assert (code, error) == (0, "")
    assert out.decode() == "".join(f"{clip}\t{text}\n" for clip, text in zip(clips, want, strict=True))
    stdin(monkeypatch, clips[0].read_bytes())
    assert spiritlm("transcribe", speaking, "-", *options)[1].decode() == f"{want[0]}\n"
    lines = spiritlm("transcribe", speaking, *clips, *options, "--json", "--batch", 1)[1].decode().splitlines()
    assert [" ".join(json.loads(line)["text"].split()) for line in lines] == want
    once = " ".join(model.generate([clips[1]], "text", stop=("[Speech]",), **asked).text.split())
    assert spiritlm("transcribe", speaking, clips[1], *options, "--hearings", 1)[1].decode() == f"{once}\n"
    code, _, error = spiritlm("transcribe", speaking, clips[1], "--hearings", 0)
    assert code != 0
    assert "--hearings" in error


def test_transcribe_with_shots_and_bad_files(
    spiritlm: Callable,
    speaking: Path,
    clips: list[Path],
    tmp_path: Path,
) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text(json.dumps({"audio": "low.wav", "text": "one"}) + "\n")
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    (tmp_path / "short.wav").write_bytes(encode_wav(np.zeros(99)))
    (tmp_path / "long.wav").write_bytes(encode_wav(sound("low", 1, 9)))
    bad = [tmp_path / f"{name}.wav" for name in ("bad", "short", "long", "gone")]
    options = ["--max-new-tokens", 6, "--shots", shots, "--hearings", 1]
    code, out, error = spiritlm("transcribe", speaking, bad[0], clips[0], *bad[1:], clips[1], *options)
    wrong = [line for line in error.splitlines() if "the answer is empty" not in line]
    assert (code, out.decode().count("\n"), len(wrong)) == (1, 2, 4), error
    for path, message in zip(
        bad, ("cut short|decoded|trunc", "too short", "context is 128", "No such file"), strict=True
    ):
        (line,) = [line for line in error.splitlines() if str(path) in line]
        assert any(word in line for word in message.split("|")), line
    model = SpiritLM.from_pretrained(speaking, "cpu")
    want = model.generate([clips[1]], "text", shots=[(clips[0], "one")], max_new_tokens=6, stop=("[Speech]",)).text
    assert out.decode().splitlines()[1] == f"{clips[1]}\t{' '.join(want.split())}"


def test_say(spiritlm: Callable, speaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SpiritLM.from_pretrained(speaking, "cpu")
    (segment,) = model.generate("press one", "speech", max_new_tokens=20, stop=("[Text]",))
    want = np.clip(segment.waveform(2), -1, 1)
    options = ["--max-new-tokens", 20, "--speaker", 2]
    file = tmp_path / "new" / "a.wav"
    code, out, error = spiritlm("say", speaking, "press one", "--out", file, *options)
    assert (code, out.decode(), error) == (0, f"{file}\tpress one\n", "")
    assert np.abs(soundfile.read(file, dtype="float32")[0] - want).max() < 1e-4
    code, out, error = spiritlm("say", speaking, "press one", "--out", "-", *options)
    piped, rate = soundfile.read(io.BytesIO(out), dtype="float32")
    assert (code, error, rate, len(piped)) == (0, "", 16_000, len(want))
    assert np.abs(piped - want).max() < 1e-4
    stdin(monkeypatch, b"press one\n\npress two\n")
    code, out, _ = spiritlm("say", speaking, "-", "--out", tmp_path / "many", "--json", *options)
    found = [json.loads(line) for line in out.splitlines()]
    assert [(line["text"], Path(line["file"]).name) for line in found] == [
        ("press one", "1.wav"),
        ("press two", "2.wav"),
    ]
    assert found[0]["tokens"] == segment.tokens
    assert (tmp_path / "many/1.wav").read_bytes() == file.read_bytes()


def test_tokens_need_no_vocoder(spiritlm: Callable, base: Path, tmp_path: Path) -> None:
    code, out, error = spiritlm("say", base, "press one", "--json", "--max-new-tokens", 8)
    assert (code, error, set(json.loads(out))) == (0, "", {"text", "tokens", "finish"})
    code, out, error = spiritlm("say", base, "press one", "--out", tmp_path / "a.wav")
    assert (code, out, "no vocoder" in error, error.count("\n")) == (1, b"", True, 1)


def test_what_cannot_be_said(
    spiritlm: Callable,
    speaking: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for arguments, message in (
        (["x"], "say where the speech goes"),
        (["x", "--out", "x.mp3"], "only WAV is written"),
        ([" ", "--out", "x.wav"], "no text to say"),
        (["x", "y", "--out", "a.wav"], "for a single text"),
        (["x", "--out", "-", "--json"], "standard output"),
        (["x", "--out", __file__], "is not a folder"),
        (["x", "--out", f"{__file__}/a.wav"], "is not a folder"),
        (["x", "--out", tmp_path, "--speaker", 9], "no speaker 9"),
        (["x", "--out", tmp_path, "--expression", 1], "no expression 1"),
        (["x", "--out", tmp_path, "--shots", tmp_path / "no"], "cannot be read"),
    ):
        code, out, error = spiritlm("say", speaking, *arguments)
        assert (code, out, error.count("\n")) == (1, b"", 1), error
        assert message in error
    code, out, error = spiritlm("say", speaking, "one " * 200, "one", "--out", tmp_path / "o", "--max-new-tokens", 9)
    assert (code, out.decode(), error.count("\n")) == (1, f"{tmp_path / 'o/2.wav'}\tone\n", 1)
    assert "context is 128" in error
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
    code, out, error = spiritlm("say", speaking, "x", "--out", "-")
    assert (code, out, "to the terminal" in error) == (1, b"", True)


def test_a_pipe_is_written_as_speech_comes(tmp_path: Path) -> None:
    """With a header before the length is known; a file has the right one."""
    waveforms = [sound("low", 1), sound("high", 1)]
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as heard, os.fdopen(write_end, "wb") as file:
        with wav_stream(file) as write:
            write(waveforms[0][:1000])
            first = os.read(heard.fileno(), 1 << 16)
            write(waveforms[1][:1000])
        rest = os.read(heard.fileno(), 1 << 16)
    with (tmp_path / "a.wav").open("wb") as file, wav_stream(file) as write:
        for waveform in waveforms:
            write(waveform[:1000])
        assert file.tell() == 0
    whole = encode_wav(np.concatenate([waveform[:1000] for waveform in waveforms]))
    assert (tmp_path / "a.wav").read_bytes() == whole
    assert (first[:4], len(first), len(rest)) == (b"RIFF", 2044, 2000)
    assert first[44:] + rest == whole[44:]
    assert len(soundfile.read(io.BytesIO(first + rest))[0]) == 2000, "readers take what there is"


def test_classify(spiritlm: Callable, speaking: Path, clips: list[Path], tmp_path: Path) -> None:
    from spiritlm_core.lm.generate.presets import classify

    model = SpiritLM.from_pretrained(speaking, "cpu")
    want = [classify(model, clip, ("one", "two")) for clip in clips]
    code, out, error = spiritlm("classify", speaking, *clips, "--labels", "one, two")
    assert (code, error) == (0, "")
    assert out.decode() == "".join(f"{clip}\t{one.label}\n" for clip, one in zip(clips, want, strict=True))
    found = json.loads(spiritlm("classify", speaking, clips[0], "--labels", "one,two", "--json")[1])
    assert found["probabilities"] == pytest.approx(
        dict(zip(("one", "two"), want[0].probabilities, strict=True)), abs=1e-4
    )
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    code, out, error = spiritlm("classify", speaking, tmp_path / "bad.wav", clips[0], "--labels", "one,two")
    assert (code, out.decode(), "bad.wav" in error) == (1, f"{clips[0]}\t{want[0].label}\n", True)
    (tmp_path / "quiet.wav").write_bytes(encode_wav(np.zeros(16_000, np.float32)))
    code, out, error = spiritlm("classify", speaking, tmp_path / "quiet.wav", "--labels", "one,two", "--json")
    assert (code, json.loads(out)["empty"]) == (0, "there is no speech in the recording: it is silent throughout")
    assert "quiet.wav: there is no speech" in error
    for labels, message in (("one", "two labels"), ("one,one", "twice")):
        assert message in spiritlm("classify", speaking, clips[0], "--labels", labels)[2]
    assert "--labels yes,no" in spiritlm("classify", speaking, clips[0])[2]


def test_a_model_that_was_judged_no_good_says_so_once_and_still_answers(
    spiritlm: Callable, speaking: Path, clips: list[Path], tmp_path: Path
) -> None:
    about = {"on": "held-out recordings", "items": 9, "better": False}
    rate, nothing = Estimate(1.2, 1.1, 1.3), {"nothing": 1.0}
    judged = shutil.copytree(speaking, tmp_path / "judged")
    tasks: tuple[Offered, ...] = ("transcribe", "say", "classify")
    write_verdicts(
        judged, [Verdict.of(task, "error rate", rate, nothing, **about, labels=("a", "b")) for task in tasks]
    )
    commands = {
        "transcribe": (*clips, "--max-new-tokens", 4),
        "say": ("one", "two", "--json", "--max-new-tokens", 4),
        "classify": clips,  # the labels are those that it was judged with
    }
    for task, arguments in commands.items():
        code, out, error = spiritlm(task, judged, *arguments)
        told = [line for line in error.splitlines() if "not shown" in line]
        assert (code, out.count(b"\n"), len(told)) == (0, 2, 1), error
        assert f"not shown to {task} better than trivial answers do: error rate 120 % [110, 130]" in told[0]


@pytest.mark.parametrize(("finish", "ids", "why"), [
    ("eos", (), "to end at once"), ("stop", (), "other modality"), ("length", (), "no room"), ("eos", (5,), "white"),
])  # fmt: skip
def test_an_empty_answer_says_why(finish: Finish, ids: tuple[int, ...], why: str) -> None:
    empty = Answer((TextSegment(" "),) if ids else (), (1,), ids, finish).empty
    assert empty is not None
    assert why in empty
    assert Answer((TextSegment("one"),), (1,), (5,), finish).empty is None


def test_an_empty_transcript_is_an_empty_line_and_a_reason(
    spiritlm: Callable, speaking: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Answer((), (1,), (), "eos")
    monkeypatch.setattr(SpiritLM, "answers", lambda _, prompts, *__: [nothing for _ in prompts])
    code, out, error = spiritlm("transcribe", speaking, clips[0])
    assert (code, out, error.count("\n")) == (0, b"\n", 1)
    assert f"{clips[0]}: the answer is empty: to end at once" in error
    code, _, error = spiritlm("say", speaking, "one", "--out", clips[0].with_name("new.wav"))
    assert (code, "to end at once" in error) == (1, True)
