"""Plans: what a stage would compute, known before anything is computed.

Keys depend on inputs alone, so the fingerprint of a snapshot is known in advance; running a plan means
computing the keys that are not in the lake yet.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError, ModelReferenceError
from spiritlm_core.files import cache_folder, write_atomically
from spiritlm_core.lake.fingerprint import (
    artifact_key,
    config_json,
    digest,
    shard_key,
    snapshot_fingerprint,
    stage_identity,
)
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.schema import AMENDED
from spiritlm_core.lake.snapshot import Snapshot, strings
from spiritlm_core.lake.view import TableView
from spiritlm_core.references.reference import digest_of, resolve


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: an artifact of the lake (`artifact` = name), a model reference, or a small JSON.

    `digest` identifies it in fingerprints: the artifact's key, or the digest of the content.
    """

    digest: str
    artifact: str | None = None
    reference: str | None = None
    content: str | None = None

    @classmethod
    def of_reference(cls, reference: str) -> ModelSource:
        """The model of a reference, which is looked for, and fetched if need be, unless it is pinned.

        Raises ModelReferenceError: the reference is wrong, or nothing is there.
        """
        return cls(digest_of(reference), reference=reference)

    @classmethod
    def of_json(cls, value: Any) -> ModelSource:
        """A small value that travels with the plan; the stage finds it as a JSON file."""
        return cls(digest(value), content=json.dumps(value, sort_keys=True, indent=1))

    def local_path(self, lake: Lake) -> Path:
        """The model as local files, fetched if need be. Raises LakeError or ModelReferenceError."""
        if self.artifact is not None:
            artifact = lake.read_artifact(self.artifact, self.digest)
            if artifact is None:
                raise LakeError(f"artifact {self.artifact}/{self.digest[:12]} is missing from {lake.uri}; run again")
            return lake.artifact_folder(artifact)
        if self.content is not None:
            return _as_file(self.digest, self.content)
        return self._resolved()

    def _resolved(self) -> Path:
        resolved = resolve(str(self.reference))
        if resolved.digest != self.digest:
            raise ModelReferenceError(f"{self.reference} is another model than when the run began; run again")
        return resolved.path


def _as_file(name: str, content: str) -> Path:
    path = cache_folder() / "values" / f"{name}.json"
    if not path.is_file() or path.read_bytes() != content.encode():
        write_atomically(path, content.encode())
    return path


@dataclass(frozen=True)
class StageCall:
    """A stage with its configuration and models: everything a worker needs to set it up."""

    cls: str  # "package.module:Class"
    name: str
    version: int
    config: FrozenConfig
    models: Mapping[str, ModelSource]

    @classmethod
    def of(cls, stage: type[Any] | str, config: FrozenConfig, models: Mapping[str, ModelSource]) -> StageCall:
        """Describe a stage class, or the one at ``package.module:Class``."""
        described: Any = load_class(stage) if isinstance(stage, str) else stage
        path = f"{described.__module__}:{described.__qualname__}"
        return cls(path, described.name, described.version, config, dict(models))

    @property
    def stage(self) -> Any:
        """The stage class."""
        return load_class(self.cls)

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each model, by role."""
        return {role: source.digest for role, source in sorted(self.models.items())}

    @property
    def identity(self) -> str:
        """See :func:`spiritlm_core.lake.fingerprint.stage_identity`."""
        return stage_identity(self.name, self.version, config_json(self.config), self.digests)

    def create(self, lake: Lake) -> Any:
        """The stage object, its models on this machine."""
        return self.stage(self.config, {r: s.local_path(lake) for r, s in self.models.items()})


def load_class(path: str) -> Any:
    """The class at ``package.module:Class``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class ShardJob:
    """One shard to compute: from parent shards ``(table, key)``, or from the rows that `rows` gives (picklable).

    `members` are the keys of those rows, sorted.
    """

    key: str
    parents: tuple[tuple[str, str], ...] = ()
    members: pa.StringArray = field(default_factory=strings)
    rows: Callable[[], pa.Table] | None = None

    @property
    def parent_keys(self) -> list[str]:
        """What the shard's key was made from, besides the stage."""
        return self.members.to_pylist() if self.rows is not None else [key for _, key in self.parents]

    def __reduce__(self) -> Any:
        """Pickle: without the members of other shards, whose memory those of a kept one are a part of."""
        return ShardJob, (self.key, self.parents, strings(self.members.to_pylist()), self.rows)

    @property
    def about(self) -> str:
        """What it is made of, for people."""
        rows = self.rows() if self.rows else pa.table({})
        if "source_uri" not in rows.column_names:
            return ""
        more = f" and {rows.num_rows - 1} more" if rows.num_rows > 1 else ""
        return f"{rows['source_uri'][0]}{more}"


@dataclass(frozen=True)
class TablePlan:
    """All shards of one table for one recipe, in the order of the snapshot; `items` are all that were listed for it."""

    call: StageCall
    jobs: tuple[ShardJob, ...]
    lineage: dict[str, Any] = field(default_factory=dict)
    items: pa.Table | None = None

    @property
    def name(self) -> str:
        """The table's name, which is the stage's name."""
        return self.call.name

    @property
    def inputs(self) -> Mapping[str, str]:
        """The tables that it is made from, and their fingerprints."""
        return self.lineage.get("inputs", {})

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of the shards, in the snapshot's order."""
        return tuple(job.key for job in self.jobs)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the snapshot that running the plan gives."""
        return snapshot_fingerprint(self.name, self.keys)

    def missing(self, lake: Lake) -> list[ShardJob]:
        """The jobs whose shards are not in the lake."""
        have = lake.shard_keys(self.name)
        return [job for job in self.jobs if job.key not in have]

    def is_complete(self, lake: Lake) -> bool:
        """Whether the snapshot and all of its shards are in the lake."""
        return lake.has_snapshot(self.name, self.fingerprint) and not self.missing(lake)


@dataclass(frozen=True)
class ArtifactPlan:
    """One artifact for one recipe. `inputs` maps each table that it is built from to the snapshot's fingerprint."""

    call: StageCall
    key: str
    inputs: Mapping[str, str]
    pinned: bool = False

    @property
    def name(self) -> str:
        """The artifact's name, which is the stage's name."""
        return self.call.name

    @property
    def fingerprint(self) -> str:
        """The artifact's key."""
        return self.key

    def is_complete(self, lake: Lake) -> bool:
        """Whether the artifact is in the lake."""
        return lake.read_artifact(self.name, self.key) is not None

    def tables(self, lake: Lake) -> dict[str, TableView]:
        """The tables that it is built from by what they stand for, once they are there. Raises LakeError."""
        return {
            AMENDED.get(name, name): lake.view(lake.read_snapshot(name, made)) for name, made in self.inputs.items()
        }


def inline_job(identity: str, members: Iterable[str], rows: Callable[[], pa.Table]) -> ShardJob:
    """A job whose input is a set of items, each identified by its key in `members`."""
    keys = sorted(members)
    return ShardJob(shard_key(identity, keys), members=strings(keys), rows=rows)


def plan_table(call: StageCall, inputs: Sequence[TablePlan | Snapshot]) -> TablePlan:
    """One job per aligned set of input shards, which need not be computed yet."""
    identity, jobs = call.identity, []
    for keys in zip(*(table.keys for table in inputs), strict=True):
        parents = tuple((table.name, key) for table, key in zip(inputs, keys, strict=True))
        jobs.append(ShardJob(shard_key(identity, keys), parents))
    return TablePlan(call, tuple(jobs), {"inputs": {t.name: t.fingerprint for t in inputs}, "models": call.digests})


def plan_artifact(call: StageCall, inputs: Mapping[str, TablePlan | Snapshot], pin: str | None = None) -> ArtifactPlan:
    """The artifact made from `inputs`, or the one that a recipe has pinned (`pin`, its key)."""
    fingerprints = {name: table.fingerprint for name, table in inputs.items()}
    key = pin or artifact_key(call.identity, fingerprints)
    return ArtifactPlan(call, key, fingerprints, pinned=pin is not None)


Plan = TablePlan | ArtifactPlan  # the plan of one stage
