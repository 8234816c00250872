"""Small lakes, filled in this process: recordings, a tiny HuBERT and quantizer, and their units."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.graphs.speech_lm import speech_lm
from flows.recipes import find_recipe
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import Plan, TablePlan
from spiritlm_core.lake.run import run_artifact, run_shard
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.plan.changes import keep_settings
from spiritlm_core.plan.graph import RunPlan, plan_graph
from spiritlm_core.recipe import Recipe
from tests.audio.files import sound

TINY = Path(__file__).parents[1] / "integration/tiny.yaml"


def clip(folder: Path, number: int, text: str = "good morning") -> Path:
    """A second and a half of noise that differs from that of other numbers, and its transcript."""
    path = folder / f"{number}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    sound(path, 0.1 * np.random.default_rng(number).standard_normal(24_000))
    path.with_suffix(".txt").write_text(text)
    return path


def tiny(folder: Path, *overrides: str) -> Recipe:
    """The smallest recipe, without pitch, style and vocoder, on the recordings of a folder."""
    settings = ("variant=base", "vocoder=null", "sharding.shard_items=2", f"sources=[{{kind: folder, path: {folder}}}]")
    return find_recipe(str(TINY), [*settings, *overrides])


def planned(recipe: Recipe, lake: Lake, *until: str) -> RunPlan:
    """The plan of the speech units of `recipe`, or of what is asked for."""
    return plan_graph(speech_lm(recipe), lake, *(until or ("units",)))


def compute(recipe: Recipe, lake: Lake, *until: str) -> None:
    """Run the stages up to the units, or to what is asked for, as a run does: the recipe refers to them afterwards."""
    for stage in planned(recipe, lake, *until).stages.values():
        kind = "table" if isinstance(stage, TablePlan) else "artifact"
        compute_stage(stage, lake)
        lake.write_ref(recipe.name, stage.name, kind, stage.fingerprint, stage.call.identity)
    keep_settings(lake, recipe.name, recipe)


def compute_stage(stage: Plan, lake: Lake) -> None:
    """Run one stage in this process."""
    if isinstance(stage, TablePlan):
        worker = stage.call.create(lake)
        worker.setup()
        shards = tuple(run_shard(lake, stage.call, worker, job)[0] for job in stage.jobs)
        lake.write_snapshot(Snapshot(stage.name, stage.call.identity, shards, stage.lineage))
    else:
        run_artifact(lake, stage, lambda fraction, message: None)
