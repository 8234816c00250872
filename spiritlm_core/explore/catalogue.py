"""What there is to look at: tables by recipe, older snapshots that are still there, and models that a recipe uses."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from spiritlm_core.errors import LakeError
from spiritlm_core.explore.rows import Rows
from spiritlm_core.lake.forgotten import NOBODY, Forgotten, forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lineage.trace import AUDIO, recordings

_ORDER = ("audio", "speakers", "quality", "words", "units", "copies", "sequences", "documents", "text")


@dataclass(frozen=True)
class Listed:
    """A snapshot as it is listed, without having been read."""

    table: str
    fingerprint: str
    recipes: tuple[str, ...]  # those that use it now
    written: float  # when, in seconds since the epoch
    forgotten: Forgotten = NOBODY  # what was taken back, if it holds any of it

    @property
    def title(self) -> str:
        """Such as ``audio of quickstart``, or with its time where no recipe uses it any more."""
        when = datetime.fromtimestamp(self.written, tz=UTC).strftime("%d %b %H:%M")
        return (
            f"{self.table} of {', '.join(self.recipes)}"
            if self.recipes
            else f"{self.table}, {when} ({self.fingerprint[:6]})"
        )


class Catalogue:
    """The snapshots of a lake; each is opened once, and again when something of it was taken back."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._open: dict[str, tuple[Forgotten, Rows]] = {}
        self._gathered: Rows | None = None
        self._taken_back: tuple[Forgotten, Collection[str], set[str]] = NOBODY, (), set()

    def listed(self) -> dict[str, Listed]:
        """Title → snapshot: those in use first, in the order of the pipeline, then others from the newest on.

        Raises LakeError: there is none.
        """
        users: dict[str, list[str]] = {}
        for ref in self.lake.refs():
            users.setdefault(ref.target, []).append(ref.recipe)
        gone = forgotten(self.lake)
        found = [
            Listed(
                Path(entry.path).parent.name,
                name,
                tuple(sorted(users.get(name, ()))),
                entry.modified,
                gone if name in gone.snapshots else NOBODY,
            )
            for entry in self.lake.store.walk("snapshots")
            if (name := Path(entry.path).stem)
        ]
        if not found:
            raise LakeError(f"there is no table in {self.lake.uri} yet: `spiritlm run` makes them")
        found.sort(key=lambda one: (not one.recipes, one.recipes, _rank(one.table), -one.written))
        return {one.title: one for one in found}

    def rows(self, one: Listed) -> Rows:
        """The rows of a snapshot. Raises LakeError if it is missing or damaged."""
        gone, rows = self._open.get(one.fingerprint, (None, None))
        if rows is None or gone != one.forgotten:
            snapshot = self.lake.read_snapshot(one.table, one.fingerprint)
            rows = Rows(self.lake, snapshot, self._recordings(one.forgotten))
            self._open[one.fingerprint] = one.forgotten, rows
        return rows

    def gather(self, rows: Rows) -> None:
        """Have the rows that are looked at in memory, and no others."""
        if self._gathered not in (None, rows):
            self._gathered.release()
        self._gathered = rows
        rows.gather()

    def _recordings(self, gone: Forgotten) -> set[str]:
        """``recording_id`` of what was taken back and is still in a table `audio`: looked for once, not for each table.

        Shard by shard: what all shards tell of a million recordings takes most of a gigabyte.
        """
        if not gone.tombstones:
            return set()
        keys = self.lake.shard_keys(AUDIO)
        known = self._taken_back
        if known[:2] != (gone, keys):
            heard = (one for key in keys for one in recordings(self.lake, [key]))
            known = self._taken_back = gone, keys, {one.recording_id for one in heard if one.is_in(gone)}
        return known[2]

    def beside(self, one: Listed) -> dict[str, Rows]:
        """The tables of the recipe that uses a snapshot, else of any recipe, by name, `one` in the place of its own."""
        listed = [other for other in self.listed().values() if other.recipes]
        recipe = next(iter([*one.recipes, *(other.recipes[0] for other in listed)]), None)
        tables = {other.table: other for other in listed if recipe in other.recipes} | {one.table: one}
        return {name: self.rows(other) for name, other in tables.items()}

    def model(self, recipe: str, name: str) -> Path | None:
        """A local folder of an artifact that a recipe uses, or None."""
        artifact = self.lake.used_artifact(recipe, name)
        return None if artifact is None else self.lake.artifact_folder(artifact)

    def kept(self, recipe: str, utterance_id: str) -> str | None:
        """Which utterance a recipe keeps in the place of one that is the same speech, by its artifact `duplicates`."""
        import pyarrow.parquet as pq

        folder = self.model(recipe, "duplicates")
        if folder is None:
            return None
        same = [("utterance_id", "=", utterance_id)]
        found = pq.read_table(folder / "duplicates.parquet", columns=["kept"], filters=same)["kept"].to_pylist()
        return str(found[0]) if found else None


def _rank(table: str) -> tuple[int, str]:
    return _ORDER.index(table) if table in _ORDER else len(_ORDER), table
