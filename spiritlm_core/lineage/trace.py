"""From recordings to all that was made with them, read from the lake alone: snapshots, manifests, exports."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.lake.artifact import Artifact, blob_path
from spiritlm_core.lake.care import exports
from spiritlm_core.lake.forgotten import Forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.snapshot import Snapshot

AUDIO = "audio"
_COLUMNS = ("recording_id", "source_uri", "source_sha256", "speaker", "split", "duration")
FROM, WITH = "made from them", "made with what was made from them"
_GONE = "made from recordings that are no longer in the lake, so it is counted"


@dataclass(frozen=True)
class Recording:
    """A recording as one shard of a table `audio` knows it; `seconds` are those of its segments."""

    recording_id: str
    source_uri: str
    source_sha256: str | None
    speaker: str | None
    split: str | None
    shard: str
    seconds: float

    def is_in(self, gone: Forgotten) -> bool:
        """Whether it must not come in again."""
        return gone.covers(self.source_sha256, self.recording_id, self.speaker)


def recordings(lake: Lake, shards: Collection[str] | None = None) -> list[Recording]:
    """What is in the audio table, used or not, or in some of its `shards`; the sound itself is not read."""
    found: list[Recording] = []
    for key in sorted(lake.shard_keys(AUDIO) if shards is None else shards):
        rows = lake.peek_shard(AUDIO, key, _COLUMNS)
        rows = rows.append_column("shard", pa.array([key] * rows.num_rows, pa.string()))
        names = [name for name in rows.column_names if name != "duration"]
        told = rows.group_by(names).aggregate([("duration", "sum")]).to_pylist()
        found += [Recording(**{name: row[name] for name in names}, seconds=row["duration_sum"] or 0.0) for row in told]
    return found


def same_speech(lake: Lake, ids: Collection[str]) -> set[str]:
    """``recording_id`` of what shares speech with recordings, themselves included, as recipes that reject copies know.

    Of two that sound alike either may be the one that is kept.
    """
    pairs: set[tuple[str, str]] = set()  # utterances: a copy, and the one that is kept
    for ref in lake.refs():
        if ref.name == "duplicates" and (artifact := lake.read_artifact(ref.name, ref.target)):
            data = lake.store.read(blob_path(artifact.files["duplicates.parquet"]))
            told = pq.read_table(pa.BufferReader(data))
            pairs.update(zip(told["utterance_id"].to_pylist(), told["kept"].to_pylist(), strict=True))
    of: dict[str, str] = {}
    for key in lake.shard_keys(AUDIO) if pairs and ids else ():
        rows = lake.peek_shard(AUDIO, key, ("utterance_id", "recording_id"))
        of.update(zip(rows["utterance_id"].to_pylist(), rows["recording_id"].to_pylist(), strict=True))
    kept = {kept for copy, kept in pairs if {of.get(copy), of.get(kept)} & {*ids}}
    return {of[one] for pair in pairs if pair[1] in kept for one in pair if one in of}


@dataclass(frozen=True)
class MadeWith:
    """What holds some recordings, or was made with them.

    Attributes:
        snapshots: fingerprints of the snapshots that hold rows of them.
        artifacts: key of an artifact → how it was made with them.
        exports: folders outside of the lake.
    """

    snapshots: frozenset[str] = frozenset()
    artifacts: Mapping[str, str] = field(default_factory=dict)
    exports: tuple[str, ...] = ()


def made_with(lake: Lake, shards: Collection[str], known: MadeWith | None = None) -> MadeWith:
    """All that was made with the audio `shards`, and with what is `known` to hold what was in them, or to be made so.

    An artifact or export whose recordings are gone from the lake, and the list of what they were, counts, too.
    """
    known = known or MadeWith()
    tables = {snapshot.fingerprint: snapshot for snapshot in _snapshots(lake)}
    artifacts = {artifact.key: artifact for artifact in _artifacts(lake)}
    holding = _holding(lake, tables, shards) | known.snapshots
    made: dict[str, Snapshot | Artifact] = {**tables, **artifacts}
    parents = {key: {*one.inputs.values(), *one.models.values()} for key, one in made.items()}
    how = {key: said for key, said in known.artifacts.items() if key in artifacts}
    for key, artifact in artifacts.items():
        inputs = set(artifact.inputs.values())
        if not holding.isdisjoint(inputs):
            how[key] = FROM
        elif shards and inputs - tables.keys():
            how.setdefault(key, _GONE)
    reached = _with_descendants({*holding, *how}, parents)
    how |= {key: WITH for key in artifacts if key in reached and key not in how}
    held = {*holding, *known.artifacts, *how}
    told = [
        one.path
        for one in exports(lake)
        if not held.isdisjoint(one.made_from) or (shards and made.keys().isdisjoint(one.made_from))
    ]
    return MadeWith(frozenset(holding), how, tuple(told))


def _holding(lake: Lake, tables: Mapping[str, Snapshot], shards: Collection[str]) -> set[str]:
    """Snapshots with rows of `shards`. Of a shard that is gone its members tell: those of a shard are kept together."""
    there = lake.shard_keys(AUDIO)
    members = {member for key in shards for member in lake.read_footer(AUDIO, key).members}
    holding = {
        key
        for key, table in tables.items()
        if table.table == AUDIO
        and any(
            s.key in shards or (s.key not in there and not members.isdisjoint(s.members.to_pylist()))
            for s in table.shards
        )
    }
    return _with_descendants(holding, {key: set(table.inputs.values()) for key, table in tables.items()})


def _with_descendants(found: set[str], parents: Mapping[str, set[str]]) -> set[str]:
    """`found` and all that is made from it."""
    while more := {key for key, names in parents.items() if key not in found and not found.isdisjoint(names)}:
        found = found | more
    return found


def _snapshots(lake: Lake) -> Iterator[Snapshot]:
    for entry in lake.store.walk("snapshots"):
        path = PurePosixPath(entry.path)
        if snapshot := lake.find_snapshot(path.parent.name, path.stem):
            yield snapshot


def _artifacts(lake: Lake) -> Iterator[Artifact]:
    for entry in lake.store.walk("artifacts"):
        path = PurePosixPath(entry.path)
        if artifact := lake.read_artifact(path.parent.name, path.stem):
            yield artifact
