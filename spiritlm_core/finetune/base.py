"""What a fine-tuning is given: the model that it starts from, and the rows of the data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.finetune.artifact_stages import SPEECH_TOKENIZER, PublishTunedStage
from spiritlm_core.finetune.config import IN_LAKE, DataConfig, FinetuneRecipe
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.rows import TASK_ROWS
from spiritlm_core.finetune.stage import context_of
from spiritlm_core.finetune.template import Template
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.intake.files import local_uri
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.listing import Say
from spiritlm_core.intake.statcache import stat_cache
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.forgotten import forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ModelSource
from spiritlm_core.publish.stage import PublishStage


def find_base(base: str, lake: Lake) -> ModelSource:
    """The base model: a model reference, a folder, or the published model of a recipe in `lake`.

    Raises ModelReferenceError: there is no such model.
    """
    if not base.startswith(IN_LAKE):
        return ModelSource.of_reference(_reference(base, "base"))
    name = base.removeprefix(IN_LAKE)
    for stage in (PublishStage.name, PublishTunedStage.name):
        if artifact := lake.used_artifact(name, stage):
            return ModelSource(artifact.key, artifact=stage)
    raise ModelReferenceError(
        f"base {base}: {lake.uri} has no published model of a recipe {name!r}; "
        f"`spiritlm run {name}` makes one, or name a model's folder with --base"
    )


def fitted_to(recipe: FinetuneRecipe, base: Path, say: Say) -> FinetuneRecipe:
    """The recipe with sequences that the base model takes, unless ``lm.rope_base`` is there to stretch it.

    Raises RecipeError: a step would then be no whole number of sequences.
    """
    wanted, most, step = recipe.tokens.context_length, context_of(base), recipe.lm.tokens_per_step
    if most is None or wanted <= most or recipe.lm.rope_base is not None:
        return recipe
    if step % most:
        raise RecipeError(
            f"tokens.context_length is {wanted}, the base model takes {most} tokens, and lm.tokens_per_step {step} is "
            "no multiple of these: set both"
        )
    say(f"  tokens.context_length {wanted} is lowered to {most}: the base model takes no more")
    tokens = recipe.tokens.model_copy(update={"context_length": most})
    return recipe.model_copy(update={"tokens": tokens})


def speech_tokenizer(given: str | None, base: Path) -> str | None:
    """A reference to the speech tokenizer that is named, else to the one beside the base model, else None.

    Raises ModelReferenceError: the one that is named is not there.
    """
    if given is not None:
        return _reference(given, SPEECH_TOKENIZER)
    beside = base / SPEECH_TOKENIZER
    return local_uri(beside) if beside.is_dir() else None


def _reference(where: str, name: str) -> str:
    if "://" in where:
        return where
    path = Path(where).expanduser()
    if not path.is_dir():
        raise ModelReferenceError(f"{name} {where}: there is no such folder")
    return local_uri(path)


@dataclass(frozen=True)
class Rows:
    """See :class:`spiritlm_core.intake.listing.Listing`."""

    schema: ClassVar[pa.Schema] = TASK_ROWS
    data: DataConfig
    template: Template
    sharding: ShardingConfig

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the data set is."""
        return {"data": self.data.model_dump(mode="json")}

    def items(self, lake: Lake, say: Say) -> pa.Table:
        """All rows but forgotten ones. Raises SourceError if the data cannot be read, or a column is lacking."""
        with stat_cache(lake, f"cache/finetune/{digest(self.data.path)[:32]}.parquet") as cache:
            rows = read_rows(self.data, self.template, cache)
        gone = forgotten(lake)
        left = [row for row in rows if not any(gone.covers(said.sha256) for said in row.recording_fields().values())]
        return items_table(left, TASK_ROWS)

    def costs(self, items: pa.Table) -> pa.ChunkedArray:
        """Bytes of audio to work through."""
        return items["size"]
