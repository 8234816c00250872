"""``spiritlm import-checkpoints`` and ``spiritlm tokenize`` on seeded checkpoints."""

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.released import PARITY, golden

CLIP = PARITY / "wavs" / "allison_is.wav"
Roots = Callable[[str], Path]


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


def test_import(spiritlm: Callable, official: Roots, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = spiritlm("import-checkpoints", official("tiny"), out, "--variant", "base")
    assert (code, "base, written" in said) == (0, True)
    code, said, _ = spiritlm("import-checkpoints", official("tiny"), out, "--variant", "base", "--json")
    assert (code, json.loads(said)["fresh"]) == (0, False)
    code, said, error = spiritlm("import-checkpoints", official("tiny"), out)
    assert (code, said, "--force" in error, error.count("\n")) == (1, "", True, 1)
    assert spiritlm("import-checkpoints", official("tiny"), out, "--force")[0] == 0
    assert spiritlm("import-checkpoints", tmp_path / "nothing", out)[0] == 1


def test_tokenize(spiritlm: Callable, official: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    want = golden("tiny", "units")["allison_is"]
    root = official("tiny")
    assert spiritlm("tokenize", "--checkpoints", root, CLIP) == (0, f"{CLIP}\t{want['string_expressive']}\n", "")
    code, said, _ = spiritlm("tokenize", "--checkpoints", root, "--variant", "base", "--json", CLIP)
    line = json.loads(said)
    assert (code, line["file"], line["pitch"], line["style"]) == (0, str(CLIP), None, None)
    assert (line["hubert"], line["string"]) == (want["hubert"], want["string_base"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CLIP.read_bytes())))
    code, said, _ = spiritlm("tokenize", "--checkpoints", root, "--units", "-")
    columns = [" ".join(map(str, want[stream])) for stream in ("hubert", "pitch", "style")]
    assert (code, said) == (0, "\t".join(["-", *columns]) + "\n")


def test_an_unreadable_file_does_not_stop_the_others(
    spiritlm: Callable,
    imported: Roots,
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    code, said, error = spiritlm("tokenize", "--model", imported("tiny"), bad, CLIP, tmp_path / "none.wav")
    assert (code, said.count("\n"), said.startswith(str(CLIP))) == (1, 1, True)
    assert error.count("\n") == 2
    assert "bad.wav" in error
    assert "none.wav" in error
    assert spiritlm("tokenize", "--model", tmp_path / "nowhere", CLIP)[0] == 1
