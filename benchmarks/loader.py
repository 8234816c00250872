"""Speed and memory of the reader of training data: drawn from block by block, beside the whole corpus in memory.

    OMP_NUM_THREADS=1 python benchmarks/loader.py [--hours 800] [--tokens 60000000]

The corpus is made up, at the rates of real Expressive speech (`benchmarks/corpus.py`), in Parquet shards of four hours.
Every row is a process of its own: the whole split in memory, blocks, and blocks of a corpus ten times as large. `start`
lasts until the first sequence is there; tokens a second are those of wall and of CPU time, start included; `peak` is
memory beyond what the process has before it reads (PyTorch alone is half a gigabyte). Last, a training that takes
`rate` tokens a second reads from a store that answers each read of a shard `latency` seconds late: `waited` is the time
that it stood still after the start. Last of all: tokens a second of blocks beside those of the corpus in memory, and
beside what a training on one GPU takes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from machine import apart, peak_memory

from spiritlm_core.lake.shard import count_values, read_rows
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.train.data import Prefetch, steps
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.mix import training_batches
from spiritlm_core.tokens.stage import SEQUENCES
from spiritlm_core.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(text_size=4000, bos=1, eos=2, hubert=501, pitch=64, style=100)
WORDS, SPEECH = 40, 375  # of a segment of 15 seconds
SEGMENTS = 960  # of a shard: four hours
TAKEN = {"135M": 213_600, "1.3B": 52_400}  # tokens a second that a training takes on an H100, see docs/performance.md


def shard(number: int) -> pa.Table:
    """Rows of `sequences` for 48 recordings of five minutes."""
    rng = np.random.default_rng(number)
    text, speech = (np.sort(rng.integers(0, n, (SEGMENTS, WORDS - 1)), 1) for n in (56, SPEECH))
    low = VOCABULARY.speech_marker + 1
    columns = {
        "utterance_id": [f"u{number:06}-{i:04}" for i in range(SEGMENTS)],
        "recording_id": [f"r{number:06}-{i // 20:02}" for i in range(SEGMENTS)],
        "start": 15.0 * (np.arange(SEGMENTS) % 20),
        "split": ["train"] * SEGMENTS,
        "speech_only": np.zeros(SEGMENTS, bool),
        "text_ids": list(rng.integers(10, 4000, (SEGMENTS, 56), np.int32)),
        "text_offsets": list(np.pad(np.pad(text, ((0, 0), (1, 0))), ((0, 0), (0, 1)), constant_values=56)),
        "speech_ids": list(rng.integers(low, VOCABULARY.size, (SEGMENTS, SPEECH), np.int32)),
        "speech_offsets": list(np.pad(np.pad(speech, ((0, 0), (1, 0))), ((0, 0), (0, 1)), constant_values=SPEECH)),
        "can_switch": list(np.ones((SEGMENTS, WORDS), bool)),
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(SEGMENTS, f.type) for f in SEQUENCES]
    return pa.Table.from_arrays(arrays, schema=SEQUENCES)


@dataclass(frozen=True)
class Late:
    """Reads a file as a lake does, on an object store some time later."""

    path: Path
    latency: float

    def __call__(self, columns: Sequence[str] | None) -> pa.Table:
        time.sleep(self.latency)
        with pa.OSFile(str(self.path)) as source:
            return read_rows(source, self.path.name, columns)

    def values(self) -> Mapping[str, int]:
        time.sleep(self.latency)
        with pa.OSFile(str(self.path)) as source:
            return count_values(source, self.path.name)

    def digest(self) -> str:
        return self.path.name


def measure(paths: list[Path], in_memory: float, tokens: int, latency: float, rate: float) -> dict[str, float]:
    """Draw so many tokens; `rate` 0 takes them as fast as they come."""
    config = TokensConfig(context_length=4096, in_memory=in_memory)
    view = TableView(tuple(Late(path, latency) for path in paths), len(paths) * SEGMENTS)
    before = peak_memory()
    begun, spent = time.monotonic(), time.process_time()
    seen, waited, start = 0, 0.0, 0.0
    source = training_batches(view, VOCABULARY, config, seed=0)
    with Prefetch(steps(source, VOCABULARY.size, sequences=16, micro_batch=16)) as data:
        while seen < tokens:
            step = next(data)
            start = start or time.monotonic() - begun
            waited += data.waited * (seen > 0)
            seen += step.parts[0].tokens
            time.sleep(step.parts[0].tokens / rate if rate else 0)
    wall, cpu = time.monotonic() - begun, time.process_time() - spent
    return {
        "start": start,
        "wall": seen / wall,
        "cpu": seen / cpu,
        "waited": waited,
        "peak_gb": (peak_memory() - before) / 1e9,
    }


def main(hours: int = 800, tokens: int = 60_000_000, latency: float = 0.1, rate: float = 1e6, rounds: int = 3) -> None:
    """Draw so many tokens of a corpus of so many hours, and of ten times as many.

    A read of the late store takes `latency` seconds, the training that waits takes `rate` tokens a second. The corpus
    in memory and blocks of it are measured by turns, so many rounds, so that other programs slow both.
    """
    blocks = TokensConfig().in_memory
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number:06}.parquet" for number in range(10 * hours // 4)]
        for number, path in enumerate(paths):
            pq.write_table(shard(number), path, compression="zstd", row_group_size=1024)
        few, rows = paths[: len(paths) // 10], list[dict[str, float]]()
        print(f"{'':44}{'start, s':>10}{'tokens/s':>14}{'of CPU time':>14}{'waited, s':>11}{'peak, GB':>10}")
        both = [
            (f"{hours} h, whole in memory", few, 1e9, tokens, 0.0, 0.0),
            (f"{hours} h, blocks", few, blocks, tokens, 0.0, 0.0),
        ]
        for what, *arguments in (
            *(both * rounds),
            (f"{10 * hours} h, blocks", paths, blocks, tokens, 0.0, 0.0),
            (f"{10 * hours} h, late store, training", paths, blocks, tokens, latency, rate),
        ):
            row = apart(measure, *arguments)
            rows.append(row)
            figures = f"{row['start']:>10.1f}{row['wall']:>14,.0f}{row['cpu']:>14,.0f}{row['waited']:>11.2f}"
            print(f"{what:44}{figures}{row['peak_gb']:>10.2f}", flush=True)
            print(json.dumps({"what": what, **row}), file=sys.stderr)
        whole, given = (
            {of: median(row[of] for row in rows[at : 2 * rounds : 2]) for of in ("wall", "cpu")} for at in (0, 1)
        )
        by_wall, by_cpu = (given[of] / whole[of] for of in ("wall", "cpu"))
        print(f"blocks give {by_wall:.2f} x of the whole corpus in memory, {by_cpu:.2f} x by CPU time (medians)")
        for model, taken in TAKEN.items():
            print(f"{model} on an H100 takes {taken:,} tokens/s: blocks give {given['wall'] / taken:.1f} times as many")


if __name__ == "__main__":
    typer.run(main)
