"""Seeded checkpoints, imported."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from spiritlm_core.speech.tokenizer import SpeechTokenizer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
