"""Fingerprints, which identify shards, artifacts and snapshots, and the checksum that every object carries of itself.

A fingerprint is the sha256, in lower-case hex, of canonical JSON (RFC 8785) of a small object that names everything the
result depends on, and nothing else: no position, no order, no path, no time. docs/fingerprints.md has the rules.

The checksum is the sha256 of an object's bytes with 64 zeros where the checksum stands, so it covers every bit. Objects
written before there were checksums have none, and are read as they are.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Annotated, Any, Protocol, TypeVar, cast

import rfc8785
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from spiritlm_core.config import FrozenConfig, sentence_of
from spiritlm_core.errors import LakeError
from spiritlm_core.store.objects import Store


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


CURE = "put back a copy of it, or delete it and run again"

T = TypeVar("T")
P = TypeVar("P", bound="Placed")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # an unknown field of an object is damage
BLANK = "0" * 64
_FIELD = "seal"
_MARK = f'"{_FIELD}": "'.encode()  # a string in JSON cannot hold it, because its quotes would be escaped


def seal(data: bytes, mark: bytes = _MARK) -> bytes:
    """`data` with its checksum in place of the zeros behind the last `mark`."""
    start = data.rindex(mark) + len(mark)
    return data[:start] + _checksum(data, start).encode() + data[start + len(BLANK) :]


def is_sealed(data: bytes, name: str, mark: bytes = _MARK, cure: str = CURE) -> bool:
    """Whether `data` carries a checksum. Raises LakeError if it is wrong; `cure` says what to do then."""
    start = data.rfind(mark) + len(mark)
    if start < len(mark):
        return False
    if data[start : start + len(BLANK)] != _checksum(data, start).encode():
        raise LakeError(f"{name} is damaged: its bytes do not give the checksum that it carries; {cure}")
    return True


def _checksum(data: bytes, start: int) -> str:
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(BLANK.encode())
    digest.update(view[start + len(BLANK) :])
    return digest.hexdigest()


def to_json(value: Any, **more: Any) -> bytes:
    """A dataclass, and `more` fields, as JSON with a checksum; the same bytes for the same values."""
    body = {**asdict(value), **more, _FIELD: BLANK}
    return seal(json.dumps(body, sort_keys=True, indent=1).encode())


def from_json(kind: type[T], data: bytes, name: str, derived: tuple[str, ...] = (), cure: str = CURE) -> T:
    """Read :func:`to_json`; the fields `derived` may be there and are dropped.

    Raises LakeError: the checksum is wrong, or a field is missing, unknown or of the wrong type.
    """
    sealed = is_sealed(data, name, cure=cure)
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or (body.pop(_FIELD, None) is not None) != sealed:
            raise LakeError(f"{name} is damaged: it is no JSON object with one checksum; {cure}")
        read: T = _adapter(cast("Any", kind)).validate_python({key: body[key] for key in body if key not in derived})
    except (ValidationError, ValueError, RecursionError) as error:
        raise LakeError(f"{name} is not {_article(kind.__name__)} ({sentence_of(error)}); {cure}") from error
    return read


class Placed(Protocol):
    """A dataclass whose objects lie where they say.

    One that `CURE` would harm has a class variable ``cure``, which says what to do about a damaged one.
    """

    @property
    def place(self) -> str:
        """Where it lies in the store."""


def read_object(store: Store, kind: type[P], path: str) -> P:
    """The object at `path`. Raises FileNotFoundError, or LakeError: it is damaged, or belongs elsewhere."""
    cure = getattr(kind, "cure", CURE)
    found = from_json(kind, store.read(path), store.child(path), cure=cure)
    check_place(store, path, found.place, cure)
    return found


def write_object(store: Store, value: Placed) -> None:
    """Write or replace an object where it says that it lies."""
    store.write(value.place, to_json(value))


def check_place(store: Store, path: str, named: str, cure: str = CURE) -> None:
    """An object lies where its content says. Raises LakeError if it does not."""
    if path != named:
        raise LakeError(f"{store.child(path)} is damaged: it says that it is {named}; {cure}")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _article(noun: str) -> str:
    noun = noun.lower()
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
