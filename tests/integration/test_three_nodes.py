"""A recipe on three nodes of a Ray cluster and a lake on S3: what one process makes, whichever nodes die on the way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

from spiritlm_core.lake.lake import Lake
from tests.integration import runs
from tests.integration.speech import prompts
from tests.support.ray_cluster import RAY, Cluster
from tests.support.server_fixtures import Bucket
from tests.support.watching import PATIENCE, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]
T = TypeVar("T")
BUSY = "ray::Worker.answer"  # the title of a worker that has something to do
SETTINGS = (
    "variant=base",
    "vocoder=null",
    "sharding.shard_items=2",
    "units.hubert.steps=[150]",
    "lm.steps=150",
    "compute.stages={aligner: {cpus: 1}}",
    "compute.training={workers: 2, cpus_per_worker: 1, checkpoint_every: 5, micro_batch: 4, placement: spread}",
)
MODEL = ("--until", "model", *(part for setting in SETTINGS for part in ("--set", setting)))


@pytest.fixture
def cluster(seaweedfs: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three nodes of one core each, which know the S3 server; the head, where the driver runs, has none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # as a volume that all nodes mount
    made = Cluster()
    try:
        for name in ("one", "two", "three"):
            made.add(name, cpus=1)
        yield made
    finally:
        made.close()


class Run:
    """`spiritlm run` on the cluster, what it has said so far, and the nodes that worked for it."""

    def __init__(self, cluster: Cluster, *arguments: object, home: Path) -> None:
        where = {**RAY, "RAY_ADDRESS": cluster.address, "PREFECT_API_URL": ""}
        self.cluster, self.said, self.worked = cluster, list[str](), set[str]()
        self.process = runs.start("run", *arguments, "--json", home=home / "prefect", **where)
        self._threads = [threading.Thread(target=watch, daemon=True) for watch in (self._listen, self._watch)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        for line in self.process.stderr:
            self.said.append(line)

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.hosts(BUSY)
            time.sleep(0.3)

    def hosts(self, title: str) -> list[str]:
        """The nodes on which a process of this title runs."""
        found = [name for name in list(self.cluster.nodes) if self.cluster.processes(name, title)]
        self.worked.update(found)
        return found

    def until(self, look: Callable[[], T]) -> T:
        """See `wait_for`; shows what the run said if it does not happen."""
        try:
            return wait_for(look, self.process)
        except AssertionError as error:
            raise AssertionError("".join(self.said)) from error

    def told(self, words: str) -> int:
        """How many lines say so."""
        return sum(words in line for line in self.said)

    def kill_a_host(self, title: str) -> None:
        """SIGKILL to a node on which a process of this title runs, as soon as there is one; another takes its place."""
        (host, *_) = self.until(lambda: self.hosts(title))
        self.cluster.kill(host)

    def result(self) -> dict[str, Any]:
        out = self.process.stdout.read()
        status = self.process.wait()
        for thread in self._threads:  # the last lines may still be on their way
            thread.join(PATIENCE)
        assert status == 0, "".join(self.said)
        return json.loads(out)


def versions(lake: Lake) -> dict[str, str]:
    """Every shard, snapshot and artifact, with what changes when it is written again."""
    return {
        entry.path: entry.version
        for folder in ("tables", "snapshots", "artifacts", "blobs")
        for entry in lake.store.walk(folder)
    }


def rows(lake: Lake, table: str) -> list[dict[str, Any]]:
    ref = lake.read_ref("tiny", table)
    return lake.view(lake.read_snapshot(table, ref.target)).read().to_pylist()


def test_nodes_die_in_a_table_in_a_fit_and_in_training_and_the_run_ends_as_on_one(
    cluster: Cluster, seaweedfs: Bucket, tmp_path: Path
) -> None:
    speech = prompts(tmp_path / "speech")
    where = ("--source", speech, *MODEL)
    run = Run(cluster, runs.RECIPE, *where, "--lake", f"{seaweedfs.uri}/lake", home=tmp_path)
    lake, seen = Lake(f"{seaweedfs.uri}/lake"), dict[str, str]()

    run.until(lambda: run.told("  words ") and len(run.hosts(BUSY)) == 3)
    seen |= versions(lake)
    run.kill_a_host(BUSY)  # a table
    cluster.add("four", cpus=1)  # which comes late
    run.until(lambda: run.told("✓ words"))

    run.until(lambda: run.told("  hubert "))
    seen |= versions(lake)
    run.kill_a_host(BUSY)  # a fit
    cluster.add("five", cpus=1)

    checkpoints = tmp_path / "cache/spiritlm/work"
    run.until(lambda: list(checkpoints.rglob("checkpoints/step-*/state.json")))
    seen |= versions(lake)
    run.kill_a_host("ray::RayTrainWorker")
    result = run.result()

    assert run.worked >= {"one", "two", "three"}
    assert run.told("it is tried again") == 2, "".join(run.said)  # one shard, one fit: a node has one worker
    assert {path: version for path, version in versions(lake).items() if path in seen} == seen
    assert all(stage["shards_computed"] == stage["shards_total"] for stage in result["stages"].values())
    alone = Lake(tmp_path / "alone")
    expected = runs.run(speech, alone.uri, *MODEL, "--set", "compute.executor=inline", home=tmp_path / "prefect")
    assert runs.fingerprints(result) == runs.fingerprints(expected)
    assert rows(lake, "audio") == rows(alone, "audio")
    assert trained_steps(lake) == trained_steps(alone)


def trained_steps(lake: Lake) -> list[int]:
    """The steps that the metrics of the model tell of."""
    artifact = lake.read_artifact("model", lake.read_ref("tiny", "model").target)
    return pq.read_table(lake.artifact_folder(artifact) / "metrics.parquet").column("step").to_pylist()
