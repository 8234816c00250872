"""A random model with a speech tokenizer beside it, and stories in text and speech tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiritlm_core.lm.generate.spirit import SpiritLM
from tests.evaluate.conftest import WORD_LIST
from tests.finetune.conftest import speech_tokenizer

__all__ = ["speech_tokenizer"]


def words(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(WORD_LIST, count))


def units(rng: np.random.Generator, count: int) -> str:
    return "[St1][Pi2]" + "".join(f"[Hu{unit}]" for unit in rng.integers(0, 24, count))


def story(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """The good and the bad ending are drawn alike: nothing tells them apart."""
    sides = {"prefix": (4, 12), "good": (3, 10), "bad": (3, 10)}
    forms = {field: {"text": words(rng, n), "audio": units(rng, m)} for field, (n, m) in sides.items()}
    return {"id": f"s{number}", "kind": ("even", "odd")[number % 2], **forms}


def write_pairs(folder: Path, rows: list[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (folder / "pairs.jsonl").write_text(text, encoding="utf-8")
    return folder


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
