"""Fits of unit models in several processes: under Ray Train, and under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.errors import TrainingError
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.quantizers.config import QuantizerStageConfig
from tests.speech.models import CONFIG
from tests.support.ray_runtime import kill_worker

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HUBERT = "spiritlm_core.speech.fits:HubertFit"
TWO = FitCompute(workers=2, cpus_per_worker=1)


@pytest.fixture
def job(audio: pa.Table, tmp_path: Path) -> Callable[..., FitJob]:
    def make(name: str, steps: tuple[int, int], compute: FitCompute = TWO) -> FitJob:
        work, out = (tmp_path / f"{name}-{kind}" for kind in ("work", "out"))
        for folder in (work, out):
            folder.mkdir()
        config = CONFIG.hubert.model_copy(update={"steps": steps})
        return FitJob(HUBERT, config, {}, {"audio": TableView.of(audio)}, work, out, compute)

    return make


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def run(job: FitJob, progress: Callable[[float, str], None] = lambda *_: None) -> dict:
    from tasks.train import run_workers

    return run_workers(job, progress)


def test_two_workers_fit_one_hubert(ray_runtime: None, job: Callable[..., FitJob]) -> None:
    messages: list[str] = []
    together = job("together", (12, 6))
    summary = run(together, lambda _, message: messages.append(message))
    assert [iteration["steps"] for iteration in summary["iterations"]] == [12, 6]
    assert any("iteration" in message for message in messages)
    two = weights(together.out)
    alone = job("alone", (12, 6))
    alone.run(lambda *_: None)
    one = weights(alone.out)
    assert two.keys() == one.keys()
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=0.05, atol=5e-3, err_msg=name)


def test_a_killed_worker_is_replaced(ray_runtime: None, job: Callable[..., FitJob]) -> None:
    killed: list[str] = []

    def progress(fraction: float, message: str) -> None:
        if "step" in message and fraction < 1 and not killed and kill_worker():
            killed.append(message)

    disturbed, whole = job("disturbed", (150, 50)), job("whole", (150, 50))
    summary = run(disturbed, progress)
    assert killed
    assert [iteration["steps"] for iteration in summary["iterations"]] == [150, 50]
    run(whole)
    for name, array in weights(whole.out).items():
        np.testing.assert_allclose(weights(disturbed.out)[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_an_error_of_the_fit_is_the_error_of_the_run(
    ray_runtime: None, audio: pa.Table, models: dict[str, Path], tmp_path: Path
) -> None:
    for folder in (tmp_path / "work", tmp_path / "out"):
        folder.mkdir()
    stage, config = "spiritlm_core.speech.fits:QuantizerFit", QuantizerStageConfig(units=501)
    short = {"audio": TableView.of(audio.slice(0, 1))}
    with pytest.raises(TrainingError, match="501 clusters want at least as many frames"):
        run(FitJob(stage, config, models, short, tmp_path / "work", tmp_path / "out", TWO))
    greedy = FitJob(stage, config, models, short, tmp_path / "work", tmp_path / "out", FitCompute(workers=64))
    with pytest.raises(TrainingError, match="do not fit"):
        run(greedy)


def test_torchrun_does_the_same(audio: pa.Table, tmp_path: Path) -> None:
    pq.write_table(audio, tmp_path / "audio.parquet")
    config = CONFIG.hubert.model_copy(update={"steps": (6, 3)}).model_dump(mode="json")
    for name, processes in (("alone", 1), ("pair", 2)):
        file = {"stage": "hubert", "config": config, "audio": [str(tmp_path / "audio.parquet")]}
        file |= {"work": str(tmp_path / f"{name}-work"), "out": str(tmp_path / name)}
        (tmp_path / "job.json").write_text(json.dumps(file))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        module = ["-m", "spiritlm_core.speech", str(tmp_path / "job.json")]
        done = subprocess.run(launcher + module, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["iterations"][0]["steps"] == 6
    for name, array in weights(tmp_path / "alone").items():
        np.testing.assert_allclose(weights(tmp_path / "pair")[name], array, rtol=0.05, atol=5e-3, err_msg=name)
    (tmp_path / "job.json").write_text('{"stage": "hubert", "audio": ["nowhere.parquet"], "work": "w", "out": "o"}')
    done = subprocess.run([sys.executable, *module], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere.parquet" in done.stderr
    assert "Traceback" not in done.stderr
