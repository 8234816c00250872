"""Rebuild a corpus night after night on a source that changes, and compare it with a rebuild from nothing.

    python -m tests.integration.soak --nights 60 [--seed 0] [-- more options of spiritlm run]

Every night recordings come, go, are renamed, touched, or are bad, transcripts are corrected, texts are written; a fifth
of the runs is killed in the midst of the work and run again; then `gc` tidies with a retention of three snapshots.
Every table must hold the rows that an empty lake gets from the same source and the same fitted models.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from spiritlm_core.lake.care import collect_garbage, verify
from spiritlm_core.lake.lake import Lake
from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.integration import runs
from tests.plan.lakes import compute, tiny
from tests.support.servers import prefect_server
from tests.support.watching import PATIENCE, kill_group

CLIPS = 24
KEPT = 3  # snapshots of each table
SETTINGS = (
    "variant=base",
    "vocoder=null",
    "align.fit.least_minutes=1000",  # words at even distances: the aligner of WhisperX takes long to import
    "sharding.shard_items=8",
    "filters=[duration >= 0.5]",
    "duplicates=reject",
    f"keep={{snapshots: {KEPT}}}",
    "compute.workers=2",
)
WORDS = "one two three four five six seven eight nine zero"


@dataclass(frozen=True)
class Night:
    """What one night did."""

    number: int
    killed: bool
    seconds: float  # of the run that ended
    recordings: int
    shards: int  # of all tables
    computed: int
    lake_bytes: int  # after gc
    fresh_bytes: int  # of the rebuild from nothing
    other_bytes: int  # of what Prefect keeps beside the lake
    differences: tuple[str, ...]


class Source:
    """A folder of recordings, and one of texts, that change at random, but never much in size."""

    def __init__(self, root: Path, seed: int) -> None:
        self.clips, self.texts = root / "clips", root / "texts"
        self.rng = random.Random(seed)  # noqa: S311 - changes of a test
        self.made = 0
        for _ in range(CLIPS):
            self.add()
        self.write_text(0)

    def night(self, number: int) -> None:
        """Everything that happens in a night; in every tenth nothing does."""
        if number % 10 == 9:
            return
        for change in (self.add, self.add, self.remove, self.remove, self.rename, self.touch, self.correct):
            change()
        if number % 3 == 0:
            self.copy()
        if number % 4 == 0:
            self.damage(number)
        if number % 5 == 0:
            self.write_text(number)
        while len(self._names()) > CLIPS + 4:
            self.remove()

    def add(self) -> None:
        name = f"{self.rng.randrange(100)}-{self.made}"
        sound(self.clips / f"{name}.flac", voice(1.5, self.made), subtype="PCM_16")
        self._transcribe(name)
        self.made += 1

    def remove(self) -> None:
        for path in self._files(self._any()):
            path.unlink()

    def rename(self) -> None:
        prefix = self.rng.randrange(100)
        for path in self._files(self._any()):
            path.rename(path.with_name(f"{prefix}-{path.name}"))

    def touch(self) -> None:
        for path in self._files(self._any()):
            path.touch()

    def correct(self) -> None:
        self._transcribe(self._any())

    def copy(self) -> None:
        """A second file with the same sound; it may outlive the first."""
        for path in self._files(self._any()):
            shutil.copyfile(path, path.with_name(f"again-{path.name}"))

    def damage(self, number: int) -> None:
        """A file that is empty, is none, or ends too early."""
        whole = min(self.clips.glob("*.flac")).read_bytes()
        bad = (b"", b"this is no audio", whole[: len(whole) // 2])[number // 4 % 3]
        (self.clips / f"bad-{number}.flac").write_bytes(bad)

    def write_text(self, number: int) -> None:
        self.texts.mkdir(exist_ok=True)
        (self.texts / f"{number // 5 % 4}.txt").write_text(f"{number}\n\n{self._words()}\n\n{self._words()}\n")

    def _transcribe(self, name: str) -> None:
        (self.clips / f"{name}.txt").write_text(self._words())

    def _words(self) -> str:
        return " ".join(self.rng.choices(WORDS.split(), k=4))

    def _names(self) -> list[str]:
        return sorted({path.stem for path in self.clips.iterdir()})

    def _any(self) -> str:
        return self.rng.choice(self._names())

    def _files(self, name: str) -> list[Path]:
        return sorted(path for path in self.clips.iterdir() if path.stem == name)


class Soak:
    """A source, the lake that is rebuilt every night, and the settings of both lakes."""

    def __init__(self, root: Path, server: dict[str, str], seed: int, more: tuple[str, ...] = ()) -> None:
        """`server` is the environment that leads to a Prefect server; `more` are settings of the recipe."""
        self.root, self.server, self.home = root, server, Path(server["PREFECT_HOME"])
        self.source, self.lake = Source(root, seed), root / "lake"
        self.rng = random.Random(seed + 1)  # noqa: S311
        self.settings = (*SETTINGS, f"texts=[{{path: {self.source.texts}}}]", *more)

    def night(self, number: int) -> Night:
        """Change, rebuild, tidy, compare."""
        if number:
            self.source.night(number)
        killed = number % 5 == 3 and self._kill()
        began = time.monotonic()
        result = json.loads(self._run().communicate(timeout=PATIENCE)[0])
        seconds = time.monotonic() - began
        collect_garbage(Lake(self.lake))
        differences, fresh = self._compare()
        stages = result["stages"].values()
        return Night(
            number,
            killed,
            round(seconds, 2),
            len({path.stem for path in self.source.clips.iterdir()}),
            sum(stage["shards_total"] for stage in stages),
            sum(stage["shards_computed"] for stage in stages),
            _bytes(self.lake),
            fresh,
            _bytes(self.home / "storage"),
            tuple(differences),
        )

    def _run(self) -> subprocess.Popen[str]:
        settings = [part for setting in self.settings for part in ("--set", setting)]
        where = ("--source", self.source.clips, "--lake", self.lake)
        command = ("run", runs.RECIPE, *where, "--until", "corpus", "--json", *settings)
        return runs.start(*command, home=self.home, PREFECT_API_URL=self.server["PREFECT_API_URL"])

    def _kill(self) -> bool:
        """SIGKILL to a run and all it started, once it has committed some of what this night asks for."""
        process, before = self._run(), len(runs.committed(self.lake))
        wanted = self.rng.randrange(1, 9)
        while process.poll() is None and len(runs.committed(self.lake)) < before + wanted:
            time.sleep(0.02)
        return kill_group(process)

    def _compare(self) -> tuple[list[str], int]:
        """What differs from an empty lake that is given the same models; and the bytes of that one."""
        lake, fresh = Lake(self.lake), self.root / "fresh"
        fitted = [ref for ref in lake.refs() if ref.name in runs.FITTED]
        fresh.mkdir()
        for folder in ("artifacts", "blobs"):
            shutil.copytree(self.lake / folder, fresh / folder)
        other = Lake(fresh)
        for ref in fitted:
            other.write_ref(ref.recipe, ref.name, ref.kind, ref.target, ref.identity)
        recipe = tiny(self.source.clips, *self.settings)
        compute(recipe, other, "sequences", "text")
        collect_garbage(other)
        problems = [f"{problem.path}: {problem.problem}" for problem in verify(lake)]
        tables = [ref.name for ref in other.refs() if ref.kind == "table"]
        differences = [name for name in tables if not _rows(lake, name).equals(_rows(other, name))]
        size = _bytes(fresh)
        shutil.rmtree(fresh)
        return [*problems, *differences], size


def _rows(lake: Lake, table: str) -> pa.Table:
    """The rows that the recipe refers to, in an order of their own.

    A renamed file keeps its row, and that the place where it was found first (docs/fingerprints.md).
    """
    ref = lake.read_ref("tiny", table)
    assert ref is not None
    rows = lake.view(lake.read_snapshot(table, ref.target)).read().combine_chunks()
    rows = rows.drop_columns([name for name in ("source_uri",) if name in rows.column_names])
    order = sorted(range(rows.num_rows), key=lambda place: repr(rows.slice(place, 1).to_pylist()))
    return rows.take(pa.array(order, pa.int64()))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def summary(nights: list[Night]) -> str:
    """What is worth keeping, for people."""
    whole = [night for night in nights[1:] if night.computed]
    third = max(1, len(whole) // 3)
    first, last = whole[:third], whole[-third:]

    def median(some: list[Night], what: str) -> float:
        return statistics.median(getattr(night, what) for night in some)

    lines = [
        f"nights: {len(nights)}, of which killed and run again: {sum(night.killed for night in nights)}",
        f"nights whose tables differ from a rebuild from nothing: {sum(bool(night.differences) for night in nights)}",
        f"nights on which nothing was computed: {sum(not night.computed for night in nights)}",
    ]
    for what, unit, scale in (
        ("seconds", "s", 1.0),
        ("computed", "shards computed", 1.0),
        ("shards", "shards", 1.0),
        ("lake_bytes", "MB of lake after gc", 1e6),
        ("fresh_bytes", "MB of a lake from nothing", 1e6),
        ("other_bytes", "kB that Prefect keeps", 1e3),
    ):
        begin, end = (median(some, what) / scale for some in (first, last))
        lines.append(f"median of the first third {begin:.2f}, of the last {end:.2f} {unit}")
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("more", nargs="*", default=[], help="settings of the recipe, KEY=VALUE")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    nights = []
    with tempfile.TemporaryDirectory() as folder, prefect_server(Path(folder), None) as server:
        soak = Soak(Path(folder), server.environment, given.seed, tuple(given.more))
        for number in range(given.nights):
            nights.append(soak.night(number))
            print(json.dumps(asdict(nights[-1])), flush=True)
    print(summary(nights))
    return int(any(night.differences for night in nights))


if __name__ == "__main__":
    sys.exit(main())
