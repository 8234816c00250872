"""The lake: shards, artifacts, snapshots and refs in one store. What is not here is in no other place.

tables/TABLE/KEY.parquet      shards
snapshots/TABLE/FP.parquet    snapshots (FP.json in lakes of older versions)
artifacts/NAME/KEY.json       manifests;  blobs/AA/SHA256  their files
refs/RECIPE/NAME.json         what a recipe uses now
leases/ID.json                runs under way;  cache/  may be deleted at any time
forgotten/ID.json             what must never come in again;  exports/ID.json  folders elsewhere that were made of it
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pyarrow as pa

from spiritlm_core.errors import LakeError
from spiritlm_core.files import cache_folder, check_once
from spiritlm_core.lake.artifact import Artifact, manifest_path, materialize
from spiritlm_core.lake.fingerprint import check_place, read_object, to_json, write_object
from spiritlm_core.lake.schema import AMENDED
from spiritlm_core.lake.shard import (
    ShardFooter,
    check_shard,
    count_values,
    encode_shard,
    read_footer,
    read_rows,
)
from spiritlm_core.lake.snapshot import KeepConfig, Ref, Snapshot, ref_path
from spiritlm_core.lake.view import TableView
from spiritlm_core.store.local import READ_ONLY, LocalStore
from spiritlm_core.store.uri import open_store

_FOLDERS = ("refs", "tables", "snapshots", "artifacts", "blobs", "leases", "forgotten", "exports")


@dataclass(frozen=True)
class ShardLoader:
    """Reads one shard of one table; small enough to send to another process."""

    uri: str
    table: str
    key: str

    def __call__(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The shard's rows, or only `columns` of them."""
        return Lake(self.uri).read_shard(self.table, self.key, columns)

    def values(self) -> Mapping[str, int]:
        """How many values each of the shard's columns holds."""
        return Lake(self.uri).count_values(self.table, self.key)

    def digest(self) -> str:
        """The key says what the shard holds."""
        return self.key


class Lake:
    """The tables and artifacts below one URI."""

    def __init__(self, uri: str | Path) -> None:
        """`uri` is a path, ``file://…`` or ``s3://bucket/prefix``; nothing is read or created yet.

        Raises:
            LakeError: there can be no lake.
        """
        if not str(uri).strip():
            raise LakeError("the lake has an empty name: --lake and SPIRITLM_LAKE take a folder or s3://bucket/prefix")
        self.store = open_store(uri)
        if isinstance(self.store, LocalStore) and self.store.root.exists() and not self.store.root.is_dir():
            raise LakeError(f"the lake {self.store.uri} is not a folder")
        self.uri = self.store.uri

    def is_begun(self) -> bool:
        """Whether anything of a lake is there."""
        return any(True for folder in _FOLDERS for _ in self.store.walk(folder))

    # --- shards -------------------------------------------------------------------------------------------

    def has_shard(self, table: str, key: str) -> bool:
        """Whether the shard is there, complete."""
        return self.store.exists(shard_path(table, key))

    def shard_keys(self, table: str) -> set[str]:
        """The keys of all shards of a table, whatever recipe made them."""
        return set(self.shard_sizes(table))

    def shard_sizes(self, table: str) -> dict[str, int]:
        """Bytes of every shard of a table that is there, by key."""
        ending, entries = ".parquet", self.store.walk(f"tables/{table}")
        paths = ((entry.path, entry.size) for entry in entries if entry.path.endswith(ending))
        return {path.removesuffix(ending).rpartition("/")[2]: size for path, size in paths}

    def write_shard(self, rows: pa.Table, footer: ShardFooter) -> None:
        """Commit a shard. An existing one stays as it is: its key says that it holds the same rows."""
        if not self.has_shard(footer.table, footer.key):
            self.store.write(shard_path(footer.table, footer.key), encode_shard(rows, footer))

    def read_shard(self, table: str, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a shard; one of `AMENDED` has the `columns` of the other table, too.

        Raises LakeError: it is missing or damaged.
        """
        if table in AMENDED and columns is not None:
            return self._amended(table, key, columns)
        path = shard_path(table, key)
        try:
            if local := self.store.local_path(path):
                check_once(local, lambda file: self._check_shard(path, file.read_bytes()))
                source = pa.OSFile(str(local))
            else:
                data = self.store.read(path)
                self._check_shard(path, data)
                source = pa.BufferReader(data)
        except FileNotFoundError as error:
            raise self._missing_shard(path) from error
        with source:
            return read_rows(source, self.store.child(path), columns)

    def _amended(self, table: str, key: str, columns: Sequence[str]) -> pa.Table:
        """Columns of a shard, and of the shard that it was made from those that it lacks."""
        anew = self.read_shard(table, key)
        rest = [name for name in columns if name not in anew.column_names]
        before = self.read_footer(table, key).parents[0] if rest else ""
        rows = self.read_shard(AMENDED[table], before, rest) if rest else anew
        return pa.table({name: (rows if name in rest else anew)[name] for name in columns})

    def peek_shard(self, table: str, key: str, columns: Sequence[str]) -> pa.Table:
        """A few columns of a shard, read alone: pages carry checksums, and that of the whole is left to `verify`."""
        path = shard_path(table, key)
        try:
            source = pa.PythonFile(self.store.open(path), mode="r")
        except FileNotFoundError as error:
            raise self._missing_shard(path) from error
        with source:
            return read_rows(source, self.store.child(path), columns)

    def read_footer(self, table: str, key: str) -> ShardFooter:
        """The footer of a shard. Raises LakeError if it is missing or damaged."""
        path = shard_path(table, key)
        with self._for_footer(path) as source:
            return self._footer(path, source)

    def count_values(self, table: str, key: str) -> Mapping[str, int]:
        """How many values each column of a shard holds. Raises LakeError if it is missing or damaged."""
        path = shard_path(table, key)
        with self._for_footer(path) as source:
            return count_values(source, self.store.child(path))

    def _for_footer(self, path: str) -> pa.NativeFile:
        try:
            local = self.store.local_path(path)
            # A remote shard is fetched by one GET: the footer alone would take three.
            return pa.OSFile(str(local)) if local else pa.BufferReader(self.store.read(path))
        except FileNotFoundError as error:
            raise self._missing_shard(path) from error

    def _check_shard(self, path: str, data: bytes) -> None:
        check_shard(data, self.store.child(path))
        self._footer(path, pa.BufferReader(data))

    def _footer(self, path: str, source: pa.NativeFile) -> ShardFooter:
        footer = read_footer(source, self.store.child(path))
        check_place(self.store, path, shard_path(footer.table, footer.key))
        return footer

    def _missing_shard(self, path: str) -> LakeError:
        return LakeError(f"shard {self.store.child(path)} is missing; run the recipe again to compute it")

    def view(self, snapshot: Snapshot) -> TableView:
        """The rows of a snapshot, shard by shard."""
        loaders = tuple(ShardLoader(self.uri, snapshot.table, key) for key in snapshot.keys)
        return TableView(loaders, snapshot.totals.rows_in + snapshot.totals.upstream)

    # --- snapshots and refs -------------------------------------------------------------------------------

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Commit a snapshot under its fingerprint."""
        self.store.write(snapshot_path(snapshot.table, snapshot.fingerprint), snapshot.to_bytes())

    def has_snapshot(self, table: str, fingerprint: str) -> bool:
        """Whether the snapshot is there."""
        return any(map(self.store.exists, snapshot_paths(table, fingerprint)))

    def read_snapshot(self, table: str, fingerprint: str) -> Snapshot:
        """Raises LakeError if there is no such snapshot."""
        snapshot = self.find_snapshot(table, fingerprint)
        if snapshot is None:
            path = self.store.child(snapshot_path(table, fingerprint))
            raise LakeError(f"snapshot {path} is missing; run the recipe again")
        return snapshot

    def find_snapshot(self, table: str, fingerprint: str) -> Snapshot | None:
        """The snapshot, or None if it is not there. Raises LakeError if it is damaged."""
        for path in snapshot_paths(table, fingerprint):
            with suppress(FileNotFoundError):
                snapshot = Snapshot.from_bytes(self.store.read(path), self.store.child(path))
                named = snapshot_path(snapshot.table, snapshot.fingerprint, PurePosixPath(path).suffix)
                check_place(self.store, path, named)
                return snapshot
        return None

    def write_ref(
        self, recipe: str, name: str, kind: str, target: str, identity: str, keep: KeepConfig | None = None
    ) -> None:
        """Let `recipe` use `target` under `name` from now on; of the snapshots that it used before those to `keep`."""
        now, current = time.time(), self.read_ref(recipe, name)
        before = current or Ref(recipe, name, "table" if kind == "table" else "artifact", target, identity, now)
        ref = before.followed(target, identity, now, keep)
        if current is None or replace(ref, updated=current.updated) != current:
            write_object(self.store, ref)

    def read_ref(self, recipe: str, name: str) -> Ref | None:
        """What `recipe` uses under `name`, or None."""
        with suppress(FileNotFoundError):
            return read_object(self.store, Ref, ref_path(recipe, name))
        return None

    def refs(self) -> Iterator[Ref]:
        """All refs of all recipes."""
        for entry in self.store.walk("refs"):
            yield read_object(self.store, Ref, entry.path)

    # --- artifacts ----------------------------------------------------------------------------------------

    def read_artifact(self, name: str, key: str) -> Artifact | None:
        """The manifest of an artifact, or None if it was not built yet."""
        with suppress(FileNotFoundError):
            return read_object(self.store, Artifact, manifest_path(name, key))
        return None

    def used_artifact(self, recipe: str, name: str) -> Artifact | None:
        """The artifact that `recipe` uses under `name`, or None."""
        ref = self.read_ref(recipe, name)
        return self.read_artifact(name, ref.target) if ref else None

    def commit_artifact(self, artifact: Artifact) -> Artifact:
        """Commit a manifest, whose files are there; returns what is there, which an earlier writer may have made."""
        if self.store.create(artifact.place, to_json(artifact)):
            return artifact
        return self.read_artifact(artifact.name, artifact.key) or artifact

    def artifact_folder(self, artifact: Artifact) -> Path:
        """A local folder with the artifact's files (a copy; do not change it). Raises LakeError if they are damaged."""
        if isinstance(self.store, LocalStore):
            try:
                return materialize(self.store, artifact, self.store.root / "cache" / "artifacts")
            except OSError as error:
                if error.errno not in READ_ONLY:
                    raise
        return materialize(self.store, artifact, cache_folder() / "artifacts")

    def work_folder(self, name: str, key: str) -> Path:
        """A local folder for what an unfinished artifact needs to resume."""
        local = self.store.root if isinstance(self.store, LocalStore) else cache_folder()
        return local / "work" / name / key


def shard_path(table: str, key: str) -> str:
    """Where a shard lies in the store."""
    return f"tables/{table}/{key}.parquet"


def snapshot_path(table: str, fingerprint: str, ending: str = ".parquet") -> str:
    """Where a snapshot lies in the store."""
    return f"snapshots/{table}/{fingerprint}{ending}"


def snapshot_paths(table: str, fingerprint: str) -> tuple[str, str]:
    """Where a snapshot may lie: as it is written now, and as older versions did."""
    return snapshot_path(table, fingerprint), snapshot_path(table, fingerprint, ".json")
