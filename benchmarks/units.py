"""Speed of unit extraction, from Parquet shards of FLAC to Parquet shards of units.

    python benchmarks/units.py AUDIO… [--tokenizer FOLDER] [--minutes 10] [--json FILE]

AUDIO are files or folders of speech. Without --tokenizer the models have the official sizes and random weights;
FOLDER is any speech tokenizer folder (`spiritlm import-checkpoints`, `spiritlm fit units`).

Plain: the same weights through `transformers` and `torchfcpe` as they come, one clip at a time, float32, all cores; for
HuBERT alone. Product: the stage `units` in as many single-threaded processes as there are cores, as `spiritlm run` does
it, or in one process on a GPU. Both read, decode, encode and write the same shards; models are loaded and warm before
the clock starts. Roofline: the work of the plain loop over the speed of a large float32 matrix product in the same run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForSequenceClassification

from spiritlm_core.audio.codec import decode_flac, encode_flac
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.lake.schema import SAMPLE_RATE, table_of
from spiritlm_core.speech.config import UnitsConfig
from spiritlm_core.speech.encoders.encoder import layer_frames
from spiritlm_core.speech.encoders.registry import family_name, load_encoder
from spiritlm_core.speech.extractor import UnitExtractor
from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.config import PitchArchitecture, PitchConfig
from spiritlm_core.speech.pitch.f0 import melody
from spiritlm_core.speech.pretraining.config import PAPER_CONVOLUTIONS
from spiritlm_core.speech.quantizers.kmeans import KMeans
from spiritlm_core.speech.quantizers.quantizer import classifier, load_quantizer
from spiritlm_core.speech.stage import UNITS, UnitsStage

STREAMS = {"base": ("hubert",), "expressive": ("hubert", "pitch", "style")}
ROLES = {"base": ("hubert", "quantizer"), "expressive": ("hubert", "quantizer", "pitch", "style")}
LAYER, CENTRES = 11, 500


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


def clips_of(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".txt") if path.is_dir() else [path]


class Plain:
    """HuBERT and wav2vec 2.0 as they come from `transformers`, one clip at a time, float32."""

    def __init__(self, folder: Path, variant: str) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.quantizer = load_quantizer(folder / "quantizer")
        config = HubertConfig.from_pretrained(folder / "hubert")
        config.num_hidden_layers = self.quantizer.layer
        self.hubert = HubertModel.from_pretrained(folder / "hubert", config=config).eval().to(self.device)
        if config.do_stable_layer_norm:  # what a pre-norm encoder ends in is not part of a block's output
            self.hubert.encoder.layer_norm = torch.nn.Identity()
        self.classes = classifier(self.quantizer, self.device)
        self.expressive = variant == "expressive"
        if self.expressive:
            self.pitch = PitchCoder.load(folder / "pitch", self.device)
            style = Wav2Vec2ForSequenceClassification.from_pretrained(folder / "style")
            self.style = style.eval().to(self.device)

    @torch.inference_mode()
    def encode(self, waveform: np.ndarray) -> dict[str, Any]:
        """Units of one clip of at most 100 s."""
        samples = torch.from_numpy(waveform).to(self.device)[None]
        units: dict[str, Any] = {
            "hubert": self.quantizer.resolve(self.classes(self.hubert(samples).last_hidden_state[0]).cpu().numpy())
        }
        if self.expressive:
            units["pitch"] = self.pitch.encode(self.pitch.contour(melody(waveform, self.device), len(waveform)))
            normal = (samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)
            frames = self.style.projector(self.style.wav2vec2(normal).last_hidden_state)[0]
            seconds = torch.stack([second.mean(dim=0) for second in torch.split(frames, 50)])
            units["style"] = self.style.classifier(seconds).argmax(dim=-1).cpu().numpy()
        return units


def plain(shards: list[Path], folder: Path, variant: str, out: Path) -> tuple[float, float]:
    """Wall seconds of the plain loop, and its work in GFLOP for one second of audio."""
    extractor = Plain(folder, variant)
    with FlopCounterMode(display=False) as counter:
        extractor.encode(np.zeros(10 * SAMPLE_RATE, np.float32))
    began = time.perf_counter()
    for shard in shards:
        table = pq.read_table(shard, columns=["utterance_id", "audio"])
        rows = [
            {"utterance_id": r["utterance_id"], **extractor.encode(decode_flac(r["audio"]))} for r in table.to_pylist()
        ]
        write(table_of(rows, UNITS), out / f"plain-{variant}-{shard.name}")
    return time.perf_counter() - began, counter.get_total_flops() / 10 / 1e9


def write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


class Worker:
    """The stage in one process; class-wide because a process pool starts functions, not objects."""

    stage: UnitsStage

    @classmethod
    def start(cls, folder: Path, variant: str, precision: str, threads: int, warm_up: Path) -> None:
        torch.set_num_threads(threads)
        config = UnitsConfig().stage(expressive=variant == "expressive")
        cls.stage = UnitsStage(config, {role: folder / role for role in ROLES[variant]})
        cls.stage._extractor = UnitExtractor(cls.stage.models, precision=cast("Any", precision))
        cls.stage.process(pq.read_table(warm_up))

    @classmethod
    def process(cls, shard: Path, out: Path) -> None:
        write(cls.stage.process(pq.read_table(shard)), out)

    @classmethod
    def ready(cls) -> None:
        """Keep this process busy for a moment, so that every process of the pool gets one of these and starts."""
        time.sleep(0.5)


def product(shards: list[Path], folder: Path, variant: str, precision: str, cores: int, out: Path) -> float:
    """Wall seconds of the stage."""
    workers, threads = (1, cores) if torch.cuda.is_available() else (cores, 1)
    warm_up = out / "warm-up.parquet"
    pq.write_table(pq.read_table(shards[0]).slice(0, 2), warm_up)
    start = (folder, variant, precision, threads, warm_up)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), Worker.start, start) as pool:
        for ready in [pool.submit(Worker.ready) for _ in range(workers)]:
            ready.result()
        began = time.perf_counter()
        for job in [pool.submit(Worker.process, s, out / f"{precision}-{variant}-{s.name}") for s in shards]:
            job.result()
        return time.perf_counter() - began


def agreement(shards: list[Path], out: Path, variant: str, reference: str, precision: str) -> dict[str, float]:
    """Share of units equal to those of `reference`, stream by stream."""
    both = [
        pa.concat_tables(pq.read_table(out / f"{way}-{variant}-{s.name}") for s in shards)
        for way in (reference, precision)
    ]
    pairs = {name: [np.concatenate(table[name].to_pylist()) for table in both] for name in STREAMS[variant]}
    return {name: round(float((one == other).mean()), 5) for name, (one, other) in pairs.items()}


def gemm_speed(cores: int) -> float:
    """GFLOP/s of ``[2048, 768] x [768, 3072]`` in float32 on all cores."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(cores)
    x, weight = (torch.randn(n, 768, device=device) for n in (2048, 3072))
    rates = []
    for _ in range(8):
        began = time.perf_counter()
        for _ in range(10):
            result = torch.nn.functional.linear(x, weight)
        float(result[0, 0])  # waits for a GPU
        rates.append(10 * 2 * 2048 * 768 * 3072 / (time.perf_counter() - began) / 1e9)
    return float(np.median(rates))


def write_official_size(folder: Path, clips: list[np.ndarray]) -> None:
    """Fill `folder`; centres of the quantizer are frames of `clips`, so that units are as many as can be."""
    torch.manual_seed(0)
    kernels = PAPER_CONVOLUTIONS["conv_kernels"]
    shape = {"conv_dim": PAPER_CONVOLUTIONS["conv_channels"], "conv_stride": PAPER_CONVOLUTIONS["conv_strides"]}
    config = HubertConfig(num_hidden_layers=LAYER, conv_kernel=kernels, num_feat_extract_layers=len(kernels), **shape)
    _sharpened(HubertModel(config)).save_pretrained(folder / "hubert")
    classifier = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(num_labels=100))
    _sharpened(classifier).save_pretrained(folder / "style")
    (folder / "style" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    frames = np.concatenate(layer_frames(load_encoder(folder / "hubert", LAYER), clips, LAYER))
    centres = frames[np.random.default_rng(0).choice(len(frames), CENTRES, replace=False)]
    ones = np.ones(frames.shape[1], np.float32)
    (folder / "quantizer").mkdir()
    KMeans(centres, 0 * ones, ones, {"layer": LAYER}).save(folder / "quantizer" / "kmeans.safetensors")
    (folder / "pitch").mkdir()
    coder = PitchCoder(PitchArchitecture.fitted(PitchConfig(codes=64, width=32, depth=4, embedding=128)))
    coder.codebook.normal_()
    coder.save(folder / "pitch")


def _sharpened(model: torch.nn.Module) -> torch.nn.Module:
    """Twice the usual start: at 0.02 a random transformer hardly depends on its input."""
    for name, parameter in model.named_parameters():
        if "encoder.layers" in name and name.endswith("weight") and parameter.ndim == 2:
            parameter.data *= 2.0
    return model


def run(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    shards = write_shards(clips_of(arguments.audio), arguments.minutes, work, 4 * cores)
    tables = [pq.read_table(shard, columns=["duration", "audio"]) for shard in shards]
    seconds = sum(sum(table["duration"].to_pylist()) for table in tables)
    folder = arguments.tokenizer or work / "tokenizer"
    if arguments.tokenizer is None:
        write_official_size(folder, [decode_flac(flac) for flac in tables[0]["audio"].to_pylist()[:20]])
    gemm = gemm_speed(cores)
    report: dict[str, Any] = {"clips": sum(map(len, tables)), "audio_seconds": round(seconds, 1), "gemm_gflops": gemm}
    print(json.dumps(report), flush=True)
    for variant in arguments.variant:
        torch.set_num_threads(cores)
        wall, work_per_second, reference = 0.0, 0.0, arguments.precision[0]
        if family_name(folder / "hubert") == "hubert":
            reference, (wall, work_per_second) = "plain", plain(shards, folder, variant, work)
        for way in ("plain", *arguments.precision) if wall else arguments.precision:
            took = wall if way == "plain" else product(shards, folder, variant, way, cores, work)
            row: dict[str, Any] = {"audio_seconds_per_second": round(seconds / took, 2)}
            row |= {
                "over_plain": round(wall / took, 2),
                "of_roofline": round(seconds / took * work_per_second / gemm, 3),
            }
            row["same_units"] = agreement(shards, work, variant, reference, way)
            report[f"{variant} {way}"] = row
            print(f"{variant:10} {way:6} {json.dumps(row)}", flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--tokenizer", type=Path, help="speech tokenizer folder; else official sizes, random weights")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--precision", nargs="+", default=["exact", "bf16"], help="exact, bf16")
    parser.add_argument("--variant", nargs="+", default=["base", "expressive"], choices=list(STREAMS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        report = run(arguments, Path(name))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
