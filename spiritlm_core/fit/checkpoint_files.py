"""The files of a checkpoint: whether they are whole, and how they are read without running what is in them."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from spiritlm_core.errors import CheckpointError
from spiritlm_core.files import file_sha256, is_intact, write_atomically
from spiritlm_core.names import FileName

STATE = "state.json"
_FILES, _OWN = "files", "sha256"
_NAMED = TypeAdapter(dict[FileName, str])
_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *((_METADATA, name) for name in ("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex")),
    *((_METADATA, name) for name in ("StorageMeta", "TensorProperties", "TensorStorageMetadata")),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
}
"""Classes and functions that the ``.metadata`` of a checkpoint names, besides the types of numbers."""


def write_state(path: Path, record: Mapping[str, Any]) -> None:
    """Declare the checkpoint in the folder `path` complete: ``state.json``, with digests of all files and of itself."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith(STATE))
    said = {**record, _FILES: {file.relative_to(path).as_posix(): file_sha256(file) for file in files}}
    write_atomically(path / STATE, json.dumps({**said, _OWN: _digest(said)}, indent=1).encode())


def read_record(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What was given to :func:`write_state`, and the digest of each file (none in those of earlier versions).

    Raises CheckpointError: `path` is not a complete checkpoint.
    """
    try:
        said: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        if (own := said.pop(_OWN, None)) is not None and own != _digest(said):
            raise CheckpointError(f"{path}: {STATE} is damaged")
        return said, _NAMED.validate_python(said.pop(_FILES, {}))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a complete checkpoint: {error}") from error


def damage(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, as far as their bytes tell."""
    try:
        _, files = read_record(path)
    except CheckpointError as error:
        return str(error)
    wrong = [name for name, digest in files.items() if not is_intact(path / name, digest)]
    return f"{path}: cannot be loaded, {wrong[0]} is damaged" if wrong else None


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class _Unpickler(pickle.Unpickler):
    """Knows what belongs into the ``.metadata`` of a checkpoint, and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f".metadata asks for {module}.{name}, which no checkpoint needs")


class Reader(FileSystemReader):
    """Reads a checkpoint; its ``.metadata`` cannot run code."""

    def read_metadata(self) -> Metadata:
        """As in the base, which takes any pickle. Raises UnpicklingError for what does not belong there."""
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(".metadata does not describe a checkpoint")
        metadata.storage_meta = getattr(metadata, "storage_meta", None) or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class Planner(DefaultLoadPlanner):
    """Plain values of a checkpoint, such as learning rates, cannot run code either."""

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        """As in the base, which takes any pickle; what is read again here is plain. Raises UnpicklingError."""
        plain = torch.load(value, weights_only=True)
        safe = BytesIO()
        torch.save(plain, safe)
        safe.seek(0)
        super().load_bytes(read_item, safe)
