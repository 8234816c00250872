"""A Ray cluster of two nodes, of which one dies, comes back, or is too small. Its head gives no CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ray_cluster import RAY, Cluster
from tests.support.watching import PATIENCE, descendants, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

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
        settings = {"workers": None, "attempts": given.pop("attempts", 3)}
        print(len(work.run(lake, DoubleConfig(**given), groups, said, **settings)[1]))
    else:
        cpus = given.pop("cpus")
        print(work.build(lake, "auto", said=said, cpus=cpus, **given)[0][0].summary["total"])
except SpiritLMError as error:
    print(f"error: {error}")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        made.add("one", cpus=2)
        yield made
    finally:
        made.close()


@pytest.fixture
def both(cluster: Cluster) -> Cluster:
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
    hang = {"hang_on": 7, "marker": str(tmp_path / "hung")}
    process = driver(both, tmp_path / "lake", "table", shards=40, attempts=1, seconds=0.5, **hang)
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
