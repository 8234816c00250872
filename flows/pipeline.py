"""The flows: the whole pipeline, and the parts of it that people start on their own.

Each flow walks the same list of stages and stops at its own end; what is in the lake already is not
computed again, so `train` after `corpus` only trains.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

from prefect import flow
from pydantic import Field

from flows.recipes import find_recipe, with_sources
from flows.stages import StageSpec, ancestors, check_vocoder, stages_for, wanted_stages
from spiritlm_core.errors import RecipeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold
from spiritlm_core.recipe import Recipe
from tasks.artifacts import run_table
from tasks.delivery import deliver
from tasks.flow_runs import guarded, run_name
from tasks.progress import Console
from tasks.run import Run
from tasks.stages import run_stage

DEFAULT_LAKE = os.environ.get("SPIRITLM_LAKE") or "lake"
"""The same variable as that of the command line; of the worker, when a deployment names no lake."""

RecipeOrName = Annotated[
    str | Recipe, Field(description="Name of a recipe that comes with the package, path of a file, or a whole recipe.")
]
LakeUri = Annotated[str, Field(description="Where data and models are kept: a folder or s3://bucket/prefix.")]
Sources = Annotated[list[str], Field(description="Recordings instead of the recipe's: prompts:en, a folder, s3://….")]
Overrides = Annotated[list[str], Field(description="Settings to change, each KEY=VALUE, for example lm.steps=100.")]
Until = Annotated[str | None, Field(description="Run this stage and what it is made from; null runs all.")]
Refit = Annotated[bool, Field(description="Fit unit models, aligner and tokenizer anew on the corpus as it is now.")]

UNIT_MODELS = ("speech_tokenizer",)
"""The stage that holds all unit models; those it is made from come along."""

VOICE = ("speaking_tokenizer",)
"""The same with the vocoder."""

P = ParamSpec("P")
R = TypeVar("R")


def described(function: Callable[P, R]) -> Callable[P, R]:
    """Add the parameters' descriptions to the docstring: Prefect's form takes them from there and nowhere else."""
    hints = get_type_hints(function, include_extras=True)
    lines = [f"    {name}: {hint.__metadata__[0].description}" for name, hint in hints.items() if name != "return"]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
    return function


@flow(name="pipeline", log_prints=False, flow_run_name=run_name)
@described
@guarded
def pipeline(
    recipe: RecipeOrName = "quickstart",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006 - Prefect shows it as the form's default; never changed
    overrides: Overrides = [],  # noqa: B006
    until: Until = None,
    refit: Refit = False,
) -> dict[str, Any]:
    """From recordings to a published model. Returns the account of every stage and where the outputs are."""
    return run_recipe(load(recipe, sources, overrides), Lake(lake), until=until, refit=refit)


@flow(name="corpus", log_prints=False, flow_run_name=run_name)
@described
@guarded
def corpus(
    recipe: RecipeOrName = "quickstart",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    refit: Refit = False,
) -> dict[str, Any]:
    """From recordings to packed training sequences."""
    return run_recipe(load(recipe, sources, overrides), Lake(lake), until="examples", refit=refit)


@flow(name="train", log_prints=False, flow_run_name=run_name)
@described
@guarded
def train(
    recipe: RecipeOrName = "quickstart",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """The language model of a recipe, and whatever it still needs before."""
    return run_recipe(load(recipe, sources, overrides), Lake(lake), until="model")


@flow(name="evaluate", log_prints=False, flow_run_name=run_name)
@described
@guarded
def evaluate(
    recipe: RecipeOrName = "quickstart",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """The evaluation of a recipe's model, and whatever it still needs before."""
    return run_recipe(load(recipe, sources, overrides), Lake(lake), until="evaluation")


@flow(name="fit_units", log_prints=False, flow_run_name=run_name)
@described
@guarded
def fit_units(
    recipe: RecipeOrName = "units",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    refit: Refit = False,
) -> dict[str, Any]:
    """From recordings to a speech tokenizer: the models of the speech units in one folder, and nothing else."""
    return run_recipe(load(recipe, sources, overrides), Lake(lake), only=UNIT_MODELS, refit=refit)


@flow(name="fit_vocoder", log_prints=False, flow_run_name=run_name)
@described
@guarded
def fit_vocoder(
    recipe: RecipeOrName = "units",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    refit: Refit = False,
) -> dict[str, Any]:
    """From recordings to a speech tokenizer that speaks: the unit models, units of the corpus, and a vocoder."""
    loaded = load(recipe, sources, overrides)
    check_vocoder(loaded)
    return run_recipe(loaded, Lake(lake), only=VOICE, refit=refit)


@flow(name="evaluate_units", log_prints=False, flow_run_name=run_name)
@described
@guarded
def evaluate_units(
    recipe: RecipeOrName = "units",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """The speech units of a recipe judged on held-out speech, and the unit models if they are still missing."""
    return run_recipe(load(recipe, sources, overrides), Lake(lake), only=("unit_evaluation",))


@flow(name="evaluate_resynthesis", log_prints=False, flow_run_name=run_name)
@described
@guarded
def evaluate_resynthesis(
    recipe: RecipeOrName = "units",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """Audio to units and back, judged on held-out speech; unit models and vocoder are fitted if they are missing."""
    return run_recipe(load(recipe, sources, overrides), Lake(lake), only=("resynthesis",))


def load(recipe: str | Recipe, sources: list[str], overrides: list[str]) -> Recipe:
    """The recipe to run, with `sources` in place of its own. Raises RecipeError or SourceError."""
    if isinstance(recipe, str):
        loaded = find_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError("overrides go with the name of a recipe, not with a whole one: change the recipe itself")
    else:
        loaded = recipe
    return with_sources(loaded, sources)


def run_recipe(
    recipe: Recipe, lake: Lake, *, until: str | None = None, only: Sequence[str] = (), refit: bool = False
) -> dict[str, Any]:
    """Run the stages of `recipe` in order, up to `until`, or `only` those named and what they need, inside a flow.

    Raises:
        SpiritLMError: a stage failed.
    """
    stages = stages_for(recipe, only) if only else wanted_stages(recipe, until)
    run = Run(recipe, lake, Console(), refit=refit)
    with hold(lake.store, "run", recipe.name):
        try:
            for spec in stages:
                _run(run, spec)
        finally:
            run.fan_out.close()
            run_table(list(run.reports.values()))
        outputs = deliver(run)
    return {"stages": {name: report.to_dict() for name, report in run.reports.items()}, **outputs}


def _run(run: Run, spec: StageSpec) -> None:
    config, models = spec.config(run.recipe), spec.models(run.recipe)
    if spec.name == "audio":
        with run.console.stage(spec.name, "which recordings are there"):
            plan = run.plan_recordings(spec.cls, config)
        run_stage(run, plan, spec.about)
    elif spec.name == "documents":
        with run.console.stage(spec.name, "which texts are there"):
            plan = run.plan_documents(spec.cls, config)
        run_stage(run, plan, spec.about)
    elif spec.kind == "table":
        run_stage(run, run.plan_table(spec.cls, config, models), spec.about)
    else:
        made_from = ancestors(spec, run.recipe)
        artifact = run.plan_artifact(spec.cls, config, models, pinned=spec.pinned, made_from=made_from)
        run_stage(run, artifact, spec.about)
