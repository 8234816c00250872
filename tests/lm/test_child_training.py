"""Training alone in a child process: the same model as in one process, whoever is killed on the way."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spiritlm_core.errors import CheckpointError, TrainingError
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lm.config import LmCompute
from spiritlm_core.lm.train.checkpoint import read_state
from tasks.train import sigterm_asks
from tests.lm.training import assert_same_weights, losses, run, trained_by_a_child
from tests.support.small_model import tiny_config
from tests.support.watching import PATIENCE, descendants, kill, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COMPUTE = LmCompute(cpus_per_worker=1, checkpoint_every=4, log_every=2)


def test_a_killed_child_is_replaced_and_the_result_is_the_same(job: FitJob) -> None:
    job = replace(job, config=tiny_config(steps=200), compute=COMPUTE)
    killed: list[str] = []

    def progress(_fraction: float, message: str) -> None:
        if message.startswith("step") and not killed:
            killed.append(message)
            kill(descendants(os.getpid(), "tasks.executors.child"))

    assert trained_by_a_child(job, progress)["steps"] == 200
    assert killed
    assert "step 200/" not in killed[0], "training was over before the child was killed"
    undisturbed = replace(job, work=job.work.parent / "undisturbed", out=job.out.parent / "expected")
    run(undisturbed)
    assert losses(job.out) == losses(undisturbed.out)
    assert_same_weights(job.out, undisturbed.out)


def test_what_the_caller_can_act_on_is_not_tried_again(job: FitJob) -> None:
    with pytest.raises(TrainingError, match="use_gpu: true, but torch sees no GPU"):
        trained_by_a_child(replace(job, compute=COMPUTE.model_copy(update={"use_gpu": True})))
    half = job.work / "checkpoints" / "step-00000004"
    half.mkdir(parents=True)
    (half / "state.json").write_text('{"vocabulary": "of another model", "corpus": "", "step": 4}')
    with pytest.raises(CheckpointError, match="trained with vocabulary of another"):
        trained_by_a_child(replace(job, compute=COMPUTE))


def test_what_is_asked_while_a_worker_starts_is_heard_and_what_an_earlier_run_was_asked_is_not(job: FitJob) -> None:
    job.work.mkdir(parents=True, exist_ok=True)
    job.stop_file.touch()
    with sigterm_asks(job.stop_file):
        assert not job.stop_file.exists()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(TrainingError, match="asked to stop; step 1 is saved"):
            job.run(lambda *_: None)
    assert not job.stop_file.exists()


def test_sigterm_behind_the_last_step_ends_the_program_as_ever(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with sigterm_asks(tmp_path / "stop"):
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


DRIVER = """
import pickle, sys
from pathlib import Path
from tests.lm.training import trained_by_a_child
trained_by_a_child(pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


def test_sigterm_to_the_driver_saves_the_step_that_the_child_is_at(job: FitJob, tmp_path: Path) -> None:
    rarely = COMPUTE.model_copy(update={"checkpoint_every": 1000})
    job = replace(
        job, compute=rarely, config=tiny_config(steps=100_000, validate_every=5)
    )  # the first is soon the best
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(job))
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "job.pickle")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(job.work.glob("checkpoints/step-*/state.json")), driver)
    driver.terminate()
    _, told = driver.communicate(timeout=PATIENCE)
    saved = read_state(max((job.work / "checkpoints").glob("step-*/state.json")).parent)
    assert f"asked to stop; step {saved.step} is saved" in told
