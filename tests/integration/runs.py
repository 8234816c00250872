"""Starting `spiritlm run` as people do, and looking at what it left in the lake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.watching import PATIENCE

RECIPE = Path(__file__).with_name("tiny.yaml")
FITTED = ("aligner", "hubert", "quantizer", "pitch", "style", "tokenizer")
TABLES = ("audio", "words", "units", "sequences")


def command(*arguments: object) -> list[str]:
    """The command line of the `spiritlm` of this environment."""
    return [sys.executable, "-c", "from spiritlm_core.cli import main; main()", *map(str, arguments)]


def start(*arguments: object, home: Path, **environment: str) -> subprocess.Popen[str]:
    """Start `spiritlm …` in a process group of its own."""
    env = {**os.environ, "PREFECT_HOME": str(home), **environment}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), env=env, start_new_session=True, **pipes)


def spiritlm(*arguments: object, home: Path, status: int = 0, **environment: str) -> str:
    """Run `spiritlm …` to its end and return what it printed on standard output."""
    process = start(*arguments, home=home, **environment)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, f"exit status {process.returncode}\n{out}\n{err}"
    return out if status == 0 else out + err


def run(source: Path, lake: object, *more: object, home: Path, **environment: str) -> dict[str, Any]:
    """`spiritlm run` of the tiny recipe on a folder; returns its JSON."""
    out = spiritlm("run", RECIPE, "--source", source, "--lake", lake, "--json", *more, home=home, **environment)
    return json.loads(out)


def fingerprints(result: dict[str, Any]) -> dict[str, str]:
    """Stage name to fingerprint."""
    return {name: stage["fingerprint"] for name, stage in result["stages"].items()}


def committed(lake: Path) -> dict[str, tuple[int, int]]:
    """Every shard and artifact in a local lake, with what changes when a file is written again."""
    paths = [*lake.glob("tables/*/*.parquet"), *lake.glob("artifacts/*/*.json")]
    return {str(p.relative_to(lake)): (p.stat().st_mtime_ns, p.stat().st_ino) for p in paths}
