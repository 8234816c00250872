"""A Ray cluster of two nodes, of which one dies, comes back, or is too small. Its head gives no CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.support.processes import ATTEMPTS, Program, ServerError, free_ports
from tests.support.watching import PATIENCE, command_line, descendants, kill, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
DRIVER = """
import json, sys
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.lake import Lake
from tests.tasks import work
from spiritlm_core.lake.stage import Resources
from tests.lake.stages import DoubleConfig
lake, what, given = Lake(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
said = type("Said", (list,), {"append": lambda self, text: print(text, flush=True)})()
try:
    if what == "table":
        groups = [(n,) for n in range(given.pop("shards"))]
        print(len(work.run(lake, DoubleConfig(**given), groups, said, workers=None)[1]))
    else:
        cpus = given.pop("cpus")
        print(work.build(lake, "auto", said=said, cpus=cpus, **given)[0][0].summary["total"])
except SpiritLMError as error:
    print(f"error: {error}")
"""


def started(log: Path) -> bool:
    return log.exists() and b"runtime started" in log.read_bytes()


class Cluster:
    """Nodes by name, each a `ray start --block` with its children."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # the path of a socket must be short
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.nodes = {}
        self.add("head", "--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false", cpus=0)

    def add(self, name: str, *options: str, cpus: int) -> None:
        options = options or ("--address", self.address)
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={cpus}", *options]
        ray += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"]
        ray += ["--temp-dir", self.folder] if name == "head" else []
        for attempt in range(ATTEMPTS):  # Ray gives its parts 15 and 30 s, which a busy machine exceeds
            log = Path(self.folder) / f"{name}-{attempt}-{time.monotonic_ns()}.log"
            program = Program(ray, log, partial(started, log), env={**os.environ, **RAY})
            try:
                self.nodes[name] = (program, program.start())
            except ServerError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def processes(self, name: str) -> list[psutil.Process]:
        return descendants(self.nodes[name][1].pid)

    def host_of(self, pid: int) -> str:
        return next(name for name in self.nodes if pid in {process.pid for process in self.processes(name)})

    def kill(self, name: str) -> None:
        """SIGKILL to the node's raylet: its workers and helpers then end by themselves."""
        kill(
            [process for process in self.processes(name) if command_line(process).partition(" ")[0].endswith("raylet")]
        )
        self.nodes.pop(name)[1].wait(PATIENCE)

    def close(self) -> None:
        for program, running in self.nodes.values():
            program.end(running)


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    try:
        made.add("one", cpus=2)
        yield made
    finally:
        made.close()


@pytest.fixture
def both(cluster):
    for name in {"one", "two"} - set(cluster.nodes):
        cluster.add(name, cpus=2)
    return cluster


def driver(cluster: Cluster, lake: Path, what: str, **given: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(lake), what, json.dumps(given)]
    environment = {**os.environ, **RAY, "RAY_ADDRESS": cluster.address}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> list[str]:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, err[-3000:]
    assert "Traceback" not in err
    return out.splitlines()


def pid_in(marker: Path) -> int:
    return int(wait_for(lambda: marker.exists() and marker.read_text()))


def test_what_no_node_can_give_is_an_error_that_says_so(cluster: Cluster, tmp_path: Path) -> None:
    said = ended(driver(cluster, tmp_path / "lake", "artifact", cpus=3))
    expected = "error: stage sum wants 3 CPUs on one machine; the largest node of the Ray cluster has 2 CPUs"
    assert said[0].startswith(expected), said


def test_a_node_that_comes_gets_shards(cluster: Cluster, tmp_path: Path) -> None:
    come = tmp_path / "come"
    process = driver(cluster, tmp_path / "lake", "table", shards=80, gate=str(come))
    wait_for(lambda: list((tmp_path / "lake").glob("tables/doubled/*")), process)
    cluster.add("two", cpus=2)
    wait_for(lambda: descendants(cluster.nodes["two"][1].pid, "ray::Worker"), process)
    come.touch()
    assert ended(process) == ["80"]


def test_a_node_that_dies_in_a_table_stage_costs_its_shards_in_flight_only(both: Cluster, tmp_path: Path) -> None:
    process = driver(both, tmp_path / "lake", "table", shards=40, seconds=0.5, hang_on=7, marker=str(tmp_path / "hung"))
    both.kill(both.host_of(pid_in(tmp_path / "hung")))
    *said, count = ended(process)
    assert count == "40"
    assert any("its node is gone" in line and "tried again" in line for line in said), said


def test_a_node_that_dies_in_an_artifact_stage_costs_one_try(both: Cluster, tmp_path: Path) -> None:
    process = driver(both, tmp_path / "lake", "artifact", cpus=2, hang=True, marker=str(tmp_path / "hung"))
    both.kill(both.host_of(pid_in(tmp_path / "hung")))
    *said, total = ended(process)
    assert total == "3"
    assert any("tried again" in line for line in said), said
