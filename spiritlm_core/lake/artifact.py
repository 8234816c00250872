"""Artifacts: folders of files (fitted models, reports) committed by one small manifest.

Files are stored once under the sha256 of their bytes; the manifest names them. The first writer of a
manifest wins, so what lies under an artifact key never changes once it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.store import Store


@dataclass(frozen=True)
class Artifact:
    """The manifest of an artifact. `files` maps a relative name to the sha256 of its bytes."""

    key: str
    name: str
    stage_version: int
    identity: str
    config: Any
    models: dict[str, str]
    inputs: dict[str, str]
    files: dict[str, str]
    sizes: dict[str, int]
    summary: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    code_version: str = ""

    def to_json(self) -> bytes:
        """The manifest as JSON."""
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, name: str = "artifact") -> Artifact:
        """Read :meth:`to_json`. Raises LakeError."""
        try:
            return cls(**json.loads(data))
        except (TypeError, ValueError) as error:
            raise LakeError(f"{name} is not an artifact manifest ({error})") from error


def manifest_path(name: str, key: str) -> str:
    """Where the manifest of an artifact lies in the store."""
    return f"artifacts/{name}/{key}.json"


def blob_path(sha256: str) -> str:
    """Where the bytes of a file lie in the store."""
    return f"blobs/{sha256[:2]}/{sha256}"


def store_files(store: Store, folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Put every file below `folder` into the store; returns their digests and sizes by relative name."""
    files, sizes = {}, {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        if not store.exists(blob_path(sha256)):
            store.write(blob_path(sha256), data)
        name = path.relative_to(folder).as_posix()
        files[name], sizes[name] = sha256, len(data)
    if not files:
        raise LakeError(f"nothing was written below {folder}: an artifact needs at least one file")
    return files, sizes


def materialize(store: Store, artifact: Artifact, cache: Path) -> Path:
    """A local folder with the artifact's files, made at most once per machine.

    Local blobs are hard-linked where the file system allows it. Raises LakeError for a blob that is missing or damaged.
    """
    target = cache / artifact.name / artifact.key
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    for name, sha256 in artifact.files.items():
        _fetch(store, sha256, temporary / name, f"{artifact.name}/{artifact.key[:12]}/{name}")
    try:
        temporary.rename(target)
    except OSError:  # another process was faster; its files are the same
        _remove(temporary)
    return target


def _fetch(store: Store, sha256: str, path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        data = store.read(blob_path(sha256))
    except FileNotFoundError as error:
        raise LakeError(f"{name}: its bytes ({sha256[:12]}) are not in {store.uri}; run again with --refit") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise LakeError(f"{name}: its bytes ({sha256[:12]}) in {store.uri} are damaged; delete them and run again")
    local = store.local_path(blob_path(sha256))
    if local is None or not _link(local, path):
        path.write_bytes(data)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
