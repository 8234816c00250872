"""The script of a Slurm job, with a stand-in for Slurm that runs every step on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import free_ports
from tests.support.watching import PATIENCE, all_end, descendants, wait_for

pytestmark = pytest.mark.integration
SCRIPT = Path(__file__).parents[2] / "infra/slurm/ray.sh"
STANDINS = {
    "scontrol": """[ "$*" = "show hostnames node[1-3]" ] && printf 'node1\\nnode2\\nnode3\\n'""",
    "srun": """
while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && name=${1#*=}; shift; done
if [ "$1" = hostname ]; then echo "127.0.0.1 ::1"; exit; fi
echo "$name" >> "$STEPS"
SLURM_CPUS_ON_NODE=${name#node} SLURM_GPUS_ON_NODE=0 exec "$@"
""",
}
LISTENS = f"""
[[ "$*" == *--head* ]] || exec $JOINS
exec {sys.executable} -c "import signal, socket; s = socket.create_server(('127.0.0.1', $PORT)); signal.pause()"
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a batch script on three nodes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in STANDINS.items():
        write(tools / name, body)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-3]", "STEPS": str(tmp_path / "steps")}
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:  # the path of a socket must be short
        yield {**os.environ, **slurm, "PATH": path, "PORT": str(free_ports(1)[0]), "RAY_TEMP": short}


def write(path: Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def start(job: dict[str, str], *command: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([SCRIPT, *command], env=job, **pipes)


def steps(job: dict[str, str]) -> list[str]:
    return Path(job["STEPS"]).read_text().split()


def without_ray(job: dict[str, str], joins: str = "sleep 600") -> None:
    """A `ray` whose head listens, and which does nothing; its other nodes are `joins`, a command."""
    job["JOINS"] = joins
    write(Path(job["PATH"].partition(":")[0]) / "ray", LISTENS)


def test_a_command_runs_where_the_cluster_is_and_its_status_is_that_of_the_job(job: dict[str, str]) -> None:
    without_ray(job)
    shows = "until [ $(wc -l < $STEPS) = 3 ]; do sleep 0.1; done; echo $RAY_ADDRESS ${#RAY_AUTH_TOKEN}; exit 3"
    process = start(job, "bash", "-c", shows)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (3, f"127.0.0.1:{job['PORT']} 64\n"), err
    assert sorted(steps(job)) == ["node1", "node2", "node3"]


def test_the_signal_before_the_end_reaches_the_command_which_may_take_its_time(job: dict[str, str]) -> None:
    without_ray(job)
    saves = "trap 'sleep 1; echo saved; exit 5' TERM; touch $STEPS.up; while :; do sleep 0.1; done"
    process = start(job, "bash", "-c", saves)
    wait_for(Path(job["STEPS"] + ".up").exists, process)
    started = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (5, "saved\n"), err
    assert all_end(started)


def test_a_head_that_does_not_start_ends_the_job(job: dict[str, str]) -> None:
    write(Path(job["PATH"].partition(":")[0]) / "ray", "echo no room; exit 4")
    out, err = (process := start(job, "true")).communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "the head of the Ray cluster ended before it was up" in err
    assert out == "no room\n"


def test_a_node_that_does_not_join_tries_again(job: dict[str, str]) -> None:
    without_ray(job, joins="false")
    process = start(job, "bash", "-c", "until [ $(wc -l < $STEPS) = 5 ]; do sleep 0.1; done")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert sorted(steps(job)) == ["node1", "node2", "node2", "node3", "node3"]
    assert "node2 did not join the Ray cluster, or was lost; it tries again" in err


@pytest.mark.slow
def test_a_real_cluster_has_the_cores_of_every_node(job: dict[str, str]) -> None:
    code = """
import time, ray
ray.init(log_to_driver=False)
while len(ray.nodes()) < 3:
    time.sleep(0.2)
print(sorted(node["Resources"]["CPU"] for node in ray.nodes()))
"""
    process = start(job, sys.executable, "-c", code)
    wait_for(lambda: len(descendants(process.pid, "raylet")) >= 3, process)
    started = descendants(process.pid)
    out, err = process.communicate(timeout=PATIENCE)
    assert "[1.0, 2.0, 3.0]" in out.splitlines(), out + err  # Ray itself says things, too
    assert all_end(started)
