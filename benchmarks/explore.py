"""What `spiritlm explore` takes on a table of many rows: seconds of each answer, and memory.

    python benchmarks/explore.py [--rows 1000000] [--shard 256] [--lake DIR]

The lake is synthetic: sentences of twelve words out of 3,000, 2,000 speakers, a second of sound in every row, one
row of a hundred rejected. It is made once, in a process of its own, and kept in DIR.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import typer
from machine import apart, peak_memory

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.shard import ShardFooter, count_rows, encode_shard
from spiritlm_core.lake.snapshot import ShardEntry, Snapshot

TITLE, NOBODY = "audio of many", "0" * 64
LEXICON = np.array([f"word{number}" for number in range(3000)])


def shard(number: int, rows: int, flac: bytes) -> tuple[pa.Table, list[str]]:
    """A shard of the table `audio`, and the keys of its recordings."""
    rng = np.random.default_rng(number)
    keys = [digest(f"{number} {row}") for row in range(rows)]
    seconds, bad = rng.gamma(4, 2, rows), rng.random(rows) < 0.01
    columns: dict[str, Any] = {
        "utterance_id": [f"{key[:20]}-00000000-00001000" for key in keys],
        "recording_id": [key[:20] for key in keys],
        "duration": pa.array(seconds, mask=bad),
        "speaker": [f"speaker-{who}" for who in rng.integers(0, 2000, rows)],
        "language": ["en"] * rows,
        "split": np.where(rng.random(rows) < 0.02, "held_out", "train"),
        "text": [" ".join(words) for words in LEXICON[rng.integers(0, len(LEXICON), (rows, 12))].tolist()],
        "audio": pa.array([None if lost else flac for lost in bad], pa.binary()),
        "source_uri": [f"file:///speech/{number:05}/{row:05}.flac" for row in range(rows)],
        "source_sha256": keys,
        "reject_stage": pa.array(["audio" if lost else None for lost in bad], pa.string()),
        "reject_reason": pa.array(["too short: 0.01 s" if lost else None for lost in bad], pa.string()),
    }
    arrays = {field.name: columns.get(field.name, pa.nulls(rows, field.type)) for field in AUDIO}
    return pa.table(arrays, AUDIO), keys


def make(folder: Path, rows: int, size: int) -> None:
    lake, entries = Lake(folder), []
    flac = encode_flac((0.1 * np.sin(np.arange(16_000) / 20)).astype(np.float32))
    about: dict[str, Any] = {
        "stage_version": 1,
        "identity": NOBODY,
        "config": {},
        "models": {},
        "parents": [],
        "code_version": "",
    }
    for number in range(-(-rows // size)):
        table, keys = shard(number, min(size, rows - number * size), flac)
        key, stats = digest(f"shard {number}"), count_rows(table, "audio", 1.0)
        footer = ShardFooter(key, "audio", "audio", members=keys, stats=stats, **about)
        path = folder / shard_path("audio", key)  # not through the lake, which waits for the disk each time
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_shard(table, footer))
        entries.append(ShardEntry(key, stats, keys))
    snapshot = Snapshot("audio", NOBODY, tuple(entries))
    lake.write_snapshot(snapshot)
    lake.write_ref("many", "audio", "table", snapshot.fingerprint, NOBODY)


def timed(what: str, work: Callable[[], Any]) -> Any:
    began, used = time.perf_counter(), time.process_time()
    result = work()
    took, cpu = time.perf_counter() - began, time.process_time() - used
    print(f"| {what} | {took:.2f} | {cpu:.2f} | {peak_memory() / 1e6:.0f} |", flush=True)
    return result


def measure(folder: Path) -> None:
    print("| what | seconds | seconds of CPU | peak memory of the process so far, MB |\n| --- | --- | --- | --- |")
    actions, kept = timed("start: libraries", started(folder))
    try:
        timed("first view", lambda: actions.loaded(None))

        def asked(conditions: str = "", sort: str = "", down: bool = False, start: int = 0) -> Any:
            return actions.listed(TITLE, "all", conditions, sort, down, start)

        timed("filter by a part of a text, at once", lambda: asked("text ~ word77"))
        timed(
            "the rest of the copy, made meanwhile", actions.catalogue.rows(actions.catalogue.listed()[TITLE]).gathered
        )
        timed("filter by a number and a text", lambda: asked("duration > 20 and speaker = speaker-7"))
        timed("filter by a part of a text", lambda: asked("text ~ word77"))
        timed("filter by a part of a text that is rare", lambda: asked("text ~ word77 word771"))
        timed("rejected rows", lambda: actions.listed(TITLE, "rejected", "", "", down=False))
        timed("sort by a number", lambda: asked(sort="duration", down=True))
        seen, *_, rows = timed("sort by a text", lambda: asked(sort="source_uri", down=True))
        timed("last page", lambda: asked(start=10**9))
        timed("histogram of a number", lambda: actions.histogram(TITLE, "all", "", "duration"))
        timed("histogram of a text", lambda: actions.histogram(TITLE, "all", "", "speaker"))
        click: Any = SimpleNamespace(row_value=rows["data"][0])
        timed("a segment", lambda: actions.picked(seen, TITLE, click))
    finally:
        kept.close()


def started(folder: Path) -> Callable[[], Any]:
    def work() -> Any:
        from spiritlm_core.explore.actions import Actions
        from spiritlm_core.serve.guard import Kept

        kept = Kept(10**8)
        return Actions(Lake(folder), kept), kept

    return work


def main(rows: int = 1_000_000, shard: int = 256, lake: Path = Path("explore-benchmark")) -> None:
    """Make a lake of so many rows, so many to a shard, if it is not there, and ask it."""
    if not (lake / "refs").exists():
        apart(make, lake, rows, shard)
    measure(lake)


if __name__ == "__main__":
    typer.run(main)
