"""Commands that run a flow: with a Prefect API if there is something to compute, or a server that is to know."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritlm_core.errors import LakeError

if TYPE_CHECKING:
    from spiritlm_core.plan.graph import Graph


def run_recipe(
    flow: str,
    recipe: str,
    lake: str,
    sources: list[str],
    overrides: list[str],
    *,
    until: str | None = None,
    refit: bool = False,
) -> dict[str, Any]:
    """Run the stages of `recipe` up to `until`; see :func:`run_or_reuse`."""
    from flows.graphs.speech_lm import speech_lm, targets
    from flows.recipes import load_recipe

    graph = speech_lm(load_recipe(recipe, sources, overrides))
    names = targets(graph, until)
    given: dict[str, Any] = {"recipe": recipe, "lake": lake, "sources": sources, "overrides": overrides, "refit": refit}
    if flow == "pipeline":
        given["until"] = until
    return run_or_reuse("pipeline", flow, given, graph, names, refit=refit)


def run_or_reuse(
    module: str, name: str, parameters: dict[str, Any], graph: Graph, until: Sequence[str], *, refit: bool = False
) -> dict[str, Any]:
    """The result of a flow, without Prefect where the lake holds everything and no server is configured.

    What can be wrong with the graph and its sources is found before a server is started. Under ``startup_seconds`` it
    says how long Prefect took to start.

    Raises:
        SpiritLMError: the flow failed.
    """
    from spiritlm_core.lake.lake import Lake
    from tasks.account import reuse
    from tasks.prefect_server import api, configured_api

    graph.wanted(*until)
    if not configured_api():
        result = reuse(graph, Lake(parameters["lake"]), *until, refit=refit)
        if result is not None:
            return {**result, "startup_seconds": 0.0}
    began = time.monotonic()
    with api(load=f"flows.{module}"):
        flow = getattr(import_module(f"flows.{module}"), name)
        from tasks.flow_runs import run_flow

        ready = time.monotonic()
        return {**run_flow(flow, **parameters), "startup_seconds": round(ready - began, 1)}


def artifact_folder(lake: str, result: dict[str, Any], stage: str) -> Path:
    """The files of `stage` in the result of a flow, on this machine. Raises LakeError."""
    from spiritlm_core.lake.lake import Lake

    opened, key = Lake(lake), result["stages"][stage]["fingerprint"]
    artifact = opened.read_artifact(stage, key)
    if artifact is None:
        raise LakeError(f"{opened.uri} has no {stage} {key[:12]} any more; run again")
    return opened.artifact_folder(artifact)
