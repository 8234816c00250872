"""Putting what people look at next where they find it: the report and the published model, as ordinary files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.lake import Lake
from tasks.artifacts import image, markdown

if TYPE_CHECKING:
    from tasks.run import Run

LAST = "config.json"
"""Written last: a folder without it is not a model yet."""


def deliver(run: Run) -> dict[str, Any]:
    """Copy the finished outputs of a run to ``outputs/RECIPE/`` of its lake; returns their URIs and the samples."""
    found: dict[str, Any] = {"recipe": run.recipe.name, "lake": run.lake.uri}
    if (evaluation := _artifact(run, "evaluation")) is not None:
        found["report"] = _put(run.lake, evaluation, f"outputs/{run.recipe.name}/report.html", "report.html")
        found["metrics"] = json.loads(_read(run.lake, evaluation, "metrics.json"))
        found["samples"] = json.loads(_read(run.lake, evaluation, "samples.json"))
        _show(run, evaluation, found)
    if (published := _artifact(run, "published")) is not None:
        found["model"] = put_folder(run.lake, published, f"outputs/{run.recipe.name}/model")
    if (suite := _artifact(run, "suite")) is not None:
        found["suite"] = _put(run.lake, suite, f"outputs/{run.recipe.name}/suite.html", "suite.html")
    if (tokenizer := _artifact(run, "speech_tokenizer")) is not None:
        found["speech_tokenizer"] = put_folder(run.lake, tokenizer, f"outputs/{run.recipe.name}/speech_tokenizer")
    if (tokenizer := _artifact(run, "speaking_tokenizer")) is not None:
        found["speech_tokenizer"] = put_folder(run.lake, tokenizer, f"outputs/{run.recipe.name}/speaking_tokenizer")
    if (judged := _artifact(run, "unit_evaluation")) is not None:
        found["units"] = _put(run.lake, judged, f"outputs/{run.recipe.name}/units.html", "units.html")
        markdown("units", _read(run.lake, judged, "units.md").decode(), f"Speech units of {run.recipe.name}")
    if (heard := _artifact(run, "resynthesis")) is not None:
        found["resynthesis"] = _put(run.lake, heard, f"outputs/{run.recipe.name}/resynthesis.html", "resynthesis.html")
        markdown("resynthesis", _read(run.lake, heard, "resynthesis.md").decode(), f"Voice of {run.recipe.name}")
    return found


def copy_speech_tokenizer(lake: Lake, name: str, key: str, folder: Path) -> None:
    """Put the speech tokenizer of this stage and key at `folder`, whole or not at all.

    Raises:
        SpeechTokenizerError: something else is there.
        LakeError: the lake does not have it.
    """
    from spiritlm_core.speech.folder import put_speech_tokenizer

    artifact = lake.read_artifact(name, key)
    if artifact is None:
        raise LakeError(f"{lake.uri} has no speech tokenizer {key[:12]}")
    put_speech_tokenizer(lake.artifact_folder(artifact), folder)


def _artifact(run: Run, name: str) -> Artifact | None:
    return run.lake.read_artifact(name, run.artifacts[name]) if name in run.artifacts else None


def _read(lake: Lake, artifact: Artifact, name: str) -> bytes:
    return (lake.artifact_folder(artifact) / name).read_bytes()


def _put(lake: Lake, artifact: Artifact, path: str, name: str) -> str:
    data = _read(lake, artifact, name)
    if not lake.store.exists(path) or lake.store.read(path) != data:
        lake.store.write(path, data)
    return lake.store.child(path)


def put_folder(lake: Lake, artifact: Artifact, folder: str) -> str:
    """Copy an artifact's files; a marker with its key makes the second time free."""
    marker = f"{folder}/.artifact"
    if not lake.store.exists(marker) or lake.store.read(marker).decode() != artifact.key:
        lake.store.delete(marker)
        old = {entry.path for entry in lake.store.walk(folder)}
        for name in sorted(artifact.files, key=lambda name: (name == LAST, name)):
            lake.store.write(f"{folder}/{name}", _read(lake, artifact, name))
        for path in old - {f"{folder}/{name}" for name in artifact.files}:
            lake.store.delete(path)
        lake.store.write(marker, artifact.key.encode())
    return lake.store.child(folder)


def _show(run: Run, evaluation: Artifact, found: dict[str, Any]) -> None:
    """The report's address, its figures and its pictures, for the Prefect UI."""
    lines = [f"Report: `{found['report']}`", "", "| figure | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in found["metrics"].items() if isinstance(value, int | float)]
    markdown("report", "\n".join(lines), f"Evaluation of {run.recipe.name}")
    for name in sorted(evaluation.files):
        if name.endswith(".png"):
            image(Path(name).stem.replace("_", "-"), _read(run.lake, evaluation, name), Path(name).stem)
