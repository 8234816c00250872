"""Looking after a lake: listing, checking every byte, and dropping what no ref names."""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.artifact import Artifact, blob_path, manifest_path
from spiritlm_core.lake.lake import Lake, shard_path, snapshot_path
from spiritlm_core.lake.lease import hold
from spiritlm_core.lake.shard import check_footer, read_footer, read_rows
from spiritlm_core.lake.snapshot import Ref, Snapshot
from spiritlm_core.lake.store import LocalStore

ABANDONED_SECONDS = 3600.0
"""A temporary file this old was left by a killed writer."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with one object of the lake."""

    path: str
    problem: str


@dataclass
class Sweep:
    """What garbage collection deletes (or would)."""

    paths: list[str] = field(default_factory=list)
    bytes: int = 0


def resolve_ref(lake: Lake, ref: Ref) -> Snapshot | Artifact:
    """What a ref points to. Raises LakeError if it is gone."""
    if ref.kind == "table":
        return lake.read_snapshot(ref.name, ref.target)
    artifact = lake.read_artifact(ref.name, ref.target)
    if artifact is None:
        raise LakeError(f"{lake.store.child(manifest_path(ref.name, ref.target))} is missing; run {ref.recipe!r} again")
    return artifact


def verify(lake: Lake) -> Iterator[Problem]:
    """Read every object and yield what is damaged, misnamed or missing."""
    for entry in lake.store.walk("tables"):
        yield from _verify_shard(lake, entry.path)
    for entry in lake.store.walk("blobs"):
        if hashlib.sha256(lake.store.read(entry.path)).hexdigest() != PurePosixPath(entry.path).name:
            yield Problem(entry.path, "its bytes do not match its name")
    for entry in lake.store.walk("snapshots"):
        yield from _verify_snapshot(lake, entry.path)
    for entry in lake.store.walk("artifacts"):
        yield from _verify_artifact(lake, entry.path)
    for entry in lake.store.walk("refs"):
        try:
            resolve_ref(lake, Ref.from_json(lake.store.read(entry.path), entry.path))
        except LakeError as error:
            yield Problem(entry.path, str(error))


def _verify_shard(lake: Lake, path: str) -> Iterator[Problem]:
    try:
        data = lake.store.read(path)
        footer = read_footer(io.BytesIO(data), path)
        rows = read_rows(io.BytesIO(data), path)
    except LakeError as error:
        yield Problem(path, str(error))
        return
    for problem in check_footer(footer, PurePosixPath(path).stem, rows.num_rows):
        yield Problem(path, problem)


def _verify_snapshot(lake: Lake, path: str) -> Iterator[Problem]:
    try:
        snapshot = Snapshot.from_json(lake.store.read(path), path)
    except LakeError as error:
        yield Problem(path, str(error))
        return
    if snapshot.fingerprint != PurePosixPath(path).stem:
        yield Problem(path, "its name is not its fingerprint")
    for key in snapshot.keys:
        if not lake.has_shard(snapshot.table, key):
            yield Problem(path, f"names shard {key[:12]}, which is missing")


def _verify_artifact(lake: Lake, path: str) -> Iterator[Problem]:
    try:
        artifact = Artifact.from_json(lake.store.read(path), path)
    except LakeError as error:
        yield Problem(path, str(error))
        return
    for name, sha256 in artifact.files.items():
        if not lake.store.exists(blob_path(sha256)):
            yield Problem(path, f"names {name} ({sha256[:12]}), which is missing")


def collect_garbage(lake: Lake, *, dry_run: bool = False) -> Sweep:
    """Delete what no ref names. Raises LakeError while a run works on the lake (a dry run may look at any time)."""
    if dry_run:
        return _find_garbage(lake)
    with hold(lake.store, "gc"):
        sweep = _find_garbage(lake)
        for path in sweep.paths:
            lake.store.delete(path)
        _drop_local_copies(lake, sweep)
    return sweep


def _find_garbage(lake: Lake) -> Sweep:
    keep = _reachable(lake)
    sweep = Sweep()
    for folder in ("tables", "blobs", "snapshots", "artifacts"):
        for entry in lake.store.walk(folder):
            if entry.path not in keep:
                sweep.paths.append(entry.path)
                sweep.bytes += entry.size
    return sweep


def _reachable(lake: Lake) -> set[str]:
    """Every path that a ref leads to. A ref that cannot be followed stops the collection: better kept than lost."""
    keep: set[str] = set()
    for ref in lake.refs():
        target = resolve_ref(lake, ref)
        if isinstance(target, Snapshot):
            keep.add(snapshot_path(target.table, target.fingerprint))
            keep.update(shard_path(target.table, key) for key in target.keys)
        else:
            keep.add(manifest_path(target.name, target.key))
            keep.update(blob_path(sha256) for sha256 in target.files.values())
    return keep


def _drop_local_copies(lake: Lake, sweep: Sweep) -> None:
    """Temporary files of killed writers, unpacked artifacts that are gone, checkpoints of finished ones."""
    if not isinstance(lake.store, LocalStore):
        return
    sweep.paths.extend(lake.store.sweep(time.time() - ABANDONED_SECONDS))
    root = lake.store.root
    for path in sweep.paths:
        if path.startswith("artifacts/"):
            name, key = PurePosixPath(path).parts[1], PurePosixPath(path).stem
            shutil.rmtree(root / "cache" / "artifacts" / name / key, ignore_errors=True)
    for work in root.glob("work/*/*"):
        if work.is_dir() and lake.store.exists(manifest_path(work.parent.name, work.stem)):
            shutil.rmtree(work, ignore_errors=True)


def describe_size(count: float) -> str:
    """Bytes for people: ``12.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
