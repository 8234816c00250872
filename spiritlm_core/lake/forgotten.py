"""Tombstones: what a lake must never hold again, by content, so that no other name brings it back.

Nothing in a tombstone can be read: recordings stand in it by their content, speakers by a digest of their name.
Deleting ``forgotten/ID.json`` takes it back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import STRICT, Digest, digest, read_object
from spiritlm_core.lake.lake import Lake
from spiritlm_core.names import FileName

FOLDER = "forgotten"


@dataclass(frozen=True)
class Tombstone:
    """One withdrawal.

    Attributes:
        id: names it.
        made: when, in seconds since the epoch, by the clock of the store.
        files: sha256 of whole files.
        recordings: ``recording_id`` of stretches and channels of files of which others stay.
        speakers: digests of names, see :func:`speaker_digest`.
        snapshots: fingerprints of those that held them, which no retention spares.
        made_with: keys of the artifacts that were made with them before they were withdrawn, and how.
    """

    __pydantic_config__ = STRICT
    cure: ClassVar = (
        "put back a copy of it, or delete it and run spiritlm forget again for those whom it named, else they come back"
    )

    id: FileName
    made: float
    files: list[Digest]
    recordings: list[str]
    speakers: list[Digest]
    snapshots: list[Digest]
    made_with: dict[Digest, str]

    @property
    def place(self) -> str:
        """Where it lies in the store."""
        return f"{FOLDER}/{self.id}.json"


@dataclass(frozen=True)
class Forgotten:
    """All tombstones of a lake."""

    tombstones: tuple[Tombstone, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """What stands in them: contents, recordings and speakers."""
        lists = ((*stone.files, *stone.recordings, *stone.speakers) for stone in self.tombstones)
        return frozenset(name for names in lists for name in names)

    @property
    def snapshots(self) -> set[str]:
        """Fingerprints of the snapshots that held them."""
        return {fingerprint for stone in self.tombstones for fingerprint in stone.snapshots}

    @property
    def latest(self) -> float:
        """When the last one was made; 0 without any."""
        return max((stone.made for stone in self.tombstones), default=0.0)

    def covers(self, sha256: str | None, recording_id: str | None = None, speaker: str | None = None) -> bool:
        """Whether a recording must not come in: for its content, or for who speaks."""
        if not self.tombstones:
            return False
        return not self.names.isdisjoint((sha256, recording_id, speaker and speaker_digest(speaker)))


NOBODY = Forgotten()


@lru_cache(maxsize=2**14)  # the same few over and over
def speaker_digest(name: str) -> str:
    """What stands for a speaker."""
    return digest({"speaker": name})


def forgotten(lake: Lake) -> Forgotten:
    """All tombstones of a lake. Raises LakeError if one is damaged: better no run than one that forgot to forget."""
    return Forgotten(tuple(read_object(lake.store, Tombstone, entry.path) for entry in lake.store.walk(FOLDER)))


def refuse_forgotten(lake: Lake, snapshots: Iterable[str], how: str) -> None:
    """Raises LakeError if one of the `snapshots` holds what was forgotten; `how` says what makes them without."""
    if not forgotten(lake).snapshots.isdisjoint(snapshots):
        raise LakeError(f"the tables in {lake.uri} still hold recordings that were forgotten: {how} without them")
