"""Speed of unit extraction, from Parquet shards of FLAC to Parquet shards of units.

    python benchmarks/units.py AUDIO… [--tokenizer FOLDER] [--minutes 10] [--json FILE] [--copies]

AUDIO are files or folders of speech. Without --tokenizer the models have the official sizes and random weights;
FOLDER is any speech tokenizer folder (`spiritlm import-checkpoints`, `spiritlm fit units`).

Baseline: the same weights through `transformers` and `torchfcpe` as they come, one clip at a time, float32, all cores;
for HuBERT alone: with another encoder the first precision is what the others are compared with.
Product: the stage `units` in as many single-threaded processes as there are cores, as `spiritlm run` does it, or in
one process on a GPU. Both read, decode, encode and write the same shards; models are loaded and warm before the clock
starts. Roofline: the work of the matrix products over the speed of a large float32 matrix product in this same run.

With --copies, only what one more copy of a recording costs (`units.copies`), each kind beside the units themselves: CPU
seconds of one process and bytes of Parquet, for an hour of speech. With --quality the same of the stage `quality`.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import matrix_speed, recordings
from plain_units import PlainExtractor, Seconds, timed, write_official_size

from spiritlm_core.audio.codec import decode_flac, encode_flac
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.config import FrozenConfig
from spiritlm_core.lake.schema import SAMPLE_RATE, table_of
from spiritlm_core.quality.stage import QualityStage
from spiritlm_core.speech.config import CopiesConfig, CopiesStageConfig, UnitsConfig
from spiritlm_core.speech.extractor import UnitExtractor
from spiritlm_core.speech.stage import UNITS, CopiesStage, UnitsStage

STREAMS = {"base": ("hubert",), "expressive": ("hubert", "pitch", "style")}
ROLES = {"base": ("hubert", "quantizer"), "expressive": ("hubert", "quantizer", "pitch", "style")}


def write_shards(paths: Iterable[Path], minutes: float, folder: Path, shards: int) -> list[Path]:
    """Audio shards of about equal length; clips in the order found, dealt in turn."""
    rows, total = [], 0.0
    for path in paths:
        if total < minutes * 60:
            waveform = as_waveform(path)[: 100 * SAMPLE_RATE]
            duration = len(waveform) / SAMPLE_RATE
            names = dict.fromkeys(("utterance_id", "recording_id", "source_uri"), path.stem)
            rows.append({**names, "split": "train", "duration": duration, "audio": encode_flac(waveform)})
            total += duration
    parts = [folder / f"audio-{i}.parquet" for i in range(shards)]
    for i, part in enumerate(parts):
        pq.write_table(table_of(rows[i::shards], AUDIO), part, compression="zstd")
    return parts


def baseline(shards: list[Path], folder: Path, variant: str, out: Path) -> tuple[Seconds, float, float]:
    """One clip at a time through the libraries as they come; seconds by part, wall seconds, GFLOP a second of audio."""
    extractor = PlainExtractor(folder, expressive=variant == "expressive")
    gflop = extractor.gflop_per_second()
    seconds: Seconds = dict.fromkeys(("decode", "encoder", "quantize", "pitch", "style", "write"), 0.0)
    began = time.perf_counter()
    for shard in shards:
        rows = []
        table = pq.read_table(shard, columns=["utterance_id", "audio"])
        for name, flac in zip(table["utterance_id"].to_pylist(), table["audio"].to_pylist(), strict=True):
            waveform = timed(seconds, "decode")(decode_flac)(flac)
            rows.append({"utterance_id": name, **extractor.encode(waveform, seconds)})
        timed(seconds, "write")(write)(table_of(rows, UNITS), out / f"plain-{variant}-{shard.name}")
    return seconds, time.perf_counter() - began, gflop


def write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


class Worker:
    """The stage in one process; class-wide because a process pool starts functions, not objects."""

    stage: Any
    seconds: Seconds

    @classmethod
    def start(cls, folder: Path, variant: str, precision: str, threads: int, warm_up: Path) -> None:
        """Load the models, use them once, and put clocks around their parts."""
        from spiritlm_core.speech import extractor as extraction
        from spiritlm_core.speech.stage import UnitsStage

        torch.set_num_threads(threads)
        cls.seconds = {}
        config = UnitsConfig().stage(expressive=variant == "expressive")
        cls.stage = UnitsStage(config, {role: folder / role for role in ROLES[variant]})
        extractor: Any = extraction.UnitExtractor(cls.stage.models, precision=cast("Any", precision))
        cls.stage._extractor = extractor
        cls._run(warm_up)
        for part, owner, name in (
            ("decode", cls.stage, "_decode"),
            ("encoder", extractor.encoder, "features"),
            ("quantize", extractor, "_quantize"),
            ("style", extractor, "_style"),
            ("pitch", extractor, "_pitch"),
            ("pitch", extraction, "melody"),
        ):
            setattr(owner, name, timed(cls.seconds, part)(getattr(owner, name)))

    @classmethod
    def _run(cls, shard: Path) -> pa.Table:
        return cls.stage.process(pq.read_table(shard, columns=list(cls.stage.inputs[0].columns)))

    @classmethod
    def process(cls, shard: Path, out: Path) -> Seconds:
        """Encode one shard; seconds by part."""
        cls.seconds.clear()
        timed(cls.seconds, "write")(write)(cls._run(shard), out)
        return dict(cls.seconds)

    @classmethod
    def ready(cls) -> None:
        """Keep this process busy for a moment, so that every process of the pool gets one of these and starts."""
        time.sleep(0.5)


def product(
    shards: list[Path], folder: Path, variant: str, precision: str, workers: int, threads: int, out: Path
) -> tuple[Seconds, float]:
    """The stage in `workers` processes; (seconds by part, summed over processes, and wall seconds)."""
    context = multiprocessing.get_context("spawn")
    warm_up = out / "warm-up.parquet"
    pq.write_table(pq.read_table(shards[0]).slice(0, 2), warm_up)
    start = (folder, variant, precision, threads, warm_up)
    with ProcessPoolExecutor(workers, context, Worker.start, start) as pool:
        for ready in [pool.submit(Worker.ready) for _ in range(workers)]:
            ready.result()
        began = time.perf_counter()
        jobs = [pool.submit(Worker.process, s, out / f"{precision}-{variant}-{s.name}") for s in shards]
        parts = [job.result() for job in jobs]
        wall = time.perf_counter() - began
    return {part: sum(seconds.get(part, 0.0) for seconds in parts) for part in parts[0]}, wall


def agreement(shards: list[Path], out: Path, variant: str, reference: str, precision: str) -> dict[str, float]:
    """Share of units equal to those of `reference`, stream by stream."""
    same: dict[str, float] = {}
    for stream in STREAMS[variant]:
        pairs = [
            (np.concatenate(read[stream].to_pylist()))
            for prefix in (reference, precision)
            for read in [pa.concat_tables(pq.read_table(out / f"{prefix}-{variant}-{s.name}") for s in shards)]
        ]
        same[stream] = round(float((pairs[0] == pairs[1]).mean()), 5)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--tokenizer", type=Path, help="speech tokenizer folder; else official sizes, random weights")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--precision", nargs="+", default=["exact", "bf16"], help="exact, bf16")
    parser.add_argument("--variant", nargs="+", default=["base", "expressive"], choices=list(STREAMS))
    parser.add_argument("--copies", action="store_true", help="only what one copy of each kind costs")
    parser.add_argument("--quality", action="store_true", help="only what the stage quality costs, without its models")
    parser.add_argument("--json", type=Path)
    report = run(parser.parse_args())
    print(json.dumps(report, indent=2))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from spiritlm_core.speech.encoders.registry import family_name

    gpu = torch.cuda.is_available()
    cores = len(os.sched_getaffinity(0))
    workers, threads = (1, cores) if gpu else (cores, 1)
    beside = kinds(copies=arguments.copies, quality=arguments.quality)
    count = 1 if beside else 4 * workers
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        work = Path(name)
        shards = write_shards(chain.from_iterable(map(recordings, arguments.audio)), arguments.minutes, work, count)
        tables = [pq.read_table(shard, columns=["duration", "audio"]) for shard in shards]
        seconds = sum(sum(table["duration"].to_pylist()) for table in tables)
        folder = arguments.tokenizer or work / "tokenizer"
        if arguments.tokenizer is None:
            write_official_size(folder, [decode_flac(flac) for flac in tables[0]["audio"].to_pylist()[:20]])
        if beside:
            return {variant: costs_of(beside, shards, folder, variant, work) for variant in arguments.variant}
        torch.set_num_threads(cores)
        gemm = {str(kind)[6:]: round(matrix_speed(kind) / 1e9) for kind in (torch.float32, torch.bfloat16)}
        report: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if gpu else f"{cores} CPU cores",
            "audio_seconds": round(seconds, 1),
            "clips": sum(map(len, tables)),
            "gemm_gflops": gemm,
        }
        print(f"{report['clips']} clips, {seconds / 60:.1f} minutes; matrix products {gemm} GFLOP/s", flush=True)
        for variant in arguments.variant:
            torch.set_num_threads(cores)
            reference, report[variant] = "plain", {"rows": {}}
            rows = report[variant]["rows"]
            if family_name(folder / "hubert") == "hubert":
                parts, wall, work_per_second = baseline(shards, folder, variant, work)
                report[variant]["gflop_per_audio_second"] = round(work_per_second, 2)
                compared: tuple[float, ...] = (wall, gemm["float32"] / work_per_second)
                rows["plain"] = line(seconds, wall, parts, *compared)
                show(variant, "plain", rows["plain"])
            else:
                reference, compared = arguments.precision[0], ()
            for precision in arguments.precision:
                parts, wall = product(shards, folder, variant, precision, workers, threads, work)
                rows[precision] = line(seconds, wall, parts, *compared)
                rows[precision]["same_units"] = agreement(shards, work, variant, reference, precision)
                show(variant, precision, rows[precision])
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return report


KINDS = {
    "shifts": CopiesConfig(shifts=1),
    "speeds, 0.9": CopiesConfig(speeds=(0.9,)),
    "speeds, 1.1": CopiesConfig(speeds=(1.1,)),
    "rooms": CopiesConfig(rooms=1),
}


def kinds(*, copies: bool, quality: bool) -> list[str]:
    """What is measured beside the units."""
    return [*(KINDS if copies else ()), *(["quality"] if quality else ())]


def costs_of(beside: list[str], shards: list[Path], folder: Path, variant: str, work: Path) -> dict[str, Any]:
    """What the units, copies of some kinds and the stage `quality` cost, for an hour of speech."""
    torch.set_num_threads(1)
    models, settings = {role: folder / role for role in ROLES[variant]}, UnitsConfig()
    plain = settings.stage(expressive=variant == "expressive")
    stages: dict[str, Any] = {"units": UnitsStage(plain, models)}
    for kind in beside:
        if kind == "quality":
            stages[kind] = QualityStage(FrozenConfig(), {})
        else:
            stages[kind] = CopiesStage(CopiesStageConfig(**dict(plain), copies=KINDS[kind]), models)
    extractor = UnitExtractor(models)
    hours = sum(sum(pq.read_table(shard)["duration"].to_pylist()) for shard in shards) / 3600
    costs, out = {}, work / "beside.parquet"
    for kind, stage in stages.items():
        stage._extractor, size = extractor, 0
        stage.process(*tables_of(shards[0], stage, slice(1)))  # models are loaded, and warm
        began = time.process_time()
        for shard in shards:
            write(stage.process(*tables_of(shard, stage)), out)
            size += out.stat().st_size
        used = time.process_time() - began
        costs[kind] = {"cpu_seconds_per_hour": round(used / hours, 1), "bytes_per_hour": round(size / hours)}
        show(variant, kind, costs[kind])
    return costs


def tables_of(shard: Path, stage: Any, rows: slice = slice(None)) -> list[pa.Table]:
    """What `stage` reads of a shard: its audio, and words that are none, if it reads words."""
    audio = pq.read_table(shard)[rows]
    return [audio, pa.table({"words": [[]] * len(audio)})][: len(stage.inputs)]


def line(
    seconds: float, wall: float, parts: Seconds, plain: float | None = None, limit: float | None = None
) -> dict[str, Any]:
    speed = seconds / wall
    shares = {part: round(used / sum(parts.values()), 3) for part, used in parts.items()}
    row: dict[str, Any] = {"audio_seconds_per_second": round(speed, 2), "time_shares": shares}
    row |= {"over_plain": round(plain / wall, 2)} if plain else {}
    return row | ({"of_fp32_roofline": round(speed / limit, 3)} if limit else {})


def show(variant: str, name: str, row: dict[str, Any]) -> None:
    print(f"{variant:10} {name:6} {json.dumps(row)}", flush=True)


if __name__ == "__main__":
    main()
