"""A vocoder fitted by several processes: under Ray Train, and under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from spiritlm_core.fit.config import FitCompute
from spiritlm_core.fit.job import FitJob
from tests.support.ray_runtime import kill_worker
from tests.support.watching import PATIENCE
from tests.vocoder.fitting import TINY, build, config, corpus, silent, views

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STAGE = "spiritlm_core.speech.fits:VocoderFit"


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def nearly_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.abs(one[name] - other[name]).max() < 2e-3 for name in one)


def job(folder: Path, **fit: int) -> FitJob:
    compute = FitCompute(workers=2, cpus_per_worker=1)
    settings = config(TINY.model_copy(update={"learning_rate": 1e-3, **fit}))
    for name in ("work", "out"):
        (folder / name).mkdir(parents=True)
    return FitJob(STAGE, settings, {}, views(corpus()), folder / "work", folder / "out", compute)


def test_two_workers_fit_what_one_process_fits(ray_runtime: None, tmp_path: Path) -> None:
    from tasks.train import run_workers

    together = job(tmp_path / "two")
    summary = run_workers(together, silent)
    build(tmp_path / "one", together.config, corpus())
    assert summary["steps"] == TINY.steps
    assert nearly_equal(weights(tmp_path / "one/out"), weights(together.out))


def test_a_dead_worker_is_replaced(ray_runtime: None, tmp_path: Path) -> None:
    from tasks.train import run_workers

    killed: list[str] = []
    longer = job(tmp_path / "killed", steps=200, adversarial_from=198)

    def progress(fraction: float, message: str) -> None:
        if 0.5 <= fraction < 1 and not killed and kill_worker():  # there is a checkpoint by then
            killed.append(message)

    assert run_workers(longer, progress)["steps"] == 200
    assert killed
    whole = job(tmp_path / "whole", steps=200, adversarial_from=198)
    run_workers(whole, silent)
    assert nearly_equal(weights(whole.out), weights(longer.out))


def test_torchrun_without_ray(tmp_path: Path) -> None:
    settings = config(TINY.model_copy(update={"learning_rate": 1e-3}))
    for name, table in corpus().items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    out, script = tmp_path / "out", tmp_path / "job.json"
    script.write_text(
        json.dumps(
            {
                "stage": "vocoder",
                "config": settings.model_dump(mode="json"),
                "audio": [str(tmp_path / "audio.parquet")],
                "units": [str(tmp_path / "units.parquet")],
                "work": str(tmp_path / "work"),
                "out": str(out),
            }
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "spiritlm_core.speech", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    build(tmp_path / "one", settings, corpus())
    assert nearly_equal(weights(tmp_path / "one/out"), weights(out))
