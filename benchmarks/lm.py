"""Training speed and memory: the project's loop against the Trainer of transformers, same model, same sequences.

    python benchmarks/lm.py [--shape tiny 135m] [--length 4096] [--documents 300 0] [--steps 6]

Weights and tokens are random. ``--documents N`` packs documents of N tokens on average into each sequence, 0 makes one
document of it. The Trainer sees the same sequences and predicts the same tokens; it looks across documents, as packed
data usually is used with it, which for it is the fastest way. Each run has a process of its own, with the same threads
and the same batch; the first steps are left out. On a GPU both run in bf16.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import apart, matrix_speed, peak_memory
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from spiritlm_core.files import write_json
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lm.config import ArchitectureConfig, LmCompute, LmConfig, ModelConfig, OptimizerConfig
from spiritlm_core.lm.model.attention import Documents
from spiritlm_core.lm.model.network import build_model
from spiritlm_core.lm.train.loop import _loop, _Stop
from spiritlm_core.lm.train.run import start
from spiritlm_core.lm.train.source import Training
from spiritlm_core.lm.train.step import Metrics
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.pack import Packed
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE, Vocabulary

VOCABULARY = {"text_size": 32_000, "hubert": 501, "pitch": 64, "style": 100, "bos": 1, "eos": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 256, "layers": 4, "heads": 4, "kv_heads": 4, "ffn_size": 768},
    "135m": {"hidden_size": 576, "layers": 30, "heads": 9, "kv_heads": 3, "ffn_size": 1536},
    "1.3b": {
        "hidden_size": 2048,
        "layers": 24,
        "heads": 16,
        "kv_heads": 16,
        "ffn_size": 5504,
        "tied_embeddings": False,
    },
}
WARMUP = 2  # steps left out


@dataclass(frozen=True)
class Setting:
    """One run."""

    shape: str
    length: int
    documents: int
    steps: int
    sequences: int  # in a step
    micro_batch: int
    compile: bool = False


@dataclass(frozen=True)
class Sequences:
    """Random documents in sequences without padding; a `Source`."""

    setting: Setting

    def packed(self, index: int) -> Packed:
        rng = np.random.default_rng([7, index])
        length, mean = self.setting.length, self.setting.documents
        lengths: list[int] = []
        while mean and sum(lengths) < length:
            lengths.append(max(2, int(rng.lognormal(np.log(mean) - 0.18, 0.6))))
        bounds = np.minimum(np.cumsum(lengths or [length]), length)
        documents = np.searchsorted(bounds, np.arange(length), side="right").astype(np.int32)
        ids = rng.integers(3, 32_667, length).astype(np.int32)
        streams = tuple(("text", "speech", "interleaved")[i % 3] for i in range(documents[-1] + 1))
        return Packed(ids, documents, streams, tuple(map(str, range(len(streams)))))

    def batches(self, vocabulary: Any, *, rank: int, world_size: int, **_: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        while True:
            for index in range(rank, self.setting.steps * self.setting.sequences, world_size):
                yield self.packed(index), {}

    def held_out(self, *_: Any, **__: Any) -> list[Any]:
        return []

    def fingerprint(self) -> str:
        return "benchmark"


def lm_config(setting: Setting) -> LmConfig:
    return LmConfig(
        architecture=ArchitectureConfig(**SHAPES[setting.shape]),
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup_steps=0),
        tokens_per_step=setting.sequences * setting.length,
        steps=setting.steps,
    )


def ours(setting: Setting) -> dict[str, Any]:
    """Run the training loop itself."""
    compute = LmCompute(micro_batch=setting.micro_batch, checkpoint_every=10**9, compile=setting.compile)
    config = ModelConfig(lm=lm_config(setting), tokens=TokensConfig(context_length=setting.length))
    source = Sequences(setting)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        vocabulary = Vocabulary(**VOCABULARY)
        write_json(work / VOCABULARY_FILE, {**vocabulary.to_dict(), "fingerprint": vocabulary.fingerprint()})
        job = FitJob("", config, {"tokenizer": work}, {}, work / "w", work / "o", compute)
        training = Training(job, config, source)
        run = start(training, print)
        run.checkpoints.save = lambda *_: work  # type: ignore[method-assign]
        before = used_memory()
        with Metrics(run) as metrics:
            _loop(run, _Stop(work / "stop"), metrics, lambda *_: None)
        rows = run.state.rows
        model = metrics._model
    pairs = statistics.mean(Documents.of(source.packed(i).document_ids).pairs for i in range(setting.sequences))
    return {
        "losses": [row["loss"] for row in rows],
        "seconds": statistics.median([row["seconds"] for row in rows[WARMUP:]]),
        "flops": model.of_step(setting.sequences * setting.length, int(pairs * setting.sequences)),
        "memory": used_memory(),
        "memory_before": before,
    }


class Rows(Dataset):  # type: ignore[type-arg]
    """The sequences as the Trainer takes them."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.source = setting, Sequences(setting)

    def __len__(self) -> int:
        return self.setting.steps * self.setting.sequences

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        packed = self.source.packed(index)
        labels = packed.input_ids.astype(np.int64)
        labels[np.flatnonzero(np.diff(packed.document_ids, prepend=-1))] = -100  # never predict a first token
        return {"input_ids": torch.from_numpy(packed.input_ids.astype(np.int64)), "labels": torch.from_numpy(labels)}


class Clock(TrainerCallback):
    """When the steps of the Trainer end."""

    def __init__(self) -> None:
        self.times = [time.monotonic()]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.monotonic())


def trainer(setting: Setting) -> dict[str, Any]:
    """The Trainer of transformers on the same model and sequences."""
    model = build_model(lm_config(setting), Vocabulary(**VOCABULARY), context_length=setting.length)
    before, clock, rows = used_memory(), Clock(), Rows(setting)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=setting.steps,
            per_device_train_batch_size=setting.micro_batch,
            gradient_accumulation_steps=setting.sequences // setting.micro_batch,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            weight_decay=0.1,
            max_grad_norm=1.0,
            bf16=torch.cuda.is_available(),
            torch_compile=setting.compile,
            save_strategy="no",
            report_to=[],
            logging_steps=1,
            disable_tqdm=True,
            dataloader_num_workers=0,
        )
        loop = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock])
        loop._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
        loop.train()
    seconds = float(np.median(np.diff(clock.times)[WARMUP:]))
    losses = [row["loss"] for row in loop.state.log_history if "loss" in row]
    return {"losses": losses, "seconds": seconds, "memory": used_memory(), "memory_before": before}


def used_memory() -> int:
    """Most bytes so far, of the GPU if there is one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()


def measured(kind: str, setting: Setting) -> dict[str, Any]:
    """One run in a process of its own."""
    try:
        return dict(apart({"ours": ours, "trainer": trainer}[kind], setting))
    except Exception as error:  # noqa: BLE001 - such as too little memory; the other runs go on
        return {"error": f"{type(error).__name__}: {error}"}


def compare(setting: Setting, speed: float) -> None:
    results = {kind: measured(kind, setting) for kind in ("trainer", "ours")}
    tokens = setting.sequences * setting.length
    in_flight = setting.micro_batch * setting.length
    documents = f"documents of {setting.documents} tokens" if setting.documents else "one document a sequence"
    print(f"\n{setting.shape}, {setting.length} tokens a sequence, {documents}, {tokens} tokens a step")
    for kind, result in results.items():
        if "error" in result:
            print(f"  {kind:<8} {result['error']}")
            continue
        used = (result["memory"] - result["memory_before"]) / in_flight
        print(
            f"  {kind:<8} {tokens / result['seconds']:>9,.0f} tokens/s   peak {result['memory'] / 2**30:.2f} GiB, "
            f"{used / 1024:,.0f} KiB a token of a micro-batch   first losses "
            + " ".join(f"{loss:.4f}" for loss in result["losses"][:2])
        )
    if not any("error" in result for result in results.values()):
        ratio = results["trainer"]["seconds"] / results["ours"]["seconds"]
        flops = results["ours"]["flops"] / results["ours"]["seconds"]
        print(f"  {ratio:.2f} times the Trainer; {flops / speed:.0%} of the speed of a large matrix product (MFU)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=["tiny"])
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--documents", nargs="+", type=int, default=[300, 0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=2, help="in a step")
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    speed = matrix_speed(torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    print(f"a large matrix product runs at {speed / 1e9:,.0f} GFLOP/s")
    for shape in given.shape:
        for documents in given.documents:
            sizes = (given.steps, given.sequences, given.micro_batch)
            compare(Setting(shape, given.length, documents, *sizes, compile=given.compile), speed)


if __name__ == "__main__":
    main()
