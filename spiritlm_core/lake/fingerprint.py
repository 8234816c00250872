"""Fingerprints: what identifies a shard, an artifact and a snapshot. The written rules are in docs/fingerprints.md.

A fingerprint is the sha256, in lower-case hex, of canonical JSON (RFC 8785) of a small object that names
everything the result depends on, and nothing else: no position, no order, no path, no time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import rfc8785

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError


def canonical_json(value: Any) -> bytes:
    """RFC 8785 JSON: sorted keys, no white space, shortest numbers. Raises LakeError for what JSON cannot hold."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise LakeError(f"a value cannot be fingerprinted: {error}") from error


def digest(value: Any) -> str:
    """The sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def config_json(config: FrozenConfig | None) -> Any:
    """A configuration as plain JSON values; see :meth:`FrozenConfig.key`."""
    return None if config is None else config.key()


def stage_identity(stage: str, version: int, config: Any, models: Mapping[str, str]) -> str:
    """What a stage computes, whatever it is computed from: its name, version, config and models' digests."""
    return digest({"config": config, "models": dict(models), "stage": stage, "version": version})


def shard_key(identity: str, parents: Iterable[str]) -> str:
    """The key of a shard: the stage's identity and its input shards.

    `parents` keeps its order for a stage that reads several tables; a stage that reads a set of items
    passes them sorted.
    """
    return digest({"kind": "shard", "parents": list(parents), "stage": identity})


def artifact_key(identity: str, inputs: Mapping[str, str]) -> str:
    """The key of an artifact: the stage's identity and the snapshot fingerprint of each table it reads."""
    return digest({"inputs": dict(inputs), "kind": "artifact", "stage": identity})


def snapshot_fingerprint(table: str, shards: Iterable[str]) -> str:
    """The fingerprint of a snapshot: the set of its shards, in no order."""
    return digest({"kind": "snapshot", "shards": sorted(set(shards)), "table": table})
