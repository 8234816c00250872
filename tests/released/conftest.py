"""Seeded checkpoints in the released layout, written by the generator among the shared parity data."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from spiritlm_core.speech.tokenizer import SpeechTokenizer

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
GOLDENS = {"tiny": "11", "alt": "11_alt"}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def golden(preset: str, name: str) -> dict:
    return json.loads((PARITY / "goldens" / GOLDENS[preset] / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Root folder of the seeded checkpoints of a preset, the tensors of which are those of the goldens."""
    script = PARITY / "make_checkpoints.py"
    if not script.is_file():
        pytest.skip(f"{script} is not there")

    @cache
    def make(preset: str) -> Path:
        root = tmp_path_factory.mktemp(preset)
        parts = "hubert,f0,style"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script.name, str(root), "--seed", "11", "--preset", preset, "--parts", parts])
            runpy.run_path(str(script), run_name="__main__")
        expected = golden(preset, "meta")["checkpoint"]["parts"]
        made = json.loads((root / "manifest.json").read_text())["parts"]
        assert made == {part: expected[part] for part in ("f0", "hubert", "quantizer", "style")}
        return root

    return make


@pytest.fixture(scope="session")
def imported(official: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same, converted."""
    from spiritlm_core.speech.released.convert import import_checkpoints

    @cache
    def convert(preset: str) -> Path:
        out = tmp_path_factory.mktemp("imported") / preset
        assert import_checkpoints(official(preset), out).fresh
        return out

    return convert


@pytest.fixture(scope="session")
def tokenizer(imported: Callable[[str], Path]) -> Callable[[str, str], SpeechTokenizer]:
    """A loaded tokenizer of a preset and variant."""

    @cache
    def load(preset: str, variant: str) -> SpeechTokenizer:
        return SpeechTokenizer.from_pretrained(imported(preset), variant, device="cpu")

    return load


@pytest.fixture
def copy(official: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny checkpoints that a test may damage."""
    return Path(shutil.copytree(official("tiny"), tmp_path / "official"))
