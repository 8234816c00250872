"""Files of weights and their indexes, checked without reading the weights: what broke off, or leads elsewhere."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json
from spiritlm_core.references.content import file_below

_LONGEST = 100_000_000
"""Bytes of a header that the format allows."""


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


def check_weights(folder: Path) -> None:
    """Check every index in a folder, and whether ``.safetensors`` files in it and below are as long as they say.

    Raises:
        ModelReferenceError: one is cut short, damaged, or leads elsewhere; it is named.
    """
    check_indexes(folder)
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            expected = _size(path)
        except (
            OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, struct.error
        ) as error:  # fmt: skip
            raise ModelReferenceError(f"{path}: its header cannot be read: copy or download it anew") from error
        if path.stat().st_size != expected:
            raise ModelReferenceError(
                f"{path}: has {path.stat().st_size} bytes of {expected}: copy or download it anew, it is damaged"
            )


def _size(path: Path) -> int:
    """Bytes that a file has to have."""
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(length, _LONGEST)))
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return int(8 + length + max(ends, default=0))
