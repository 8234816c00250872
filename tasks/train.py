"""The stage ``model`` under Ray Train: worker processes that run :func:`spiritlm_core.lm.train.train`.

The checkpoints in `work` are the truth. Ray Train starts the processes, joins them to one process group and starts
dead ones again; the loop then finds its last checkpoint, as it does when the driver itself was killed.
Ray must be initialised; see ``tasks.fanout``.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spiritlm_core.cores import core_count
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.stage import Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.lm.errors import TrainingError
from spiritlm_core.lm.job import Job

POLL_SECONDS = 1.0
_PROGRESS, _SUMMARY, _ERROR = "progress.json", "summary.json", "error.json"


def run_model_stage(
    config: ModelConfig,
    compute: LmCompute,
    models: Mapping[str, Path],
    tables: Mapping[str, TableView],
    out: Path,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train the model in Ray Train workers and write its folder to `out`; resumes from the checkpoints in `work`.

    On several machines `work` and `out` must lie on storage that all of them share.

    Returns:
        The summary of :func:`spiritlm_core.lm.train.train`.

    Raises:
        TrainingError: training diverged or cannot be resumed, or workers kept dying.
    """
    if not os.environ.get("RAY_ADDRESS"):  # a private runtime on this machine: nothing can preempt it
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    for stale in (_PROGRESS, _SUMMARY, _ERROR):
        (work / stale).unlink(missing_ok=True)
    progress(0.0, f"starting {compute.workers} training worker{'s' * (compute.workers > 1)}")
    _follow(_trainer(Job.of_stage(config, compute, models, tables, out, work)), work, progress)
    if error := _read(work / _ERROR):
        raise TrainingError(error["message"])
    if (summary := _read(work / _SUMMARY)) is None:
        raise TrainingError(f"Ray Train ended without a summary in {work}: is it on storage that all machines share?")
    return summary


def _trainer(job: Job) -> Any:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    compute = job.compute
    gpu = have.get("GPU", 0) >= compute.workers if compute.use_gpu is None else compute.use_gpu
    cpus = compute.cpus_per_worker or max(1, int(have.get("CPU", 1) - 1) // compute.workers)
    if have.get("CPU", 1) < cpus * compute.workers:
        raise TrainingError(
            f"{compute.workers} workers of {cpus} CPUs do not fit on {have.get('CPU', 1):.0f} CPUs: "
            "lower compute.training.workers"
        )
    return _trainer_class()(
        _worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=compute.workers, use_gpu=gpu, resources_per_worker={"CPU": cpus, **({"GPU": 1} if gpu else {})}
        ),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(
            name=job.work.name,
            storage_path=str((job.work / "ray").absolute()),
            failure_config=FailureConfig(max_failures=compute.retries),
        ),
    )


def _trainer_class() -> Any:
    """TorchTrainer without two helper processes that have nothing to do here.

    Each costs about four seconds of start-up on a small machine. The placement-group cleaner asks the dashboard,
    which a private runtime does not have; the data-set callback serves Ray Data, which we do not use. Where a later
    Ray no longer knows the method, nothing is left out.
    """
    from ray.train.torch import TorchTrainer

    idle = {"DatasetsCallback", *(() if os.environ.get("RAY_ADDRESS") else ("PlacementGroupCleanerCallback",))}

    base: Any = TorchTrainer

    class LeanTorchTrainer(base):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if type(callback).__name__ not in idle]

    return LeanTorchTrainer


def _follow(trainer: Any, work: Path, progress: Progress) -> None:
    """Run `trainer` in a thread and pass on, from the caller's own thread, what rank 0 writes down."""
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    seen: dict[str, Any] | None = None
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        latest = _read(work / _PROGRESS)
        if latest and latest != seen:
            progress(latest["fraction"], latest["message"])
            seen = latest
    if failed:
        raise TrainingError(f"the training workers failed: {_reason(failed[0])}") from failed[0]


def _reason(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {0: error}
    rank, cause = next(iter(failures.items()))
    return f"rank {rank}: {' '.join(str(cause).split())[-600:]}"


def _worker(arguments: dict[str, Any]) -> None:
    """One training process. What the caller can act on is handed over as a file: Ray would try it again."""
    import ray.train
    import torch

    from spiritlm_core.lm.train import train

    job: Job = arguments["job"]
    context = ray.train.get_context()
    first = context.get_world_rank() == 0
    torch.set_num_threads(_threads(job.compute, context.get_local_world_size()))

    def report(fraction: float, message: str) -> None:
        if first:
            _write(job.work / _PROGRESS, {"fraction": fraction, "message": message})
        ray.train.report({"fraction": fraction})

    try:
        summary = train(job, report)
    except SpiritLMError as error:
        _write(job.work / _ERROR, {"message": str(error)})
        return
    if first:
        _write(job.work / _SUMMARY, summary)


def _threads(compute: LmCompute, on_this_machine: int) -> int:
    """Ray allows a worker the threads it reserved; a worker alone on its machine may take every core."""
    return compute.cpus_per_worker or max(1, core_count() // on_this_machine)


def _write(path: Path, record: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(record), encoding="utf-8")
    part.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record
