"""Kill a run at random moments, with everything it started, and start it again, until it ends.

    python -m tests.integration.kill_runs --kills 10 [--source FOLDER] [--seed 0] [-- more options of spiritlm run]

Says whether the final fingerprints equal those of an undisturbed run, and whether anything that was finished before
a kill was computed again.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration import runs
from tests.integration.speech import prompts


@dataclass
class Outcome:
    """What a series of kills did."""

    kills: int = 0
    rewritten: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    recomputed: int = 0
    result: dict[str, Any] = field(default_factory=dict)


def kill_and_rerun(
    source: Path, lake: Path, home: Path, kills: int, longest: float, seed: int, more: list[str]
) -> Outcome:
    """Kill `kills` runs after a random time of at most `longest` seconds each, then let one run to its end."""
    rng, outcome = random.Random(seed), Outcome()  # noqa: S311 - moments of a test
    for _ in range(kills):
        before = runs.committed(lake)
        process = runs.start("run", runs.RECIPE, "--source", source, "--lake", lake, "--json", *more, home=home)
        _wait(process, rng.uniform(0, longest))
        outcome.kills += process.poll() is None
        with_group = os.getpgid(process.pid) if process.poll() is None else None
        if with_group is not None:
            os.killpg(with_group, signal.SIGKILL)
        process.communicate()
        _compare(before, runs.committed(lake), outcome)
    before = runs.committed(lake)
    outcome.result = runs.run(source, lake, *more, home=home)
    _compare(before, runs.committed(lake), outcome)
    total = sum(stage["shards_total"] for stage in outcome.result["stages"].values())
    computed = sum(stage["shards_computed"] for stage in outcome.result["stages"].values())
    outcome.recomputed = computed - (total - len(before))
    return outcome


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _compare(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], outcome: Outcome) -> None:
    outcome.rewritten += [path for path, stamp in before.items() if after.get(path, stamp) != stamp]
    outcome.lost += [path for path in before if path not in after]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", type=Path)
    parser.add_argument("more", nargs="*", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = given.source or prompts(root / "speech")
        began = time.monotonic()
        expected = runs.run(source, root / "undisturbed", *given.more, home=root / "home")
        longest = time.monotonic() - began
        outcome = kill_and_rerun(source, root / "killed", root / "home", given.kills, longest, given.seed, given.more)
    same = runs.fingerprints(outcome.result) == runs.fingerprints(expected)
    print(f"undisturbed run: {longest:.0f} s; runs killed: {outcome.kills} of {given.kills}")
    print(f"final fingerprints equal: {same}")
    print(f"finished objects written again: {len(outcome.rewritten)}, lost: {len(outcome.lost)}")
    print(f"computed beyond what was missing in the last run: {outcome.recomputed}")
    return 0 if same and not outcome.rewritten and not outcome.lost and not outcome.recomputed else 1


if __name__ == "__main__":
    sys.exit(main())
