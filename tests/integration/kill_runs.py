"""Kill a run again and again, with everything it started, and start it again, until it ends.

    python -m tests.integration.kill_runs --kills 10 [--source FOLDER] [--seed 0] [-- more options of spiritlm run]

Says whether the final fingerprints equal those of an undisturbed run, and whether anything that was finished before
a kill was computed again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration import runs
from tests.integration.speech import prompts
from tests.support.watching import kill_group


@dataclass
class Outcome:
    """What a series of kills did."""

    kills: int = 0
    rewritten: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    recomputed: int = 0
    result: dict[str, Any] = field(default_factory=dict)


def kill_and_rerun(
    source: Path, lake: Path, home: Path, kills: int, objects: int, seed: int, more: list[str]
) -> Outcome:
    """Kill `kills` runs, each in the midst of the work on another of the `objects` that a whole run commits.

    The last few are left alone: they are the model and what follows it. Then one run goes on to its end.
    """
    rng, outcome = random.Random(seed), Outcome()  # noqa: S311 - moments of a test
    for done in sorted(rng.choices(range(1, objects - 3), k=kills)):
        before = runs.committed(lake)
        process = runs.start("run", runs.RECIPE, "--source", source, "--lake", lake, "--json", *more, home=home)
        _wait(process, lake, max(done, len(before) + 1), rng.random())
        outcome.kills += kill_group(process)
        _compare(before, runs.committed(lake), outcome)
    before = runs.committed(lake)
    outcome.result = runs.run(source, lake, *more, home=home)
    _compare(before, runs.committed(lake), outcome)
    total = sum(stage["shards_total"] for stage in outcome.result["stages"].values())
    computed = sum(stage["shards_computed"] for stage in outcome.result["stages"].values())
    outcome.recomputed = computed - (total - len(before))
    return outcome


def _wait(process: subprocess.Popen[str], lake: Path, objects: int, share: float) -> None:
    """Until there are so many objects, and a share of the time longer that the last took, but not until the next."""
    count, moved, took = len(runs.committed(lake)), time.monotonic(), 0.0
    while process.poll() is None:
        now, seen = time.monotonic(), len(runs.committed(lake))
        if seen > count:
            count, moved, took = seen, now, now - moved
        if count > objects or (count == objects and now - moved >= share * took):
            return
        time.sleep(0.02)


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
        expected = runs.run(source, root / "undisturbed", *given.more, home=root / "home")
        objects = len(runs.committed(root / "undisturbed"))
        outcome = kill_and_rerun(source, root / "killed", root / "home", given.kills, objects, given.seed, given.more)
    same = runs.fingerprints(outcome.result) == runs.fingerprints(expected)
    print(f"objects of an undisturbed run: {objects}; runs killed: {outcome.kills} of {given.kills}")
    print(f"final fingerprints equal: {same}")
    print(f"finished objects written again: {len(outcome.rewritten)}, lost: {len(outcome.lost)}")
    print(f"computed beyond what was missing in the last run: {outcome.recomputed}")
    return 0 if same and not outcome.rewritten and not outcome.lost and not outcome.recomputed else 1


if __name__ == "__main__":
    sys.exit(main())
