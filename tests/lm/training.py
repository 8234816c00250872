"""Trainings of the tiny job, here, in other processes and under Ray, and what they must agree in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

from spiritlm_core.fit.job import FitJob
from spiritlm_core.recipe import ComputeConfig
from tasks.pool import FanOut

Told = list[tuple[float, str]]


def run(job: FitJob) -> tuple[dict[str, Any], Told]:
    told: Told = []
    return job.run(lambda fraction, message: told.append((fraction, message))), told


def losses(folder: Path) -> list[tuple[int, float, float]]:
    """What must be the same bit for bit: step, loss, gradient norm."""
    table = pq.read_table(folder / "metrics.parquet")
    return [tuple(row.values()) for row in table.select(["step", "loss", "gradient_norm"]).to_pylist()]


def started(job: FitJob, parquet: Path, *, ranks: int = 1) -> subprocess.Popen[bytes]:
    """The same job in a process of its own, through the command line."""
    arguments = {
        "lm": job.config.lm.model_dump(mode="json"),
        "tokens": job.config.tokens.model_dump(mode="json"),
        "compute": job.compute.model_dump(mode="json"),
        "sequences": [str(parquet)],
        "tokenizer": str(job.models["tokenizer"]),
        "work": str(job.work),
        "out": str(job.out),
    }
    job.work.mkdir(parents=True, exist_ok=True)
    file = job.work.parent / "job.yaml"
    file.write_text(yaml.safe_dump(arguments))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, *launcher, "-m", "spiritlm_core.lm", str(file)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def assert_same_weights(one: Path, other: Path) -> None:
    from safetensors.torch import load_file

    weights, expected = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def trained_by_ray(job: FitJob, progress: object = None) -> dict[str, object]:
    from tasks.train import run_workers

    return run_workers(job, progress or (lambda _fraction, _message: None))  # type: ignore[arg-type]


def trained_by_a_child(job: FitJob, progress: Callable[[float, str], None] = lambda *_: None) -> dict[str, object]:
    fan_out = FanOut(str(job.work.parent / "lake"), ComputeConfig())
    try:
        return fan_out.run_job("model", job, progress)
    finally:
        fan_out.close()
