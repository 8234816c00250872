"""The promise of a schedule: once resumed it fires, a worker does the work; with nothing new nothing is computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.integration.runs import RECIPE, committed
from tests.support import servers
from tests.support.processes import tail
from tests.support.servers import PrefectServer, prefect_worker
from tests.support.watching import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]
NIGHTLY = "corpus/nightly"


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrefectServer]:
    """A Prefect server on either database."""
    if request.param == "postgresql":
        yield request.getfixturevalue("prefect_server")
        return
    with servers.prefect_server(tmp_path, None) as found:
        yield found


def test_a_resumed_schedule_fires_and_the_next_run_computes_nothing(server: PrefectServer, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    deploy_nightly(server)
    with prefect_worker(server, tmp_path / "worker.log") as log:
        resume_nightly(server, parameters={"recipe": tiny_recipe(tmp_path / "clips"), "lake": str(lake)})
        try:
            first = completed(server, 1, log)[0]
            made = committed(lake)
            both = completed(server, 2, log)
        finally:
            pause_nightly(server)
    assert both[0]["id"] == first["id"]
    assert all(run["auto_scheduled"] for run in both)
    assert [len([row for row in stages(server, run) if row["computed"]]) > 0 for run in both] == [True, False]
    assert made
    assert committed(lake) == made


def tiny_recipe(clips: Path) -> dict[str, Any]:
    """The tiny recipe on three clips that belong together with their texts, in one process."""
    for seed in range(6):
        sound(clips / f"{seed}.flac", voice(3.0, seed), subtype="PCM_16")
        (clips / f"{seed}.txt").write_text("hello there one two three")
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["compute"]["executor"] = "inline"
    return {**recipe, "sources": [{"kind": "folder", "path": str(clips)}]}


def deploy_nightly(server: PrefectServer) -> None:
    server.prefect("work-pool", "create", "spiritlm", "--type", "process", "--overwrite")
    server.prefect("deploy", "--name", "nightly")


def resume_nightly(server: PrefectServer, parameters: dict[str, Any]) -> None:
    """Let the schedule run twice a minute instead of every night, and switch it on as people do."""
    item = server.deployments()[NIGHTLY]
    schedule = item["schedules"][0]["id"]
    server.call(f"/deployments/{item['id']}", {"parameters": parameters}, method="PATCH")
    server.call(f"/deployments/{item['id']}/schedules/{schedule}", {"schedule": {"interval": 30}}, method="PATCH")
    server.prefect("deployment", "schedule", "resume", NIGHTLY, schedule)


def pause_nightly(server: PrefectServer) -> None:
    server.prefect("deployment", "schedule", "pause", NIGHTLY, server.deployments()[NIGHTLY]["schedules"][0]["id"])


def completed(server: PrefectServer, count: int, log: Path) -> list[dict[str, Any]]:
    """The first `count` runs of the schedule in the order of their starts, once they have ended."""
    wanted = {"deployments": {"id": {"any_": [server.deployments()[NIGHTLY]["id"]]}}}

    def ended() -> list[dict[str, Any]]:
        runs = [run for run in server.call("/flow_runs/filter", wanted) if run["end_time"]]
        assert all(run["state_type"] == "COMPLETED" for run in runs), f"{runs}\n{tail(log)}"
        return sorted(runs, key=lambda run: run["start_time"])[:count] if len(runs) >= count else []

    return wait_for(ended, every=1.0)


def stages(server: PrefectServer, run: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of all stages that a run left in the UI."""
    where = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["stages"]}}}
    (table,) = server.call("/artifacts/filter", where)
    found: list[dict[str, Any]] = json.loads(table["data"])
    return found
