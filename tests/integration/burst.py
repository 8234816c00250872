"""Trigger many runs at once on a Prefect server on PostgreSQL, with two workers.

    python -m tests.integration.burst --runs 200

Half of the runs are of one deployment and lake, half of another; each deployment runs once at a time. Says whether all
ended, whether two were at work on one lake at once, and whether the history holds every one of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.support import servers
from tests.support.servers import PrefectServer, prefect_worker

FLOWS = {"pipeline/quickstart": {"until": "audio"}, "fit_units/units": {}}
"""Two deployments, and what they are told beside recipe and lake."""
UNITS = {
    "hubert": {"conv_channels": [16] * 3, "hidden_size": 32, "layers": 2, "heads": 2, "steps": [2], "clusters": [4]},
    "quantizer": {"units": 8, "restarts": 1, "iterations": 2},
}


@dataclass(frozen=True)
class Outcome:
    """What came of a burst."""

    states: dict[str, int]  # runs by the state that they ended in
    overlaps: int  # pairs of runs that were at work on one lake at once
    tables: int  # accounts of all stages, of which every run leaves one
    waits: int  # how often a run was sent back because another one was at work
    seconds: float
    longest: float
    median: float

    def text(self) -> str:
        """For people."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return (
            f"runs: {states}; at once on one lake: {self.overlaps}; accounts in the history: {self.tables}\n"
            f"{self.seconds:.0f} s in all; a run took {self.median:.1f} s (median), {self.longest:.1f} s at most; "
            f"sent back to wait {self.waits} times"
        )


def burst(server: PrefectServer, folder: Path, count: int, patience: float) -> Outcome:
    """Register the deployments, trigger `count` runs and wait for their ends, at most `patience` seconds."""
    server.prefect("work-pool", "create", "spiritlm", "--type", "process", "--overwrite")
    for name in FLOWS:
        server.prefect("deploy", "--name", name.partition("/")[2])
    deployments, recipe = server.deployments(), _recipe(folder / "clips")
    with ExitStack() as workers:
        for number in range(2):
            workers.enter_context(prefect_worker(server, folder / f"worker-{number}.log"))
        began, made = time.monotonic(), []
        for number in range(count):
            name = list(FLOWS)[number % 2]
            parameters = {"recipe": recipe, "lake": str(folder / name.replace("/", "-")), **FLOWS[name]}
            path = f"/deployments/{deployments[name]['id']}/create_flow_run"
            made.append(server.call(path, {"parameters": parameters, "state": {"type": "SCHEDULED"}})["id"])
        ended = _ended(server, made, time.monotonic() + patience)
        seconds = time.monotonic() - began
    return _outcome(server, ended, seconds)


def _recipe(clips: Path) -> dict[str, Any]:
    for seed in (0, 2, 3):
        sound(clips / f"{seed}.flac", voice(1.5, seed), subtype="PCM_16")
    parts = {"variant": "base", "units": UNITS, "compute": {"executor": "inline"}}
    return {"name": "tiny", "sources": [{"kind": "folder", "path": str(clips)}], **parts}


def _ended(server: PrefectServer, runs: list[str], deadline: float) -> list[dict[str, Any]]:
    while True:
        found = [run for some in _pages(runs) for run in server.call("/flow_runs/filter", _those("flow_runs", some))]
        if all(run["end_time"] for run in found) or time.monotonic() > deadline:
            return found
        time.sleep(2)


def _pages(ids: list[str], size: int = 100) -> list[list[str]]:
    return [ids[first : first + size] for first in range(0, len(ids), size)]


def _those(what: str, ids: list[str]) -> dict[str, Any]:
    return {what: {"id": {"any_": ids}}, "limit": 200}


def _outcome(server: PrefectServer, ended: list[dict[str, Any]], seconds: float) -> Outcome:
    states = [run["state_type"] for run in ended]
    ended = [run for run in ended if run["start_time"] and run["end_time"]]
    at = {run["id"]: (_when(run["start_time"]), _when(run["end_time"])) for run in ended}
    lakes: dict[str, list[tuple[float, float]]] = {}
    for run in ended:
        lakes.setdefault(run["parameters"]["lake"], []).append(at[run["id"]])
    history = [state for run in ended for state in server.call(f"/flow_run_states/?flow_run_id={run['id']}")]
    took = [end - start for start, end in at.values()]
    return Outcome(
        {state: states.count(state) for state in set(states)},
        sum(later[0] < earlier[1] for spans in lakes.values() for earlier, later in pairwise(sorted(spans))),
        sum(_tables(server, some) for some in _pages(list(at))),
        sum(state["name"] == "AwaitingConcurrencySlot" for state in history),
        seconds,
        max(took, default=0.0),
        statistics.median(took or [0.0]),
    )


def _when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _tables(server: PrefectServer, runs: list[str]) -> int:
    where = {"artifacts": {"flow_run_id": {"any_": runs}, "key": {"any_": ["stages"]}}, "limit": 200}
    return len(server.call("/artifacts/filter", where))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--patience", type=float, default=7200.0, help="seconds until it gives up")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.postgres_server() as postgres,
        servers.prefect_server(Path(folder), postgres) as server,
    ):
        outcome = burst(server, Path(folder), given.runs, given.patience)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps(outcome.states), outcome.text(), sep="\n")
    print(f"{(used.ru_utime + used.ru_stime) / given.runs:.1f} s of CPU a run, servers and workers included")
    whole = (outcome.states, outcome.overlaps, outcome.tables) == ({"COMPLETED": given.runs}, 0, given.runs)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
