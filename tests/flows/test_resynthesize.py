"""``spiritlm resynthesize`` and ``spiritlm generate --out`` on seeded released checkpoints."""

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_core.speech.released.convert import import_checkpoints
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.support.released import PARITY, Roots

CLIP = PARITY / "wavs" / "allison_is.wav"


@pytest.fixture
def spiritlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable:
    """Run the command as a user would: exit status, standard output, standard error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = importlib.import_module("spiritlm_core.cli.app").command

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spiritlm", *map(str, arguments)])
        status = command()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def imported(whole: Roots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_checkpoints(whole("tiny"), tmp_path_factory.mktemp("imported") / "expressive").folder


def samples(path: Path) -> np.ndarray:
    assert (soundfile.info(path).samplerate, soundfile.info(path).subtype) == (16_000, "PCM_16")
    return soundfile.read(path, dtype="float32")[0]


def test_resynthesize(spiritlm: Callable, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, tokenizer = tmp_path / "new" / "out", SpeechTokenizer.from_pretrained(imported, device="cpu")
    units = tokenizer.encode(CLIP)
    line = f"{CLIP}\t{out / 'allison_is.wav'}\n"
    assert spiritlm("resynthesize", CLIP, "--model", imported, "--out", out) == (0, line, "")
    kept = samples(out / "allison_is.wav")
    assert np.abs(kept - tokenizer.decode(units)).max() < 1e-4
    assert len(kept) == 640 * len(units.hubert)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CLIP.read_bytes())))
    options = ["--predict-durations", "--speaker", 1, "--json"]
    code, said, _ = spiritlm("resynthesize", "-", "--model", imported, "--out", out, *options)
    want = tokenizer.decode(tokenizer.to_string(units), 1)
    assert (code, json.loads(said)) == (0, {"file": "-", "wav": str(out / "stdin.wav"), "seconds": len(want) / 16_000})
    assert np.abs(samples(out / "stdin.wav") - want).max() < 1e-4


def test_what_cannot_be_resynthesized(spiritlm: Callable, imported: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    short = PARITY / "wavs" / "edge_1279.wav"
    code, said, error = spiritlm("resynthesize", bad, CLIP, short, "--model", imported, "--out", tmp_path / "out")
    assert (code, said.count("\n"), error.count("\n")) == (1, 1, 2)
    assert "bad.wav" in error
    assert "edge_1279.wav: there are no HuBERT units" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["allison_is.wav"]
    copy = tmp_path / "copy.wav"
    copy.write_bytes(CLIP.read_bytes())
    for arguments, message in (
        ([copy, "--out", tmp_path], "is one of the files to read"),
        ([CLIP, CLIP, "--out", tmp_path], "more than once"),
        ([CLIP, "--out", tmp_path / "o", "--speaker", 7], "no speaker 7"),
        ([CLIP, "--out", copy / "below"], "is not a folder"),
    ):
        code, said, error = spiritlm("resynthesize", "--model", imported, *arguments)
        assert (code, said, error.count("\n")) == (1, "", 1), error
        assert message in error
    assert copy.read_bytes() == CLIP.read_bytes()


def test_generate_writes_speech(
    spiritlm: Callable,
    whole: Roots,
    imported: Path,
    tmp_path: Path,
) -> None:
    asked = ["generate", whole("tiny"), "The largest country", "--output", "speech", "--max-new-tokens", 12]
    given = ["--variant", "expressive", "--speech-tokenizer", imported]
    code, said, error = spiritlm(*asked, *given, "--out", tmp_path / "out", "--speaker", 0)
    assert (code, error) == (0, "")
    want = SpeechTokenizer.from_pretrained(imported, device="cpu").decode(said, 0)
    assert np.abs(samples(tmp_path / "out/1.wav") - want).max() < 1e-4
    code, said, _ = spiritlm(*asked, *given, "--out", tmp_path / "more", "--json")
    (segment,) = json.loads(said)["segments"]
    assert (code, segment["file"]) == (0, str(tmp_path / "more/1.wav"))
    assert (tmp_path / "more/1.wav").is_file()
    code, said, _ = spiritlm(*asked, *given, "--json")
    assert "file" not in json.loads(said)["segments"][0]
    assert not list(tmp_path.glob("*.wav"))
    code, said, error = spiritlm(*asked, *given, "--out", tmp_path / "none", "--speaker", 9)
    assert (code, said, error) == (1, "", "spiritlm: this vocoder has no speaker 9: it knows 0 to 3\n")
    code, said, error = spiritlm(
        *asked, "--variant", "base", "--speech-tokenizer", imported, "--out", tmp_path / "none"
    )
    assert (code, said, "--variant base" in error, error.count("\n")) == (1, "", True, 1)


def test_a_segment_that_cannot_be_spoken(
    spiritlm: Callable,
    whole: Roots,
    imported: Path,
    tmp_path: Path,
) -> None:
    """Expressive speech without a pitch token: the answer is printed, the segment named, and the status is 1."""
    given = ["--variant", "expressive", "--speech-tokenizer", imported, "--out", tmp_path / "out"]
    asked = ["generate", whole("tiny"), "--prompt", "[Speech]", "--output", "speech", "--max-new-tokens", 1]
    code, said, error = spiritlm(*asked, *given, "--json")
    (segment,) = json.loads(said)["segments"]
    assert (code, "file" in segment, error.count("\n"), "spiritlm: segment 1: " in error) == (1, False, 1, True)
    assert not (tmp_path / "out").exists()
