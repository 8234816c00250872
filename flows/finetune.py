"""The flow that fine-tunes a published model on a user's own data."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.graphs.finetuning import finetuning
from flows.pipeline import DEFAULT_LAKE, LakeUri, Overrides, described
from flows.recipes.finetune import load_finetune_recipe
from spiritlm_core.finetune.recipe import FinetuneRecipe
from spiritlm_core.lake.lake import Lake
from tasks.engine import run_graph
from tasks.flow_runs import guarded, run_name
from tasks.progress import Console

RecipeOrName = Annotated[
    str | FinetuneRecipe,
    Field(description="Name of a fine-tuning recipe that comes with the package, path of a file, or a whole recipe."),
]
Data = Annotated[str | None, Field(description="Data set instead of the recipe's: .parquet, .jsonl, or a folder.")]
Base = Annotated[
    str | None, Field(description="Model to start from instead of the recipe's: a folder, hf://…, lake://RECIPE.")
]


@flow(name="finetune", log_prints=False, flow_run_name=run_name)
@described
@guarded
def finetune(
    recipe: RecipeOrName = "asr",
    lake: LakeUri = DEFAULT_LAKE,
    data: Data = None,
    base: Base = None,
    overrides: Overrides = [],  # noqa: B006 - Prefect shows it as the form's default; never changed
) -> dict[str, Any]:
    """A published model trained further for one task. Returns the account of every stage and the held-out figures."""
    loaded, opened = load_finetune_recipe(recipe, data, base, overrides), Lake(lake)
    return run_graph(finetuning(loaded, opened, Console().say), opened, loaded.compute)
