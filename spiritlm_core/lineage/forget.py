"""Taking recordings back: which are meant, the tombstone that keeps them out, and the statement of what they are in."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from spiritlm_core.errors import LakeError, SourceError
from spiritlm_core.files import read_text
from spiritlm_core.intake.files import local_path, local_uri
from spiritlm_core.intake.notes import some
from spiritlm_core.intake.statcache import hide_names, sha256_of
from spiritlm_core.lake.fingerprint import write_object
from spiritlm_core.lake.forgotten import Forgotten, Tombstone, forgotten, speaker_digest
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold
from spiritlm_core.lineage.trace import MadeWith, Recording, made_with, recordings, same_speech


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
    lines = [line.strip() for line in read_text(path).splitlines()]
    if named := tuple(line for line in lines if line and not line.startswith("#")):
        return named
    raise SourceError(f"--list {path}: it names no recording; write one path, URI or recording_id on each line")


def forget(lake: Lake, wanted: Wanted, *, dry_run: bool = False) -> dict[str, Any]:
    """Let the lake never take in again what is `wanted`, and say what holds it now; a dry run only says it.

    What is there is left to the next run, which goes without, and to garbage collection. Without `wanted` it is about
    all that was taken back so far.

    Returns:
        The statement, as JSON values: the recordings, others with the same speech, tables, artifacts and exports. It
        is kept nowhere.

    Raises:
        LakeError: the lake knows no such speaker or recording, or a run works on it.
    """
    if dry_run or not wanted:
        known = _Known(lake, recordings(lake), forgotten(lake))
        gone = Forgotten((known.tombstone(wanted),)) if wanted else known.before
        return known.statement(gone, known.trace(gone))
    with hold(lake.store, "gc", "forget"):  # a run that has listed its recordings would bring them back
        known = _Known(lake, recordings(lake), forgotten(lake))
        stone = known.tombstone(wanted)
        made = known.trace(Forgotten((stone,)))
        stone = replace(stone, snapshots=sorted(made.snapshots), made_with=dict(made.artifacts))
        hide_names(lake)
        write_object(lake.store, stone)  # from now on no listing lets in what it names
    return known.statement(Forgotten((stone,)), made)


@dataclass(frozen=True)
class _Known:
    """What a lake knows: the recordings that it has heard, and what was forgotten before."""

    lake: Lake
    heard: Sequence[Recording]
    before: Forgotten

    def tombstone(self, wanted: Wanted) -> Tombstone:
        """A file is forgotten as a whole, unless the lake has other recordings in it, such as another speaker's turns.

        Raises LakeError: a recording is neither in the lake nor a file, or nobody is called so.
        """
        meant, elsewhere = self._select(wanted)
        ids, within = {one.recording_id for one in meant}, defaultdict(set)
        for one in self.heard:
            within[one.source_sha256].add(one.recording_id)
        whole = {one.source_sha256 for one in meant if one.source_sha256 and within[one.source_sha256] <= ids}
        parts = {one.recording_id for one in meant if one.source_sha256 not in whole}
        speakers = sorted(map(speaker_digest, wanted.speakers))
        files = sorted({*elsewhere, *map(str, whole)})
        return Tombstone(uuid.uuid4().hex, self.lake.store.now(), files, sorted(parts), speakers, [], {})

    def _select(self, wanted: Wanted) -> tuple[list[Recording], list[str]]:
        """The recordings that are `wanted`, and the sha256 of wanted files that the lake does not have."""
        there, gone = {one.speaker for one in self.heard if one.speaker}, self.before.names
        if lacking := {name for name in wanted.speakers if name not in there and speaker_digest(name) not in gone}:
            raise LakeError(_no_such_speaker(self.lake, min(lacking), there))
        called: dict[str | None, list[Recording]] = defaultdict(list)
        for one in self.heard:
            for name in {one.source_uri, one.recording_id, one.source_sha256}:
                called[name].append(one)
        meant = [one for one in self.heard if one.speaker in wanted.speakers]
        elsewhere, missing = list[str](), list[str]()
        for name in wanted.recordings:
            if found := [one for spelt in {name, _uri(name)} for one in called.get(spelt, ())]:
                meant += found
                continue
            try:
                elsewhere.append(sha256_of(_uri(name)))
            except (OSError, SourceError) as error:
                missing.append(f"{name[:200]!r} ({getattr(error, 'strerror', None) or error})")
        if missing:
            raise LakeError(f"{self.lake.uri} has no such recording, and there is no such file: {some(missing)}")
        return meant, elsewhere

    def covered(self, gone: Forgotten) -> list[Recording]:
        """The recordings that must not come in."""
        return [one for one in self.heard if one.is_in(gone)]

    def trace(self, gone: Forgotten) -> MadeWith:
        """What was made with them, as earlier tombstones of the same recordings or speakers know it, too."""
        earlier = [one for one in self.before.tombstones if not Forgotten((one,)).names.isdisjoint(gone.names)]
        known = Forgotten((*gone.tombstones, *earlier))
        artifacts = {key: how for stone in known.tombstones for key, how in stone.made_with.items()}
        told = MadeWith(frozenset(known.snapshots), artifacts)
        return made_with(self.lake, {one.shard for one in self.covered(gone)}, told)

    def statement(self, gone: Forgotten, made: MadeWith) -> dict[str, Any]:
        """What :func:`forget` returns."""
        covered = self.covered(gone)
        once = {(one.recording_id, one.source_uri): one for one in covered}
        told = [asdict(one) for one in sorted(once.values(), key=lambda one: one.source_uri)]
        all_gone = Forgotten((*gone.tombstones, *self.before.tombstones))
        alike = same_speech(self.lake, {one.recording_id for one in covered})
        copies = {one for one in self.heard if one.recording_id in alike}.difference(self.covered(all_gone))
        return {
            "lake": self.lake.uri,
            "tombstones": [stone.id for stone in gone.tombstones],
            "recordings": told,
            "copies": sorted({one.source_uri for one in copies}),
            "hours": round(sum(one["seconds"] for one in told) / 3600, 4),
            **found_in(self.lake, made),
        }


def _uri(name: str) -> str:
    return name if "://" in name else local_uri(name)


def _no_such_speaker(lake: Lake, name: str, there: Collection[str]) -> str:
    folded = {one.casefold(): one for one in there}
    near = [folded[one] for one in get_close_matches(name.casefold(), folded, 5)]
    known = f"nearly so called: {', '.join(near)}" if near else f"its speakers are {some(sorted(there), 20)}"
    return f"{lake.uri} has no recording of speaker {name!r}; {known if there else 'its speakers are not named'}"


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
