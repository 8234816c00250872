"""What is wrong with the arguments of a command is said before torch, transformers or a server is loaded for it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.watching import PATIENCE

HEAVY = ("torch", "transformers", "prefect", "ray")
SCRIPT = f"""
import json, sys
from spiritlm_core.cli import main
sys.argv = ["spiritlm", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, [name for name in {HEAVY} if name in sys.modules]]))
"""
EMPTY, CUT = "empty", "cut"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that look like a model's from far away."""
    folder = tmp_path_factory.mktemp("models")
    for name in (EMPTY, CUT):
        (folder / name).mkdir()
    (folder / CUT / "vocabulary.json").write_text("{}")
    (folder / CUT / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    (folder / "clip.wav").write_bytes(b"RIFF")
    return folder


CASES = [
    ("say {model} hello --out x.wav", "gone"),
    ("say {model} hello --out x.wav", EMPTY),
    ("transcribe {model} clip.wav", "gone"),
    ("transcribe {model} clip.wav", CUT),
    ("transcribe {model} none.wav", "gone"),
    ("generate {model} hello", "gone"),
    ("serve {model}", "gone"),
    ("serve {model}", CUT),
    ("fewshot asr {model} rows.jsonl", "gone"),
    ("evaluate suite {model} --suite sets", CUT),
    ("evaluate resynthesis --clips clips --model {model}", "gone"),
    ("tokenize clip.wav --model {model}", "gone"),
    ("resynthesize clip.wav --out out --model {model}", "gone"),
    ("finetune asr --data rows.jsonl --base {model}", "gone"),
    ("finetune asr --data rows.jsonl --base {model}", CUT),
]


@pytest.mark.parametrize(("command", "model"), CASES)
def test_a_model_that_cannot_be_used_is_named_at_once(folders: Path, command: str, model: str) -> None:
    arguments = command.format(model=model).split()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=folders,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert json.loads(done.stdout) == [1, []], done.stderr
    said = done.stderr.splitlines()[-1]
    assert model in said or "none.wav" in said
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_named_at_once(folders: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "tokenize", "none.wav", "none.flac", "--model", CUT],
        cwd=folders, capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert json.loads(done.stdout) == [1, []], done.stderr
    assert "none.wav" in done.stderr
    assert "none.flac" in done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run quickstart --lake ''", "the lake has an empty name"),
        ("run quickstart --lake ' '", "the lake has an empty name"),
        ("lake verify --lake clip.wav", "is not a folder"),
        ("status --lake clip.wav", "is not a folder"),
        ("run quickstart --lake ftp://host/lake", "unknown scheme 'ftp'"),
        ("fit units quickstart --out clip.wav/units", "is not a folder"),
        ("serve empty --aligner empty", "--aligner empty is no folder of an aligner"),
        ("finetune asr --data clip.wav --base lake://mine --out cut", "--out cut: is there already, and not empty"),
        ("evaluate ./gone", "gone is not a folder: name the folder of a model"),
    ],
)
def test_a_place_that_cannot_be_used_is_named_at_once(folders: Path, command: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *shlex.split(command)],
        cwd=folders, capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert json.loads(done.stdout) == [1, []], done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
