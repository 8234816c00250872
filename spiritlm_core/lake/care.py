"""Looking after a lake: listing, checking every byte, and dropping what no ref names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.artifact import Artifact, blob_path, manifest_path
from spiritlm_core.lake.fingerprint import STRICT, Placed, digest, read_object, write_object
from spiritlm_core.lake.forgotten import FOLDER, Tombstone, forgotten
from spiritlm_core.lake.lake import Lake, shard_path, snapshot_paths
from spiritlm_core.lake.lease import Lease, hold, live_leases
from spiritlm_core.lake.shard import check_footer, check_shard, read_footer, read_rows
from spiritlm_core.lake.snapshot import Ref, Snapshot
from spiritlm_core.store.local import LocalStore

ABANDONED_SECONDS = 3600.0
"""A temporary file this old was left by a killed writer."""

RETIRED = frozenset({"examples"})
"""Stages of older versions: nobody reads any more what they made."""


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


def verify(lake: Lake, count: Counter[str] | None = None, *, fast: bool = False) -> Iterator[Problem]:
    """Read every object and yield what is damaged, misnamed or missing; `count` is told the number of ``objects``.

    A `fast` one does not read shards and blobs, only whether those that are named are there.
    """
    count = Counter() if count is None else count
    for folder, check in _CHECKS.items():
        for entry in lake.store.walk(folder, everything=True):
            if entry.link:
                problem = "is a symbolic link or no file at all; put the file or folder itself in its place"
                yield Problem(entry.path, problem)
            if entry.link or entry.temporary:
                continue
            count["objects"] += 1
            if fast and folder in ("tables", "blobs"):
                continue
            try:
                yield from (Problem(entry.path, problem) for problem in check(lake, entry.path))
            except FileNotFoundError:  # deleted meanwhile
                continue
            except (LakeError, OSError) as error:
                yield Problem(entry.path, str(error))


def _verify_shard(lake: Lake, path: str) -> Iterator[str]:
    data = lake.store.read(path)
    check_shard(data, path)
    footer = read_footer(pa.BufferReader(data), path)
    rows = read_rows(pa.BufferReader(data), path)
    if shard_path(footer.table, footer.key) != path:
        yield f"its footer says that it is {shard_path(footer.table, footer.key)}"
    yield from check_footer(footer, rows.num_rows)


def _verify_blob(lake: Lake, path: str) -> Iterator[str]:
    if blob_path(lake.store.sha256(path)) != path:
        name = PurePosixPath(path).name.encode()
        users = [entry.path for entry in lake.store.walk("artifacts") if name in lake.store.read(entry.path)]
        yield f"its bytes do not match its name; it is a file of {', '.join(users) or 'no artifact'}"


def _verify_snapshot(lake: Lake, path: str) -> Iterator[str]:
    snapshot = Snapshot.from_bytes(lake.store.read(path), path)
    if path not in snapshot_paths(snapshot.table, snapshot.fingerprint):
        yield "its name is not its fingerprint"
    there = lake.shard_keys(snapshot.table)
    missing = [key for key in snapshot.keys if key not in there]
    if missing and any((ref.name, ref.target) == (snapshot.table, snapshot.fingerprint) for ref in lake.refs()):
        yield from (f"names shard {key[:12]}, which is missing" for key in missing)


def _verify_artifact(lake: Lake, path: str) -> Iterator[str]:
    for name, sha256 in read_object(lake.store, Artifact, path).files.items():
        if not lake.store.exists(blob_path(sha256)):
            yield f"names {name} ({sha256[:12]}), which is missing"


def _verify_ref(lake: Lake, path: str) -> Iterator[str]:
    resolve_ref(lake, read_object(lake.store, Ref, path))
    return iter(())


def _verify(kind: type[Placed]) -> Callable[[Lake, str], Iterator[str]]:
    """A check of an object that names no other."""

    def check(lake: Lake, path: str) -> Iterator[str]:
        read_object(lake.store, kind, path)
        return iter(())

    return check


@dataclass(frozen=True)
class Export:
    """A folder elsewhere that was made of the lake, with the snapshots and artifacts that it was made from."""

    __pydantic_config__ = STRICT

    path: str
    made_from: list[str]

    @property
    def place(self) -> str:
        """Where it lies in the store."""
        return f"exports/{digest({'path': self.path})}.json"


_CHECKS: dict[str, Callable[[Lake, str], Iterator[str]]] = {
    "refs": _verify_ref,
    "snapshots": _verify_snapshot,
    "artifacts": _verify_artifact,
    "tables": _verify_shard,
    "blobs": _verify_blob,
    "leases": _verify(Lease),
    "exports": _verify(Export),
    FOLDER: _verify(Tombstone),
}
"""What names others stands before them: where a collection is killed, nothing is left that names what is gone."""


def collect_garbage(lake: Lake, *, dry_run: bool = False) -> Sweep:
    """Delete what no ref names. Raises LakeError while a run works on the lake (a dry run may look at any time)."""
    if dry_run:
        return _find_garbage(lake)
    with hold(lake.store, "gc"):
        sweep = _find_garbage(lake)
        for path in sweep.paths:
            lake.store.delete(path)
        if isinstance(lake.store, LocalStore):
            lake.store.prune("cache/artifacts")
            lake.store.prune("work")
    return sweep


def _find_garbage(lake: Lake) -> Sweep:
    """Symbolic links are not ours, and stay."""
    keep, before = _reachable(lake), lake.store.now() - ABANDONED_SECONDS
    keep |= _resumable(lake)
    sweep = Sweep()
    for folder in (*_CHECKS, "cache", "work", "outputs"):
        for entry in lake.store.walk(folder, everything=True):
            unused = entry.modified < before if entry.temporary else _is_unused(lake, entry.path, keep)
            if unused and not entry.link:
                sweep.paths.append(entry.path)
                sweep.bytes += entry.size
    return sweep


def _resumable(lake: Lake) -> set[str]:
    """The folders of unfinished fits that may go on: not of those last written before something was forgotten."""
    latest, written = forgotten(lake).latest, dict[str, float]()
    for entry in lake.store.walk("work", everything=True):
        folder = _work_of(entry.path)
        written[folder] = max(written.get(folder, 0.0), entry.modified)
    return {folder for folder, modified in written.items() if modified >= latest}


def _work_of(path: str) -> str:
    """``work/NAME/KEY``, whichever of its files, and of those beside it, is meant."""
    return "/".join(path.split("/")[:3]).partition(".")[0]


def _is_unused(lake: Lake, path: str, keep: set[str]) -> bool:
    """Whether nothing that is kept needs an object or a local copy; `work` of what is not built yet is kept."""
    folder, *names = path.split("/")
    if folder == "refs":
        return PurePosixPath(path).stem in RETIRED
    if folder == "cache":
        return names[0] == "artifacts" and len(names) > 3 and manifest_path(names[1], names[2]) not in keep
    if folder == "work":
        built = len(names) > 1 and lake.store.exists(manifest_path(names[0], PurePosixPath(names[1]).stem))
        return built or _work_of(path) not in keep
    return folder not in ("outputs", "exports", FOLDER) and path not in keep


def _reachable(lake: Lake) -> set[str]:
    """Every path that a ref leads to, and the leases of who is at work.

    A ref that cannot be followed stops the collection: better kept than lost.
    """
    keep, made_from = {lease.place for lease in live_leases(lake.store)}, set[tuple[str, str]]()
    for entry in lake.store.walk("refs", everything=True):
        if entry.link:  # what it leads to may be out of reach just now, or more than one ref
            where = lake.store.child(entry.path)
            raise LakeError(f"{where} is a symbolic link or no file; put the file or folder in its place")
    for ref in (ref for ref in lake.refs() if ref.name not in RETIRED):
        for target in targets(lake, ref):
            keep |= objects_of(target)
            made_from |= set(target.inputs.items()) if isinstance(target, Artifact) else set()
    return keep | _lists(lake, made_from | _exported(lake))


def exports(lake: Lake) -> Iterator[Export]:
    """All exports of which a lake knows."""
    for entry in lake.store.walk("exports"):
        yield read_object(lake.store, Export, entry.path)


def note_export(lake: Lake, path: str, made_from: Collection[str]) -> None:
    """Let the lake know, if it can be written to, of a folder elsewhere that was made from snapshots and models."""
    with suppress(LakeError, PermissionError):
        write_object(lake.store, Export(path, sorted(made_from)))


def _exported(lake: Lake) -> set[tuple[str, str]]:
    """Table and fingerprint of the snapshots that exports were made from."""
    names = {name for one in exports(lake) for name in one.made_from}
    there = (PurePosixPath(entry.path) for entry in lake.store.walk("snapshots"))
    return {(path.parent.name, path.stem) for path in there if path.stem in names}


def _lists(lake: Lake, tables: set[tuple[str, str]]) -> set[str]:
    """The snapshots of `tables`, and of those that these were made from: lists of what was there, without any of it."""
    seen = set[str]()
    while tables:
        table, fingerprint = tables.pop()
        paths = snapshot_paths(table, fingerprint)
        if seen.isdisjoint(paths) and (snapshot := lake.find_snapshot(table, fingerprint)):
            seen.update(paths)
            tables |= set(snapshot.inputs.items())
    return seen


def targets(lake: Lake, ref: Ref) -> Iterator[Snapshot | Artifact]:
    """What a ref points to, and its earlier snapshots that are to be kept. Raises LakeError if the first is gone.

    A snapshot of before with something that was forgotten since is not kept.
    """
    yield resolve_ref(lake, ref)
    if earlier := list(ref.kept(lake.store.now())):
        held = forgotten(lake).snapshots
        for past in earlier:
            if past.target not in held and (snapshot := lake.find_snapshot(ref.name, past.target)):
                yield snapshot


def objects_of(target: Snapshot | Artifact) -> set[str]:
    """The paths of a snapshot and its shards, or of a manifest and the artifact's files."""
    if isinstance(target, Snapshot):
        shards = {shard_path(target.table, key) for key in target.keys}
        return {*snapshot_paths(target.table, target.fingerprint), *shards}
    return {target.place, *map(blob_path, target.files.values())}


def describe_size(count: float) -> str:
    """Bytes for people: ``12.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
