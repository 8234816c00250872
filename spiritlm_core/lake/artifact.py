"""Artifacts: folders of files (fitted models, reports) committed by one small manifest.

Files are stored once under the sha256 of their bytes; the manifest names them. The first writer of a
manifest wins, so what lies under an artifact key never changes once it is there.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator

from spiritlm_core.errors import LakeError
from spiritlm_core.files import TEMPORARY, file_sha256, is_intact, new_entry
from spiritlm_core.lake.fingerprint import STRICT, Digest
from spiritlm_core.names import FileName
from spiritlm_core.store.objects import Store


def _no_file_in_a_file(files: dict[str, str]) -> dict[str, str]:
    for name in files:
        if inner := set(map(str, PurePosixPath(name).parents)) & set(files):
            raise ValueError(f"{inner.pop()!r} is a file and the folder of {name!r}")
    return files


@dataclass(frozen=True)
class Artifact:
    """The manifest of an artifact. `files` maps a relative name to the sha256 of its bytes."""

    __pydantic_config__ = STRICT

    key: Digest
    name: FileName
    stage_version: int
    identity: Digest
    config: Any
    models: dict[str, str]
    inputs: dict[str, str]
    files: Annotated[dict[FileName, Digest], AfterValidator(_no_file_in_a_file)]
    sizes: dict[str, int]
    summary: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    code_version: str = ""

    @property
    def place(self) -> str:
        """Where the manifest lies in the store."""
        return manifest_path(self.name, self.key)


def manifest_path(name: str, key: str) -> str:
    """Where the manifest of an artifact lies in the store."""
    return f"artifacts/{name}/{key}.json"


def blob_path(sha256: str) -> str:
    """Where the bytes of a file lie in the store."""
    return f"blobs/{sha256[:2]}/{sha256}"


def store_files(store: Store, folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Put every file below `folder` into the store; returns their digests and sizes by relative name.

    Of a file that is there already the bytes are checked, and written again if they are damaged.
    """
    files, sizes = {}, {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, sha256 = path.relative_to(folder).as_posix(), file_sha256(path)
        if not store.exists(blob_path(sha256)) or store.sha256(blob_path(sha256)) != sha256:
            store.write(blob_path(sha256), path.read_bytes())
        files[name], sizes[name] = sha256, path.stat().st_size
    if not files:
        raise LakeError(f"nothing was written below {folder}: an artifact needs at least one file")
    return files, sizes


def materialize(store: Store, artifact: Artifact, cache: Path) -> Path:
    """A local folder with the artifact's files, made once per machine and checked once per process.

    Local blobs are hard-linked where the file system allows it. A damaged copy is made again from the blobs.
    Raises LakeError for a blob that is missing or damaged.
    """
    target = cache / artifact.name / artifact.key
    if target.is_dir():
        if _is_intact(target, artifact):
            return target
        _drop(target)
    with new_entry(target) as scratch:
        for name in artifact.files:
            _fetch(store, artifact, name, scratch / "content" / name)
    return target


def _is_intact(folder: Path, artifact: Artifact) -> bool:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return names == set(artifact.files) and all(is_intact(folder / name, sha) for name, sha in artifact.files.items())


def _fetch(store: Store, artifact: Artifact, name: str, path: Path) -> None:
    sha256 = artifact.files[name]
    what = f"file {name} of {store.child(artifact.place)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        store.fetch(blob_path(sha256), path)
        state = None if file_sha256(path) == sha256 else "damaged"
    except FileNotFoundError:
        state = "missing"
    if state is not None:
        raise LakeError(
            f"{what}: its bytes in {store.child(blob_path(sha256))} are {state}; put back a copy of them, or delete "
            "the first of these two files and run again to build it anew"
        )


def _drop(folder: Path) -> None:
    """Take a folder away at once, so that no other process finds half of it."""
    aside = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
    try:
        folder.rename(aside / folder.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
