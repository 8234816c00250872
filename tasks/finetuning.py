"""Planning and delivering a fine-tuning: the rows of the data set, the base model, the finished folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from spiritlm_core.errors import ModelReferenceError, NothingToTrainOnError, RecipeError
from spiritlm_core.finetune.example import context_of
from spiritlm_core.finetune.publish_stage import SPEECH_TOKENIZER
from spiritlm_core.finetune.recipe import IN_LAKE, FinetuneRecipe
from spiritlm_core.finetune.rows import commonest
from spiritlm_core.intake.files import local_uri
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.plan import ModelSource, StageCall, TablePlan
from tasks.delivery import put_folder
from tasks.recordings import inline_jobs, stat_cache

if TYPE_CHECKING:
    from spiritlm_core.finetune.template import Template
    from spiritlm_core.lake.lake import Lake
    from tasks.run import Run

PUBLISHED = "published"


def plan_rows(lake: Lake, recipe: FinetuneRecipe, template: Template, call: StageCall) -> TablePlan:
    """One job per group of rows; groups that a shard holds already keep its key.

    Raises:
        SourceError: the data cannot be read, or lacks a column of the template.
    """
    from spiritlm_core.finetune.reading import read_rows
    from spiritlm_core.finetune.rows import rows_table

    with stat_cache(lake, f"cache/finetune/{digest(recipe.data.path)[:32]}.json") as cache:
        rows = read_rows(recipe.data, template, cache)
    jobs = inline_jobs(rows, lake, recipe.name, call, recipe.sharding, rows_table)
    lineage = {"models": call.digests, "data": recipe.data.model_dump(mode="json")}
    return TablePlan(call, jobs, lineage)


def base_model(run: Run, base: str) -> str:
    """The base model as a role of a stage: a model reference, or the name of an artifact that `run` then knows.

    Raises:
        ModelReferenceError: there is no such model.
    """
    if not base.startswith(IN_LAKE):
        return _reference(base, "base")
    name = base.removeprefix(IN_LAKE)
    for stage in (PUBLISHED, "finetune_published"):
        ref = run.lake.read_ref(name, stage)
        if ref is not None and run.lake.read_artifact(stage, ref.target) is not None:
            run.artifacts[stage] = ref.target
            return stage
    raise ModelReferenceError(
        f"base {base}: {run.lake.uri} has no published model of a recipe {name!r}; "
        f"`spiritlm run {name}` makes one, or name a model's folder with --base"
    )


def fit_to_base(run: Run, recipe: FinetuneRecipe, base: str) -> FinetuneRecipe:
    """The recipe with sequences that the base model takes, unless ``lm.rope_base`` is there to stretch it.

    Raises:
        RecipeError: a step would then be no whole number of sequences.
    """
    wanted, most, step = recipe.tokens.context_length, context_of(_folder(run, base)), recipe.lm.tokens_per_step
    if most is None or wanted <= most or recipe.lm.rope_base is not None:
        return recipe
    if step % most:
        raise RecipeError(
            f"tokens.context_length is {wanted}, the base model takes {most} tokens, and lm.tokens_per_step {step} is "
            "no multiple of these: set both"
        )
    run.console.say(f"  tokens.context_length {wanted} is lowered to {most}: the base model takes no more")
    tokens = recipe.tokens.model_copy(update={"context_length": most})
    return recipe.model_copy(update={"tokens": tokens})


def check_examples(run: Run) -> None:
    """Say before the training what it will lack.

    Raises:
        NothingToTrainOnError: there is no example left to train on.
    """
    units, examples = run.reports["task_units"], run.reports["task_examples"]
    rejected, why = units.rejected + examples.rejected, commonest(Counter(units.reasons) + Counter(examples.reasons))
    splits: Counter[str] = Counter()
    for shard in run.lake.view(run.snapshots["task_examples"]).shards(("split", "reject_stage")):
        splits.update(shard.filter(pc.is_null(shard["reject_stage"]))["split"].to_pylist())
    lost = f"{rejected} of {units.rows_in} rows were rejected" + (f" ({why})" if why else "")
    if not splits["train"]:
        raise NothingToTrainOnError(f"no row is left to train on: {lost}, {splits['held_out']} are held out")
    if 2 * rejected >= units.rows_in:
        run.console.say(f"  warning: {lost}")
    if not splits["held_out"]:
        run.console.say("  warning: no example is held out, so there will be no figures: see data.split")


def speech_tokenizer(run: Run, given: str | None, base: str) -> dict[str, str]:
    """The role ``speech_tokenizer``: the one that is named, else the one beside the base model, else none."""
    if given is not None:
        return {SPEECH_TOKENIZER: _reference(given, SPEECH_TOKENIZER)}
    beside = _folder(run, base) / SPEECH_TOKENIZER
    return {SPEECH_TOKENIZER: local_uri(beside)} if beside.is_dir() else {}


def _folder(run: Run, base: str) -> Path:
    source = ModelSource.of_reference(base) if "://" in base else ModelSource(run.artifacts[base], artifact=base)
    return source.local_path(run.lake)


def _reference(where: str, name: str) -> str:
    if "://" in where:
        return where
    path = Path(where).expanduser()
    if not path.is_dir():
        raise ModelReferenceError(f"{name} {where}: there is no such folder")
    return local_uri(path)


def deliver_tuned(run: Run, stage: str) -> dict[str, Any]:
    """Copy the finished folder to ``outputs/RECIPE/model`` of the lake; returns its URI and the figures."""
    artifact = run.lake.read_artifact(stage, run.artifacts[stage])
    if artifact is None:
        return {}
    folder = put_folder(run.lake, artifact, f"outputs/{run.recipe.name}/model")
    return {"recipe": run.recipe.name, "lake": run.lake.uri, "model": folder, "metrics": artifact.summary["metrics"]}
