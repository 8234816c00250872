"""A recipe for fine-tuning: one file that says everything, from a data set to a model for one task."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.finetune.config import (
    ContextConfig,
    DataConfig,
    ExamplesConfig,
    MeasureConfig,
    MeasuresConfig,
    TuningConfig,
)
from spiritlm_core.finetune.template import Template
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.recipe import ComputeConfig

IN_LAKE = "lake://"


class FinetuneRecipe(FrozenConfig):
    """One fine-tuning. Every field but `compute`, `sharding`, `name` and `description` shapes what is computed."""

    name: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the recipe; its outputs lie under it.",
    )
    description: str = Field("", description="One line on what the recipe is for.")
    base: str = Field(
        min_length=1,
        description="The model to start from: the folder of a published model, a model reference (hf://, file://, "
        "s3://, pypi://), or lake://RECIPE for the published model of a recipe in the lake.",
    )
    speech_tokenizer: str | None = Field(
        None,
        description="Folder or reference of a speech tokenizer; null: speech_tokenizer/ beside the base model.",
    )
    template: str = Field(
        min_length=1,
        description="Prompt template: the name of one that comes with the package, or the path of a .yaml file.",
    )
    data: DataConfig = Field(description="The data set, its columns and its split.")
    sharding: ShardingConfig = Field(
        ShardingConfig(shard_items=256, shard_bytes=64 * 2**20), description="How many rows share a shard."
    )
    lm: LmConfig = Field(LmConfig(), description="Training; `lora` trains adapters instead of all weights.")
    tokens: ContextConfig = Field(ContextConfig(), description="How examples are packed.")
    measures: MeasuresConfig = Field(MeasuresConfig(), description="What is measured on held-out examples.")
    compute: ComputeConfig = Field(ComputeConfig(), description="Workers, attempts, cluster.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.tuning()
        return self

    def tuning(self) -> TuningConfig:
        """Configuration of the stage ``finetuned``."""
        lm = self.lm.reset("architecture", "new_token_init", "vocabulary_multiple")  # as the base model has them
        return TuningConfig(lm=lm, tokens=self.tokens)

    def examples(self, template: Template) -> ExamplesConfig:
        """Configuration of the stage ``task_examples``."""
        return ExamplesConfig(
            question=template.question,
            answer=template.answer,
            labels=template.labels,
            context_length=self.tokens.context_length,
            split=self.data.split,
        )

    def measured(self, template: Template) -> MeasureConfig:
        """Configuration of the stage ``finetune_measures``."""
        return MeasureConfig(metric=template.metric, labels=template.labels, measures=self.measures)

    def settings(self) -> dict[str, Any]:
        """What shapes the model, for its lineage."""
        values = self.model_copy(update={"lm": self.tuning().lm}).key()
        return {name: value for name, value in values.items() if name not in {"compute", "sharding", "description"}}
