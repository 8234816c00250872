"""Training under Ray Train: worker processes that run a job together, for the language model and the unit models.

The checkpoints in `work` are the truth. Ray Train starts the processes, joins them to one process group and starts
dead ones again; the job then finds its last checkpoint, as it does when the driver itself was killed.
Ray must be initialised; see :mod:`tasks.executors.cluster`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spiritlm_core.cores import core_share
from spiritlm_core.errors import SpiritLMError, TrainingError
from spiritlm_core.files import write_atomically
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.stage import Progress
from tasks.executors.cluster import NoRoomError, amounts, nodes, room_for, to_come
from tasks.worker import Wish

POLL_SECONDS = 1.0
SHRUNK_SECONDS = 60.0  # for a machine to come back
_PROGRESS, _SUMMARY, _ERROR = "progress.json", "summary.json", "error.json"


def run_workers(job: FitJob, progress: Progress) -> dict[str, Any]:
    """Run `job` in Ray Train workers; resumes from the checkpoints in its work folder.

    On several machines the folders of the job must lie on storage that all of them share. Returns the summary of the
    first worker. Raises TrainingError: the job says what is wrong, or workers kept dying.
    """
    work, workers = job.work, job.compute.workers
    if _is_private():  # a runtime on this machine: nothing can preempt it
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    for stale in (_PROGRESS, _SUMMARY, _ERROR):
        (work / stale).unlink(missing_ok=True)
    progress(0.0, f"starting {workers} training worker{'s' * (workers > 1)}")
    each = _wish(job)
    with sigterm_asks(job.stop_file):
        failure = _follow(_trainer(job, each), job, each, progress)
    if error := _read(work / _ERROR):
        raise TrainingError(error["message"])
    if failure is not None:
        raise TrainingError(f"the training workers failed: {_reason(failure)}") from failure
    if (summary := _read(work / _SUMMARY)) is None:
        raise TrainingError(f"Ray Train ended without a summary in {work}: is it on storage that all machines share?")
    return summary


def _trainer(job: FitJob, each: Wish) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    compute = job.compute
    gpu = bool(each.gpus)
    # Ray leaves GPUs visible to workers that have not reserved one, and torch would take them.
    seen = any(resources.get("GPU") for resources, _ in [*nodes(), *to_come()])
    hidden = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}} if seen and not gpu else None
    environment: dict[str, Any] = {"worker_runtime_env": hidden} if hidden else {}
    return _trainer_class()(
        _worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=gpu,
            resources_per_worker=each.reserved,
            placement_strategy=compute.placement.upper(),
        ),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(
            name=job.work.name,
            storage_path=str((job.work / "ray").absolute()),
            failure_config=FailureConfig(max_failures=compute.retries),
            **environment,
        ),
    )


def _wish(job: FitJob) -> Wish:
    """What each worker gets: a GPU if there is one for each, and a fair share of the CPUs but one, which Ray needs.

    Raises TrainingError: there is no room. Ray would wait for it for ever.
    """
    compute, machines = job.compute, [*nodes(), *to_come()]
    gpu = _fits(_each(compute, 1, 1), compute) if compute.use_gpu is None else compute.use_gpu
    share = int(sum(r.get("CPU", 0) * count for r, count in machines) - 1) // compute.workers
    largest = int(max(r.get("CPU", 0) for r, _ in machines))
    choices = [compute.cpus_per_worker] if compute.cpus_per_worker else range(max(1, min(share, largest)), 0, -1)
    for cpus in choices:
        if _fits(wish := _each(compute, cpus, int(gpu)), compute):
            return wish
    raise TrainingError(_no_room(_each(compute, choices[-1], int(gpu)), compute))


def _each(compute: FitCompute, cpus: int, gpus: int) -> Wish:
    return Wish("training", cpus, gpus, custom={} if _is_private() else compute.resources)


def _is_private() -> bool:
    return not os.environ.get("RAY_ADDRESS")


def _fits(each: Wish, compute: FitCompute) -> bool:
    try:
        return room_for(each, together=compute.placement == "strict_pack") >= compute.workers
    except NoRoomError:
        return False


def _no_room(each: Wish, compute: FitCompute) -> str:
    kinds = {"CPU": each.cpus, "GPU": each.gpus, **each.custom}
    have = ", ".join(amounts({kind: r.get(kind, 0) for kind in kinds}) for r, _ in nodes())
    where = "on one of" if compute.placement == "strict_pack" else "on"
    return (
        f"{compute.workers} workers of {amounts(kinds)} each do not fit {where} the machines that are up ({have}): "
        "lower the recipe's `compute.training` or `compute.units`, or add machines"
    )


def _trainer_class() -> Any:
    """TorchTrainer without two helper processes that have nothing to do here.

    Each costs about four seconds of start-up on a small machine. The placement-group cleaner asks the dashboard,
    which a private runtime does not have; the data-set callback serves Ray Data, which we do not use. Where a later
    Ray no longer knows the method, nothing is left out.
    """
    from ray.train.torch import TorchTrainer

    idle = {"DatasetsCallback", *(("PlacementGroupCleanerCallback",) if _is_private() else ())}

    base: Any = TorchTrainer

    class LeanTorchTrainer(base):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if type(callback).__name__ not in idle]

    return LeanTorchTrainer


@contextmanager
def sigterm_asks(stop_file: Path | None) -> Iterator[None]:
    """Let SIGTERM to this process (preemption, ``kill``) ask the workers to save: no signal reaches their loops.

    A training that was over already is not asked: then the signal ends this process, as ever.
    """
    if stop_file is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    stop_file.unlink(missing_ok=True)  # it asked an earlier run
    before = signal.signal(signal.SIGTERM, lambda *_: stop_file.touch())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if stop_file.exists():
        signal.raise_signal(signal.SIGTERM)


def _follow(trainer: Any, job: FitJob, each: Wish, progress: Progress) -> BaseException | None:
    """Run `trainer` in a thread and pass on, from the caller's own thread, what rank 0 writes down.

    Raises TrainingError: the cluster no longer has room for the workers. Ray would wait for it for ever.
    """
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - returned below
            failed.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    seen: dict[str, Any] | None = None
    roomy = time.monotonic()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        latest = _read(job.work / _PROGRESS)
        if latest and latest != seen:
            progress(latest["fraction"], latest["message"])
            seen = latest
        roomy = time.monotonic() if _fits(each, job.compute) else roomy
        if time.monotonic() > roomy + SHRUNK_SECONDS:
            raise TrainingError(_no_room(each, job.compute))
    return failed[0] if failed else None


def _reason(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {0: error}
    rank, cause = next(iter(failures.items()))
    return f"rank {rank}: {' '.join(str(cause).split())[-600:]}"


def _worker(arguments: dict[str, Any]) -> None:
    """One process. What the caller can act on is handed over as a file: Ray would try it again.

    Where others wait for this process it fails nevertheless, so that Ray ends them; tried again, they find the file.
    Progress is a file, too: Ray's own reports would need all ranks to report equally often.
    """
    import ray.train
    import torch

    job: FitJob = arguments["job"]
    if (job.work / _ERROR).exists():
        return
    context = ray.train.get_context()
    first = context.get_world_rank() == 0
    torch.set_num_threads(job.compute.cpus_per_worker or core_share())  # Ray allows the cores that it reserved

    def report(fraction: float, message: str) -> None:
        if first:
            _write(job.work / _PROGRESS, {"fraction": fraction, "message": message})

    try:
        summary = job.run(report)
    except SpiritLMError as error:
        _write(job.work / _ERROR, {"message": str(error)})
        if context.get_world_size() > 1:
            raise
        return
    if first:
        _write(job.work / _SUMMARY, summary)


def _write(path: Path, record: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(record).encode())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record
