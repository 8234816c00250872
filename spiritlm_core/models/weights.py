"""Indexes of weights that lie in several files: ``model.safetensors.index.json`` and the like."""

from __future__ import annotations

from pathlib import Path

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.models.content import file_below
from spiritlm_core.tokens.plain import read_json


def weight_files(index: Path) -> dict[str, Path]:
    """The file that holds each tensor, by the tensor's name.

    Raises:
        ModelReferenceError: `index` is damaged, or names what does not lie beside it.
    """
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise ModelReferenceError(f"{index} has no weight_map of names to files: download it again")
    return {name: file_below(index.parent, file, str(index)) for name, file in where.items()}


def check_indexes(folder: Path) -> None:
    """Check every index in a folder, which libraries then follow. Raises ModelReferenceError."""
    for index in sorted(folder.glob("*.index.json")):
        weight_files(index)
