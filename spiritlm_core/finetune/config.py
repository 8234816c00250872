"""A recipe for fine-tuning, from a data set to a model for one task, and the configurations of its stages."""

from typing import Any, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig, NamedConfig
from spiritlm_core.finetune.template import Part, Template
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.lm.config import LmConfig, check_whole_sequences
from spiritlm_core.metrics.distances import Metric
from spiritlm_core.recipe import ComputeConfig


class SplitConfig(FrozenConfig):
    """Which rows are kept for evaluation, where the data does not say so."""

    held_out_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the rows kept for evaluation, drawn by a hash of their content."
    )
    salt: str = Field("", description="Any text; another one draws another held-out set.")


class DataConfig(FrozenConfig):
    """A data set: Parquet files or JSON lines with a row per example."""

    path: str = Field(min_length=1, description="A .parquet or .jsonl file, or a folder of them; local or s3://….")
    columns: dict[str, str] = Field(
        {}, description="Column of each field of the template; a field not named here is a column of that name."
    )
    split_column: str | None = Field(
        None, description="Column that says train, or one of held_out, validation, valid, dev, test, eval."
    )
    split: SplitConfig = Field(SplitConfig(), description="How rows are held out where no column says it.")


class ContextConfig(FrozenConfig):
    """Packing of examples."""

    context_length: int = Field(1024, ge=16, le=1_048_576, description="Tokens in a training sequence.")
    window: int = Field(64, ge=1, le=65_536, description="Number of sequences packed, and then shuffled, together.")


class ExamplesConfig(FrozenConfig):
    """What the examples of a data set are made with, besides the base model."""

    question: tuple[Part, ...] = Field(description="Question of the template.")
    answer: tuple[Part, ...] = Field(description="Answer of the template.")
    labels: tuple[str, ...] | None = Field(None, description="Labels of the template, one of which is the answer.")
    context_length: int = Field(ge=16, description="Longest example in tokens; longer ones are rejected.")
    split: SplitConfig = Field(SplitConfig(), description="How rows are held out where no column says it.")


class TuningConfig(FrozenConfig):
    """What a fine-tuned model depends on, besides its examples and its base model."""

    lm: LmConfig = Field(LmConfig(), description="Training of adapters or of all weights.")
    tokens: ContextConfig = Field(ContextConfig(), description="Packing of examples.")

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        check_whole_sequences(self.lm, self.tokens.context_length)
        if self.lm.base is not None:
            raise ValueError("lm.base is not for fine-tuning: name the model in `base`")
        return self


class MeasuresConfig(FrozenConfig):
    """What is measured on the held-out examples, before and after."""

    examples: int = Field(64, ge=0, description="Most held-out examples whose answers are judged; 0: none.")
    losses: int = Field(1000, ge=1, description="Most held-out examples whose answers are scored.")
    max_new_tokens: int = Field(200, ge=1, description="Longest answer in tokens.")
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    seed: int = Field(0, ge=0, description="Seed of the resampling and of the examples drawn.")


class MeasureConfig(FrozenConfig):
    """Configuration of the stage that measures."""

    metric: Metric = Field(description="Measure of the template.")
    labels: tuple[str, ...] | None = Field(None, description="Labels of the template, one of which is the answer.")
    measures: MeasuresConfig = Field(MeasuresConfig(), description="How much is measured.")


IN_LAKE = "lake://"


class FinetuneRecipe(NamedConfig):
    """One fine-tuning. Every field but `compute`, `sharding`, `name` and `description` shapes what is computed."""

    base: str = Field(
        min_length=1,
        description="The model to start from: the folder of a published model, a model reference (hf://, file://, "
        "s3://, pypi://), or lake://RECIPE for the published model of a recipe in the lake.",
    )
    speech_tokenizer: str | None = Field(
        None, description="Folder or reference of a speech tokenizer; null: speech_tokenizer/ beside the base model."
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
