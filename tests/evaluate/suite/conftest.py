"""A random model with a speech tokenizer beside it, and stories in text and speech tokens."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.lm.generate.spirit import SpiritLM
from tests.evaluate.suite.stories import story, write_pairs


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(5)
    return write_pairs(tmp_path_factory.mktemp("suite") / "stories", [story(rng, number) for number in range(150)])


@pytest.fixture(scope="session")
def spirit(model_folder: Path) -> SpiritLM:
    return SpiritLM.from_pretrained(model_folder)


@pytest.fixture(scope="session")
def speaking(model_folder: Path, speech_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model with a speech tokenizer beside it."""
    folder = tmp_path_factory.mktemp("speaking") / "model"
    shutil.copytree(model_folder, folder)
    shutil.copytree(speech_tokenizer, folder / "speech_tokenizer")
    return folder
