"""What a lake takes on the disk: by table and artifact, by recipe, by snapshot; what several share counts once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.care import collect_garbage, objects_of, targets
from spiritlm_core.lake.fingerprint import from_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.snapshot import Snapshot

K = TypeVar("K")
OBJECTS = ("tables", "snapshots", "artifacts", "blobs", "outputs")
COPIES = ("cache", "work")  # may be deleted when nothing runs


@dataclass(frozen=True)
class Share:
    """Objects and bytes of one of several; `own` are bytes that none of the others has, which go when it goes."""

    objects: int
    bytes: int
    own: int


@dataclass(frozen=True)
class StoredSnapshot:
    """One snapshot: when it was written (seconds since the epoch), and the recipes that use it or keep it."""

    table: str
    fingerprint: str
    written: float
    recipes: tuple[str, ...]
    share: Share


@dataclass(frozen=True)
class Usage:
    """Bytes of a lake. `unused` is what garbage collection would free, `copies` what is in ``cache`` and ``work``."""

    names: dict[str, Share]
    recipes: dict[str, Share]
    snapshots: tuple[StoredSnapshot, ...]
    bytes: int
    unused: int
    copies: int


def usage(lake: Lake) -> Usage:
    """Add up a lake, whose listing, refs and manifests are read. Raises LakeError if one of these is damaged."""
    found = {entry.path: entry for kind in OBJECTS for entry in lake.store.walk(kind)}
    sizes = {path: entry.size for path, entry in found.items()}
    stored = {path: objects_of(_read(lake, path)) for path in found if path.startswith(("snapshots/", "artifacts/"))}
    names: dict[str, set[str]] = defaultdict(set)
    for path in found:
        kind, name, *_ = path.split("/")
        if kind != "blobs":
            names[name if kind != "outputs" else f"outputs/{name}"] |= {path} | stored.get(path, set())
    recipes: dict[str, set[str]] = defaultdict(set)
    for ref in lake.refs():
        recipes[ref.recipe] |= {path for target in targets(lake, ref) for path in objects_of(target)}
    for recipe, paths in recipes.items():
        paths |= {path for path in found if path.startswith(f"outputs/{recipe}/")}
    snapshots = shares({path: paths for path, paths in stored.items() if path.startswith("snapshots/")}, sizes)
    users = {path: tuple(sorted(name for name, paths in recipes.items() if path in paths)) for path in snapshots}
    listed = (
        StoredSnapshot(path.split("/")[1], PurePosixPath(path).stem, found[path].modified, users[path], share)
        for path, share in snapshots.items()
    )
    return Usage(
        shares(names, sizes),
        shares(recipes, sizes),
        tuple(sorted(listed, key=lambda one: (one.table, -one.written))),
        sum(sizes.values()),
        collect_garbage(lake, dry_run=True).bytes,
        sum(entry.size for kind in COPIES for entry in lake.store.walk(kind)),
    )


def shares(groups: Mapping[K, Iterable[str]], sizes: Mapping[str, int]) -> dict[K, Share]:
    """The share of each group in objects of these sizes; what is missing takes nothing."""
    there = {group: {path for path in paths if path in sizes} for group, paths in groups.items()}
    users = Counter(path for paths in there.values() for path in paths)
    return {
        group: Share(
            len(paths), sum(sizes[path] for path in paths), sum(sizes[path] for path in paths if users[path] == 1)
        )
        for group, paths in there.items()
    }


def _read(lake: Lake, path: str) -> Snapshot | Artifact:
    data, name = lake.store.read(path), lake.store.child(path)
    return Snapshot.from_bytes(data, name) if path.startswith("snapshots/") else from_json(Artifact, data, name)
