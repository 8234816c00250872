"""The stage under Ray Train: the same model as in one process, whoever is killed on the way."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spiritlm_core.errors import TrainingError
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lm.config import LmCompute
from spiritlm_core.lm.train.checkpoint import read_state
from tests.lm.training import assert_same_weights, losses, run, started, trained_by_ray
from tests.support.ray_runtime import kill_worker
from tests.support.small_model import tiny_config
from tests.support.watching import PATIENCE, kill_group, wait_for

pytestmark = pytest.mark.integration

STEPS = 400
START_RAY = "from tests.support.ray_runtime import start_ray; start_ray()\n"


@pytest.fixture
def long(job: FitJob) -> FitJob:
    job.work.mkdir(parents=True, exist_ok=True)
    return replace(
        job, config=tiny_config(steps=STEPS), compute=LmCompute(cpus_per_worker=1, checkpoint_every=4, log_every=2)
    )


def expected(job: FitJob) -> Path:
    other = replace(job, work=job.work.parent / "undisturbed", out=job.out.parent / "expected")
    run(other)
    return other.out


@pytest.mark.slow
def test_killed_worker_is_replaced_and_the_result_is_the_same(long: FitJob, ray_runtime: None) -> None:
    killed: list[str] = []

    def progress(_fraction: float, message: str) -> None:
        if message.startswith("step") and not killed and kill_worker():
            killed.append(message)

    summary = trained_by_ray(long, progress)
    assert killed
    assert f"step {STEPS}/" not in killed[0], "training was over before the worker was killed"
    assert summary["steps"] == STEPS
    undisturbed = expected(long)
    assert losses(long.out) == losses(undisturbed)
    assert_same_weights(long.out, undisturbed)


def driver_of(long: FitJob) -> subprocess.Popen[bytes]:
    """A process of its own that starts Ray and trains."""
    (long.work.parent / "job.pickle").write_bytes(pickle.dumps(long))
    code = START_RAY + (
        "import pickle, sys; from pathlib import Path; from tests.lm.training import trained_by_ray\n"
        f"trained_by_ray(pickle.loads(Path({str(long.work.parent / 'job.pickle')!r}).read_bytes()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True, stderr=subprocess.PIPE
    )
    wait_for(lambda: list(long.work.glob("checkpoints/step-*/state.json")), driver)
    return driver


@pytest.mark.slow
def test_killed_driver_goes_on_under_the_same_name(long: FitJob, ray_runtime: None) -> None:
    driver = driver_of(long)
    assert kill_group(driver), "training was over before the driver was killed"
    assert not long.out.exists()
    trained_by_ray(long)
    assert losses(long.out) == losses(expected(long))


@pytest.mark.slow
def test_sigterm_to_the_driver_saves_the_step_that_the_worker_is_at(long: FitJob) -> None:
    rarely = replace(long, compute=long.compute.model_copy(update={"checkpoint_every": 1000}))
    rarely = replace(rarely, config=tiny_config(steps=100_000, validate_every=5))  # the first one is soon saved as best
    driver = driver_of(rarely)
    driver.terminate()
    _, told = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 1
    assert b"asked to stop; step" in told
    saved = read_state(max((rarely.work / "checkpoints").glob("step-*/state.json")).parent)
    assert f"step {saved.step} is saved".encode() in told


@pytest.mark.slow
def test_two_workers_lose_the_same_under_ray_and_under_torchrun(long: FitJob, parquet: Path, ray_runtime: None) -> None:
    two = replace(long, config=tiny_config(steps=12), compute=long.compute.model_copy(update={"workers": 2}))
    trained_by_ray(two)
    other = replace(two, work=two.work.parent / "torchrun", out=two.out.parent / "other")
    process = started(other, parquet, ranks=2)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told.decode()[-2000:]
    assert losses(two.out) == losses(other.out)
    assert_same_weights(two.out, other.out)


@pytest.mark.slow
def test_what_the_caller_can_act_on_is_not_tried_again(long: FitJob, ray_runtime: None) -> None:
    half = long.work / "checkpoints" / "step-00000004"
    half.mkdir(parents=True)
    (half / "state.json").write_text('{"vocabulary": "of another model", "corpus": "", "step": 4}')
    with pytest.raises(TrainingError, match="trained with vocabulary of another"):
        trained_by_ray(long)
    greedy = replace(long, compute=LmCompute(workers=64))
    with pytest.raises(TrainingError, match="do not fit"):
        trained_by_ray(greedy)
