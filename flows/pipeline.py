"""The flows: the pipeline of a speech language model, the parts of it that people start on their own, and fine-tuning.

Those of the pipeline run parts of one graph; what is in the lake is not computed again: `train` after `corpus` only
trains. Each is an attribute of this module that is made when it is asked for (`from flows.pipeline import corpus`).
"""

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from prefect import Flow, flow
from pydantic import Field

from flows.graphs.finetuning import finetuning
from flows.graphs.speech_lm import speech_lm, targets
from flows.recipes import load_finetune_recipe, load_recipe
from spiritlm_core.finetune.config import FinetuneRecipe
from spiritlm_core.lake.lake import Lake
from spiritlm_core.recipe import Recipe
from tasks.engine import run_graph
from tasks.flow_runs import guarded, run_name
from tasks.progress import Console

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

Body = Callable[..., dict[str, Any]]


def described(function: Body) -> Body:
    """Add the parameters' descriptions to the docstring: Prefect's form takes them from there and nowhere else."""
    hints = get_type_hints(function, include_extras=True)
    lines = [f"    {name}: {hint.__metadata__[0].description}" for name, hint in hints.items() if name != "return"]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
    return function


def run(
    recipe: str | Recipe, lake: str, sources: list[str], overrides: list[str], until: str | None, *, refit: bool = False
) -> dict[str, Any]:
    """Run the stages of a recipe inside a flow, up to `until`. Raises SpiritLMError."""
    loaded = load_recipe(recipe, sources, overrides)
    graph = speech_lm(loaded)
    return run_graph(graph, Lake(lake), loaded.compute, *targets(graph, until), refit=refit)


def run_pipeline(
    recipe: RecipeOrName = "quickstart",
    lake: LakeUri = DEFAULT_LAKE,
    sources: Sources = [],  # noqa: B006 - Prefect shows it as the form's default; never changed
    overrides: Overrides = [],  # noqa: B006
    until: Until = None,
    refit: Refit = False,
) -> dict[str, Any]:
    """From recordings to a published model. Returns the account of every stage and where the outputs are."""
    return run(recipe, lake, sources, overrides, until, refit=refit)


def part(until: str, about: str, default: str = "quickstart") -> Body:
    """The body of a flow that runs the stages of a recipe up to `until`."""

    def run_part(
        recipe: RecipeOrName = default,
        lake: LakeUri = DEFAULT_LAKE,
        sources: Sources = [],  # noqa: B006
        overrides: Overrides = [],  # noqa: B006
        refit: Refit = False,
    ) -> dict[str, Any]:
        return run(recipe, lake, sources, overrides, until, refit=refit)

    run_part.__doc__ = about
    return run_part


TuningOrName = Annotated[
    str | FinetuneRecipe,
    Field(description="Name of a fine-tuning recipe that comes with the package, path of a file, or a whole recipe."),
]
Data = Annotated[str | None, Field(description="Data set instead of the recipe's: .parquet, .jsonl, or a folder.")]
Base = Annotated[
    str | None, Field(description="Model to start from instead of the recipe's: a folder, hf://…, lake://RECIPE.")
]


def run_finetune(
    recipe: TuningOrName = "asr",
    lake: LakeUri = DEFAULT_LAKE,
    data: Data = None,
    base: Base = None,
    overrides: Overrides = [],  # noqa: B006 - Prefect shows it as the form's default; never changed
) -> dict[str, Any]:
    """A published model trained further for one task. Returns the account of every stage and the held-out figures."""
    loaded, opened = load_finetune_recipe(recipe, data, base, overrides), Lake(lake)
    return run_graph(finetuning(loaded, opened, Console().say), opened, loaded.compute)


BODIES: dict[str, Body] = {
    "pipeline": run_pipeline,
    "corpus": part("corpus", "From recordings and texts to the sequences that a model is trained on."),
    "train": part("model", "The language model of a recipe, and whatever it still needs before."),
    "evaluate": part("evaluation", "The evaluation of a recipe's model, and whatever it still needs before."),
    "fit_units": part(
        "speech_tokenizer",
        "From recordings to a speech tokenizer: the models of the speech units in one folder, and nothing else.",
        "units",
    ),
    "fit_vocoder": part(
        "speaking_tokenizer",
        "From recordings to a speech tokenizer that speaks: the unit models, units of the corpus, and a vocoder.",
        "units",
    ),
    "evaluate_units": part(
        "unit_evaluation",
        "The speech units of a recipe judged on held-out speech, and the unit models if they are still missing.",
        "units",
    ),
    "evaluate_resynthesis": part(
        "resynthesis",
        "Audio to units and back, judged on held-out speech; unit models and vocoder are fitted if they are missing.",
        "units",
    ),
    "finetune": run_finetune,
}
"""What each flow does, by the flow's name."""


def __getattr__(name: str) -> Flow[..., dict[str, Any]]:
    """Make the flow called `name`: Prefect draws the form of a whole recipe for each, and a run needs one of nine."""
    if name not in BODIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    body = BODIES[name]
    body.__name__ = body.__qualname__ = name
    made = flow(name=name, log_prints=False, flow_run_name=run_name)(described(guarded(body)))
    globals()[name] = made
    return made
