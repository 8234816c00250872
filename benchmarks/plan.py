"""What planning takes on a lake of many recordings: seconds and memory, with nothing new and with 1 % new.

    python benchmarks/plan.py [--recordings 10000 100000 1000000] [--lake DIR]

The listing is synthetic: names, versions and transcripts of recordings of 2,000 speakers, whose content the lake knows
already, so that no file is read. The lake holds the tables `audio`, `words` and `units` of a first run, with rows of a
name alone. Every figure is of a process of its own. Lakes are made once, and kept in DIR.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from machine import apart, peak_memory

from spiritlm_core.align.config import WordsConfig
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage, split_of
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.files import File
from spiritlm_core.intake.recordings import Recordings
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.statcache import stat_cache
from spiritlm_core.lake.fingerprint import config_json, digest
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.plan import TablePlan
from spiritlm_core.lake.run import shard_entry
from spiritlm_core.lake.shard import ShardFooter, ShardStats, encode_shard
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.plan.graph import Graph, plan_graph
from spiritlm_core.plan.preview import preview
from spiritlm_core.quality.config import QualityConfig
from spiritlm_core.quality.stage import QualityStage

RECIPE, WORDS = "many", "one two three four five six seven eight nine ten eleven twelve"
TABLES = ("audio", "words", "quality")


class Synthetic(Source):
    """So many recordings, the last of them added later."""

    kind: Literal["synthetic"] = "synthetic"
    count: int

    def drafts(self) -> Iterator[Draft]:
        """One draft per recording."""
        for number in range(self.count):
            speaker = f"speaker-{number * 2000 // 1_010_000:04}"
            name = f"{speaker}/{number:07}.flac"
            file = File(name, f"file:///corpus/{name}", 100_000 + number % 1000, f"{10**18 + number}-{number}", 1.0)
            yield Draft(name, file.uri, file, f"{WORDS} {number}", speaker)


def graph(count: int) -> Graph:
    made = Graph(RECIPE)
    held_out = AudioConfig()
    recordings = Recordings((Synthetic(count=count),), "en", ShardingConfig(), functools.partial(_split, held_out))  # type: ignore[arg-type]
    audio = made.source(AudioStage, held_out, recordings)
    words = made.add(WordsStage, WordsConfig(), audio)
    made.add(QualityStage, QualityConfig(), audio, words)
    return made


def _split(config: AudioConfig, item: Any) -> str:
    return split_of(item if isinstance(item, dict) else vars(item), config)


def fill(folder: str, count: int) -> None:
    """Let the lake know the content of 1 % more recordings than it holds in its tables, and no file be read."""
    lake = Lake(folder)
    Path(folder).mkdir(parents=True)
    (Path(folder) / "made").touch()
    for listed in (count, count + count // 100):
        know(lake, listed)
    plan = plan_graph(graph(count), lake)
    for table in (stage for stage in plan.stages.values() if isinstance(stage, TablePlan)):
        for job in table.jobs:
            write(Path(folder), table, job)
        entries = tuple(shard_entry(lake, table.name, job.key) for job in table.jobs)
        lake.write_snapshot(Snapshot(table.name, table.call.identity, entries, table.lineage))
        lake.write_ref(RECIPE, table.name, "table", table.fingerprint, table.call.identity)


def know(lake: Lake, count: int) -> None:
    source = Synthetic(count=count)
    name = cache_path(source)
    with stat_cache(lake, name) as cache:
        for draft in source.drafts():
            cache.put(draft.file or File("", ""), hashlib.sha256(draft.name.encode()).hexdigest(), time.time())


def cache_path(source: Source) -> str:
    return f"cache/sources/{digest([source.key()])[:32]}.parquet"


def write(folder: Path, table: TablePlan, job: Any) -> None:
    """Not through the lake, which waits for the disk each time."""
    call, rows = table.call, 64
    stats = ShardStats(rows, rows, 0, 0, {}, 1.0, 300.0)
    about = {"identity": call.identity, "config": config_json(call.config), "models": {}, "code_version": ""}
    parents, members = job.parent_keys, job.members.to_pylist()
    footer = ShardFooter(
        job.key, call.name, call.name, call.version, parents=parents, members=members, stats=stats, **about
    )
    path = folder / shard_path(call.name, job.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_shard(pa.table({"utterance_id": [f"{job.key}-{row}" for row in range(rows)]}), footer))


def listing(folder: str, count: int) -> int:
    """The listing alone."""
    del folder
    return sum(1 for _ in Synthetic(count=count).drafts())


def planned(folder: str, count: int) -> int:
    """As a run plans, and sees what is missing."""
    lake = Lake(folder)
    plan = plan_graph(graph(count), lake)
    plan.is_complete(lake)
    return sum(len(table.missing(lake)) for table in plan.stages.values() if isinstance(table, TablePlan))


def previewed(folder: str, count: int) -> int:
    """As `spiritlm plan`."""
    lake = Lake(folder)
    return sum(stage.estimate.new for stage in preview(plan_graph(graph(count), lake), lake))


def measured(work: Callable[[str, int], int], folder: str, count: int) -> dict[str, Any]:
    """Time and memory of a piece of work, and what it returns; to be called in a process of its own."""
    before, began, used = peak_memory(), time.perf_counter(), time.process_time()
    result = work(folder, count)
    seconds = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
    return {**seconds, "mb": (peak_memory() - before) / 1e6, "result": result}


def commanded(*command: str) -> dict[str, Any]:
    """Time and memory of a command of `spiritlm`."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "spiritlm_core.cli", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    seconds = {"seconds": time.perf_counter() - began, "cpu": usage.ru_utime + usage.ru_stime}
    return {**seconds, "mb": usage.ru_maxrss / 1e3, "result": 0}


COMMANDS = ("lake du", "status", "lake verify --fast", "lake gc --dry-run")


def measure(folder: str, count: int) -> dict[str, float]:
    """Print a row for each thing; returns the seconds of a processor, which other programs do not lengthen."""
    seconds = {}
    more = count + count // 100
    for name, work, listed in (
        ("listing alone", listing, count),
        ("plan, nothing new", planned, count),
        ("plan, 1 % new", planned, more),
        ("`spiritlm plan`, nothing new", previewed, count),
    ):
        seconds[name] = row(count, name, apart(measured, work, folder, listed))
    for name in COMMANDS:
        seconds[name] = row(count, f"`spiritlm {name}`", commanded(*name.split(), "--lake", folder))
    return seconds


def row(count: int, name: str, told: dict[str, Any]) -> float:
    shards = told["result"] or ""
    seconds = f"{told['seconds']:.2f} | {told['cpu']:.2f}"
    print(f"| {count:,} | {name} | {seconds} | {told['mb']:.0f} | {shards} |", flush=True)
    return float(told["cpu"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--lake", default=None)
    arguments = parser.parse_args()
    folder = arguments.lake or tempfile.mkdtemp()
    print("| recordings | what | seconds | of a processor | peak memory, MB | new shards |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    results = {}
    for count in arguments.recordings:
        lake = f"{folder}/{count}"
        if not Path(lake).exists():
            apart(fill, lake, count)
        results[count] = measure(lake, count)
    slopes(results)


def slopes(results: dict[int, dict[str, float]]) -> None:
    """The exponent p of seconds ~ recordings^p between the two largest lakes."""
    if len(results) > 1:
        small, large = sorted(results)[-2:]
        for name, seconds in results[large].items():
            slope = math.log(seconds / results[small][name]) / math.log(large / small)
            print(f"slope of {name}: {slope:.2f}")


if __name__ == "__main__":
    main()
