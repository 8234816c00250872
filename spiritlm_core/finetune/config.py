"""Configuration of fine-tuning: the data, the examples made of it, training, and what is measured."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.finetune.template import Part
from spiritlm_core.lm.config import LmConfig, check_whole_sequences
from spiritlm_core.metrics.distances import Metric


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
