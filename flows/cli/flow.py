"""Commands that run a flow, with a Prefect API."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any


def run_flow(module: str, name: str, *args: Any) -> dict[str, Any]:
    """Run the flow `name` of `flows.MODULE`; its result, and under ``startup_seconds`` how long Prefect took to start.

    Check what can be wrong before: this starts a server. Raises SpiritLMError if the flow fails.
    """
    from tasks.prefect_server import api

    began = time.monotonic()
    with api(load=f"flows.{module}"):
        flow = getattr(import_module(f"flows.{module}"), name)
        from tasks.flow_runs import run_flow as run

        ready = time.monotonic()
        return {**run(flow, *args), "startup_seconds": round(ready - began, 1)}


def artifact_folder(lake: str, result: dict[str, Any], stage: str) -> Path:
    """The files of `stage` in the result of a flow, on this machine. Raises LakeError."""
    from spiritlm_core.errors import LakeError
    from spiritlm_core.lake.lake import Lake

    opened, key = Lake(lake), result["stages"][stage]["fingerprint"]
    artifact = opened.read_artifact(stage, key)
    if artifact is None:
        raise LakeError(f"{opened.uri} has no {stage} {key[:12]} any more; run again")
    return opened.artifact_folder(artifact)
