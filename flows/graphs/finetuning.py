"""From a user's data set and a published model to a model for one task."""

from collections.abc import Mapping
from typing import Any

from spiritlm_core.config import FrozenConfig
from spiritlm_core.finetune.artifact_stages import FinetuneStage, MeasureStage, PublishTunedStage
from spiritlm_core.finetune.base import Rows, find_base, fitted_to, speech_tokenizer
from spiritlm_core.finetune.config import FinetuneRecipe
from spiritlm_core.finetune.stage import TaskExamplesStage, TaskUnitsStage
from spiritlm_core.finetune.template import Template, find_template
from spiritlm_core.intake.listing import Say
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan, Plan, TablePlan
from spiritlm_core.plan.graph import Graph, Lineage


def finetuning(recipe: FinetuneRecipe, lake: Lake, say: Say = lambda _: None) -> Graph:
    """The stages of a fine-tuning, whose base model may be one of `lake`.

    Raises ModelReferenceError: there is no such base model or speech tokenizer; RecipeError: the recipe does not go
    with the base model.
    """
    template, base = find_template(recipe.template), find_base(recipe.base, lake)
    folder = base.local_path(lake)
    recipe, speech = fitted_to(recipe, folder, say), speech_tokenizer(recipe.speech_tokenizer, folder)

    graph = Graph(recipe.name, recipe)
    rows = Rows(recipe.data, template, recipe.sharding)
    units = graph.source(TaskUnitsStage, FrozenConfig(), rows, speech_tokenizer=speech)
    examples = graph.add(TaskExamplesStage, recipe.examples(template), units, base=base)
    finetuned = graph.add(FinetuneStage, recipe.tuning(), examples, base=base)
    measures = graph.add(MeasureStage, recipe.measured(template), examples, base=base, finetuned=finetuned)
    parts = {"finetuned": finetuned, "measures": measures, "speech_tokenizer": speech}
    graph.add(PublishTunedStage, FrozenConfig(), **parts, lineage=tuning_lineage(recipe, template))
    return graph


def tuning_lineage(recipe: FinetuneRecipe, template: Template) -> Lineage:
    """Tells what was trained on what, and how."""

    def lineage(plans: Mapping[str, Plan]) -> dict[str, Any]:
        made = {name: plan.key for name, plan in plans.items() if isinstance(plan, ArtifactPlan)}
        models = [model for plan in plans.values() for model in plan.call.models.values()]
        return {
            "recipe": recipe.name,
            "task": template.name,
            "base": recipe.base,
            "settings": recipe.settings(),
            "template": template.model_dump(mode="json"),
            "tables": {name: plan.fingerprint for name, plan in plans.items() if isinstance(plan, TablePlan)},
            "artifacts": {model.artifact: model.digest for model in models if model.artifact} | made,
        }

    return lineage
