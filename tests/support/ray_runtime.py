"""A Ray of this process, and its training workers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.processes import ATTEMPTS
from tests.support.watching import descendants, kill


@pytest.fixture(scope="module")
def ray_runtime() -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray = pytest.importorskip("ray")
    start_ray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.train.POLL_SECONDS", 0.05)  # a test that waits for a step acts before the last one
        yield
    ray.shutdown()


def start_ray() -> None:
    """A Ray of three cores. It gives its parts half a minute, which a busy machine exceeds: it is then tried again."""
    import ray

    for left in reversed(range(ATTEMPTS)):
        try:
            ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False)
        except Exception:
            ray.shutdown()
            if not left:
                raise
        else:
            return


def kill_worker() -> bool:
    """SIGKILL to a training worker of the Ray that this process started, if there is one."""
    workers = descendants(os.getpid(), "RayTrainWorker")[:1]
    kill(workers)
    return bool(workers)
