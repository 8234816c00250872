"""Stories in text and in speech tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.evaluate.corpora import WORD_LIST


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
