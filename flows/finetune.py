"""The flow that fine-tunes a published model on a user's own data, and its recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

from prefect import flow
from pydantic import Field

from flows.pipeline import DEFAULT_LAKE, LakeUri, Overrides, described
from flows.recipes.finetune import find_finetune_recipe
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError
from spiritlm_core.finetune.recipe import FinetuneRecipe
from spiritlm_core.finetune.template import Template, find_template
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold
from spiritlm_core.lake.plan import ModelSource, StageCall, plan_artifact
from tasks.artifacts import run_table
from tasks.finetuning import base_model, check_examples, deliver_tuned, fit_to_base, plan_rows, speech_tokenizer
from tasks.flow_runs import guarded, run_name
from tasks.progress import Console
from tasks.run import Run
from tasks.stages import run_stage

if TYPE_CHECKING:
    from spiritlm_core.recipe import Recipe

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
    return run_finetune(load(recipe, data, base, overrides), Lake(lake))


def load(recipe: str | FinetuneRecipe, data: str | None, base: str | None, overrides: Sequence[str]) -> FinetuneRecipe:
    """The recipe to run, with `data` and `base` in place of its own. Raises RecipeError."""
    if isinstance(recipe, str):
        loaded = find_finetune_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError("overrides go with the name of a recipe, not with a whole one: change the recipe itself")
    else:
        loaded = recipe
    changed: dict[str, Any] = {} if base is None else {"base": base}
    if data is not None:
        changed["data"] = loaded.data.model_copy(update={"path": data})
    return loaded.model_copy(update=changed)


def run_finetune(recipe: FinetuneRecipe, lake: Lake) -> dict[str, Any]:
    """Run the stages of a fine-tuning in order, inside a flow.

    Raises:
        SpiritLMError: a stage failed, or the data or the base model is no good.
    """
    template = find_template(recipe.template)
    run = Run(cast("Recipe", recipe), lake, Console())  # it needs the name and the compute settings alone
    with hold(lake.store, "run", recipe.name):
        try:
            _stages(run, recipe, template)
        finally:
            run.fan_out.close()
            run_table(list(run.reports.values()))
        outputs = deliver_tuned(run, "finetune_published")
    return {"stages": {name: report.to_dict() for name, report in run.reports.items()}, **outputs}


def _stages(run: Run, recipe: FinetuneRecipe, template: Template) -> None:
    base = base_model(run, recipe.base)
    recipe = fit_to_base(run, recipe, base)
    speech = speech_tokenizer(run, recipe.speech_tokenizer, base)
    call = StageCall.of("spiritlm_core.finetune.stage:TaskUnitsStage", FrozenConfig(), run.sources(speech))
    run_stage(run, plan_rows(run.lake, recipe, template, call), "speech tokens of the data set")
    cls = "spiritlm_core.finetune.stage:TaskExamplesStage"
    run_stage(run, run.plan_table(cls, recipe.examples(template), {"base": base}), "questions and answers as tokens")
    check_examples(run)
    cls = "spiritlm_core.finetune.train_stage:FinetuneStage"
    _artifact(run, cls, recipe.tuning(), {"base": base}, "the model, trained further")
    cls = "spiritlm_core.finetune.measure_stage:MeasureStage"
    _artifact(run, cls, recipe.measured(template), {"base": base, "finetuned": "finetuned"}, "held-out figures")
    roles = {"finetuned": "finetuned", "measures": "finetune_measures", **speech}
    _publish(run, recipe, template, roles)


def _artifact(run: Run, cls: str, config: FrozenConfig, models: Mapping[str, str], about: str) -> None:
    run_stage(run, run.plan_artifact(cls, config, models, pinned=False), about)


def _publish(run: Run, recipe: FinetuneRecipe, template: Template, roles: Mapping[str, str]) -> None:
    lineage = {
        "recipe": recipe.name,
        "task": template.name,
        "base": recipe.base,
        "settings": recipe.settings(),
        "template": template.model_dump(mode="json"),
        "tables": {name: snapshot.fingerprint for name, snapshot in run.snapshots.items()},
        "artifacts": dict(run.artifacts),
    }
    models = {**run.sources(roles), "lineage": ModelSource.of_json(lineage)}
    call = StageCall.of("spiritlm_core.finetune.publish_stage:PublishTunedStage", FrozenConfig(), models)
    run_stage(run, plan_artifact(call, {}), "folder with model, speech tokenizer and figures")
