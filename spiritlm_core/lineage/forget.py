"""Taking recordings back: which are meant, the tombstone that keeps them out, and the statement of what they are in."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spiritlm_core.errors import LakeError, SourceError
from spiritlm_core.intake.files import local_path, local_uri
from spiritlm_core.intake.notes import some
from spiritlm_core.intake.statcache import hide_names, sha256_of
from spiritlm_core.lake.forgotten import Forgotten, Tombstone, forgotten, speaker_digest, write_tombstone
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold
from spiritlm_core.lineage.trace import MadeWith, Recording, made_with, recordings


@dataclass(frozen=True)
class Wanted:
    """Whom or what to take back: names of speakers, and recordings as people call them."""

    speakers: tuple[str, ...] = ()
    recordings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.speakers or self.recordings)


def read_list(path: Path) -> tuple[str, ...]:
    """The recordings that a file names, one a line; blank lines and those that begin with ``#`` say nothing.

    Raises:
        SourceError: it cannot be read, or names none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"--list {path}: {error}") from error
    if named := tuple(line for line in lines if line and not line.startswith("#")):
        return named
    raise SourceError(f"--list {path}: it names no recording; write one path, URI or recording_id on each line")


def forget(lake: Lake, wanted: Wanted, *, dry_run: bool = False) -> dict[str, Any]:
    """Let the lake never take in again what is `wanted`, and say what holds it now; a dry run only says it.

    What is there is left to the next run, which goes without, and to garbage collection. Without `wanted` it is about
    all that was taken back so far.

    Returns:
        The statement, as JSON values: the recordings, tables, artifacts and exports. It is kept nowhere.

    Raises:
        LakeError: the lake knows no such speaker or recording, or a run works on it.
    """
    if not wanted:
        return _statement(lake, recordings(lake), forgotten(lake))
    if dry_run:
        return _statement(lake, *_buried(lake, wanted))
    with hold(lake.store, "gc", "forget"):  # a run that has listed its recordings would bring them back
        heard, gone = _buried(lake, wanted)
        write_tombstone(lake, gone.tombstones[0])
        hide_names(lake)
    return _statement(lake, heard, gone)


def _buried(lake: Lake, wanted: Wanted) -> tuple[list[Recording], Forgotten]:
    """What the lake has heard, and a tombstone for what is wanted of it, not written yet."""
    heard = recordings(lake)
    stone = _tombstone(lake, heard, wanted)
    made = _trace(lake, heard, Forgotten((stone,)))
    return heard, Forgotten((replace(stone, snapshots=sorted(made.snapshots), made_with=dict(made.artifacts)),))


def select(lake: Lake, heard: Sequence[Recording], wanted: Wanted) -> tuple[list[Recording], list[str]]:
    """The recordings that are `wanted`, and the sha256 of wanted files that the lake does not have.

    Raises:
        LakeError: one is neither in the lake nor a file.
    """
    if lacking := set(wanted.speakers) - {one.speaker for one in heard}:
        there = some(sorted({one.speaker for one in heard if one.speaker}), 20)
        raise LakeError(
            f"{lake.uri} has no recording of speaker {min(lacking)!r}; its speakers are {there or 'not named'}"
        )
    meant = [one for one in heard if one.speaker in wanted.speakers]
    elsewhere: list[str] = []
    for name in wanted.recordings:
        names = {name, name if "://" in name else local_uri(name)}
        found = [one for one in heard if names & {one.source_uri, one.recording_id, one.source_sha256}]
        meant += found
        if not found:
            elsewhere.append(_content(lake, name))
    return meant, elsewhere


def _content(lake: Lake, name: str) -> str:
    try:
        return sha256_of(name if "://" in name else local_uri(name))
    except (OSError, SourceError) as error:
        raise LakeError(f"{lake.uri} has no recording {name!r}, and there is no such file ({error})") from error


def _tombstone(lake: Lake, heard: Sequence[Recording], wanted: Wanted) -> Tombstone:
    """A file is forgotten as a whole, unless the lake has other recordings in it, such as another speaker's turns."""
    meant, elsewhere = select(lake, heard, wanted)
    ids, within = {one.recording_id for one in meant}, defaultdict(set)
    for one in heard:
        within[one.source_sha256].add(one.recording_id)
    whole = {one.source_sha256 for one in meant if one.source_sha256 and within[one.source_sha256] <= ids}
    parts = {one.recording_id for one in meant if one.source_sha256 not in whole}
    speakers = sorted(map(speaker_digest, wanted.speakers))
    files = sorted({*elsewhere, *map(str, whole)})
    return Tombstone(uuid.uuid4().hex, lake.store.now(), files, sorted(parts), speakers, [], {})


def _covered(heard: Sequence[Recording], gone: Forgotten) -> list[Recording]:
    return [one for one in heard if gone.covers(one.source_sha256, one.recording_id, one.speaker)]


def _trace(lake: Lake, heard: Sequence[Recording], gone: Forgotten) -> MadeWith:
    known = {key: how for stone in gone.tombstones for key, how in stone.made_with.items()}
    return made_with(lake, {one.shard for one in _covered(heard, gone)}, known)


def _statement(lake: Lake, heard: Sequence[Recording], gone: Forgotten) -> dict[str, Any]:
    covered = _covered(heard, gone)
    once = {(one.recording_id, one.source_uri): one for one in covered}
    told = [asdict(one) for one in sorted(once.values(), key=lambda one: one.source_uri)]
    return {
        "lake": lake.uri,
        "tombstones": [stone.id for stone in gone.tombstones],
        "recordings": told,
        "hours": round(sum(one["seconds"] for one in told) / 3600, 4),
        **found_in(lake, _trace(lake, heard, gone)),
    }


def found_in(lake: Lake, made: MadeWith) -> dict[str, Any]:
    """Which tables of which recipes hold rows, and what was made with them and is in use, as JSON values."""
    refs = sorted(lake.refs(), key=lambda ref: (ref.recipe, ref.updated))
    tables = [ref for ref in refs if ref.kind == "table"]
    artifacts = [ref for ref in refs if ref.kind == "artifact" and ref.target in made.artifacts]
    return {
        "tables": [
            {"recipe": ref.recipe, "name": ref.name, "clean": ref.target not in made.snapshots} for ref in tables
        ],
        "made_with": [
            {"recipe": ref.recipe, "name": ref.name, "key": ref.target, "how": made.artifacts[ref.target]}
            for ref in artifacts
        ],
        "unused": len(made.artifacts.keys() - {ref.target for ref in artifacts}),
        "exports": list(made.exports),
    }


def still_there(uris: Collection[str]) -> int:
    """How many of the files of recordings lie on this machine: nothing outside of a lake is ever deleted."""
    return sum(os.path.exists(local_path(uri)) for uri in set(uris) if uri.startswith("file://"))  # noqa: PTH110
