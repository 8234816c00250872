"""Putting what people look at next where they find it: reports and models, as ordinary files."""

from __future__ import annotations

import json
from typing import Any

from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan
from spiritlm_core.lake.stage import Output
from spiritlm_core.plan.planner import RunPlan

LAST = "config.json"
"""Written last: a folder without it is not a model yet."""


def deliver(plan: RunPlan, lake: Lake) -> dict[str, Any]:
    """Copy the `outputs` of the stages of a finished run to ``outputs/RECIPE/`` of the lake; returns where they are."""
    result: dict[str, Any] = {"recipe": plan.recipe, "lake": lake.uri}
    for stage in plan.stages.values():
        artifact = lake.read_artifact(stage.name, stage.key) if isinstance(stage, ArtifactPlan) else None
        if artifact is not None:
            for output in stage.call.stage.outputs:
                result[output.name] = _deliver(lake, artifact, output, f"outputs/{plan.recipe}")
    return result


def _deliver(lake: Lake, artifact: Artifact, output: Output, folder: str) -> Any:
    if output.file is None:
        return put_folder(lake, artifact, f"{folder}/{output.path}")
    data = read_file(lake, artifact, output.file)
    if output.path is None:
        return json.loads(data)
    path = f"{folder}/{output.path}"
    if not lake.store.exists(path) or lake.store.read(path) != data:
        lake.store.write(path, data)
    return lake.store.child(path)


def read_file(lake: Lake, artifact: Artifact, name: str) -> bytes:
    """The bytes of one file of an artifact. Raises LakeError if they are damaged."""
    return (lake.artifact_folder(artifact) / name).read_bytes()


def put_folder(lake: Lake, artifact: Artifact, folder: str) -> str:
    """Copy an artifact's files; a marker with its key makes the second time free."""
    marker = f"{folder}/.artifact"
    if not lake.store.exists(marker) or lake.store.read(marker).decode() != artifact.key:
        lake.store.delete(marker)
        old = {entry.path for entry in lake.store.walk(folder)}
        for name in sorted(artifact.files, key=lambda name: (name == LAST, name)):
            lake.store.write(f"{folder}/{name}", read_file(lake, artifact, name))
        for path in old - {f"{folder}/{name}" for name in artifact.files}:
            lake.store.delete(path)
        lake.store.write(marker, artifact.key.encode())
    return lake.store.child(folder)
