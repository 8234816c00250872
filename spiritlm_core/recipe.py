"""A recipe: one file that says everything about one whole run, from recordings to a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.align.config import AlignConfig
from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.config import FrozenConfig, NamedConfig
from spiritlm_core.config_files import load_config_file
from spiritlm_core.errors import RecipeError
from spiritlm_core.evaluate.config import EvaluateConfig, ResynthesisConfig, SuiteStageConfig, UnitEvaluationConfig
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.intake.config import ShardingConfig, SourceConfig, TextSource
from spiritlm_core.intake.rights import RightsConfig
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.lake.snapshot import KeepConfig
from spiritlm_core.language import LanguageCode
from spiritlm_core.lm.config import LmCompute, LmConfig, ModelConfig
from spiritlm_core.publish.card import PublishConfig
from spiritlm_core.quality.config import JUDGES, Condition, Filter, QualityConfig, SpeakersConfig
from spiritlm_core.speech.config import UnitsConfig
from spiritlm_core.speech.vocoder.fit_config import VocoderFitConfig
from spiritlm_core.tokens.config import TokensConfig


class StageCompute(FrozenConfig):
    """What a worker of one stage reserves on a Ray cluster, beyond what the stage asks for by itself."""

    cpus: float | None = Field(None, gt=0, description="CPU cores, and as many threads; null: what the stage asks for.")
    gpus: float | None = Field(
        None, ge=0, description="GPUs; 0.25 lets four workers share one; null: none, though a GPU that is seen is used."
    )
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="Custom resources, by the names that nodes were started with, such as `spot: 0.001`."
    )


class ComputeConfig(FrozenConfig):
    """How the work is run. Nothing here enters a fingerprint."""

    executor: Literal["auto", "ray", "inline"] = Field(
        "auto",
        description="auto: Ray where a cluster is configured, else processes of this machine; ray: a private Ray then; "
        "inline: everything in one process, for debugging.",
    )
    ray_address: str | None = Field(
        None, description="Address of the Ray cluster to join; null takes the environment's RAY_ADDRESS."
    )
    workers: int | None = Field(None, ge=1, description="Workers of a table stage; null takes what the CPUs allow.")
    shard_timeout_seconds: float = Field(
        3600.0, gt=0, description="Longest time for a shard; one that takes longer is tried again."
    )
    attempts: int = Field(3, ge=1, description="How often a shard is tried before the run stops.")
    lost_nodes: int = Field(
        10, ge=0, description="How often a shard is begun again besides because its node went away, as spot nodes do."
    )
    stages: dict[str, StageCompute] = Field(
        {}, description="What workers reserve on a Ray cluster, by stage: `{units: {gpus: 0.25}}`."
    )
    units: FitCompute = Field(FitCompute(), description="Processes that fit the unit models and the vocoder.")
    training: LmCompute = Field(LmCompute(), description="Workers, batch and checkpoints of the training.")


class Recipe(NamedConfig):
    """One whole run. All but `compute`, `sharding`, `keep`, `name` and `description` shapes what is computed."""

    variant: Literal["base", "expressive"] = Field(
        "expressive", description="Streams of speech; base: phonetic units only; expressive: pitch and style, too."
    )
    language: LanguageCode = Field("en", description="Language of recordings whose source names none.")
    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="Where the recordings come from.")
    rights: RightsConfig = Field(RightsConfig(), description="Which recordings may be used, by licence and consent.")
    texts: tuple[TextSource, ...] = Field((), description="Text documents besides the recordings, for the text stream.")
    audio: AudioConfig = Field(AudioConfig(), description="Checking, segmenting and splitting recordings.")
    sharding: ShardingConfig = Field(
        ShardingConfig(), description="How many recordings share a shard; results do not depend on it."
    )
    quality: QualityConfig | None = Field(
        None, description="Level, noise, bandwidth and more of each segment; null: not measured without `filters`."
    )
    filters: tuple[Filter, ...] = Field(
        (), description="Conditions on the columns of `quality`, such as `snr >= 10`; the corpus is what fulfils all."
    )
    duplicates: Literal["keep", "reject"] = Field(
        "keep", description="Segments that sound like another one; reject: one stays, the held-out one if there is any."
    )
    speakers: SpeakersConfig | None = Field(
        None, description="Who speaks where no source says so, guessed by the voice; null: not guessed."
    )
    align: AlignConfig = Field(AlignConfig(), description="Words and their times: transcripts, recogniser and aligner.")
    units: UnitsConfig = Field(UnitsConfig(), description="Speech units and the models that make them.")
    vocoder: VocoderFitConfig | None = Field(None, description="Vocoder, units back to speech; null: no voice.")
    tokens: TokensConfig = Field(TokensConfig(), description="Tokenizer, vocabulary and interleaving.")
    lm: LmConfig = Field(LmConfig(), description="The language model and its training.")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="Held-out evaluation.")
    unit_evaluation: UnitEvaluationConfig = Field(
        UnitEvaluationConfig(), description="Judging the speech units, for `spiritlm evaluate units`."
    )
    resynthesis: ResynthesisConfig = Field(
        ResynthesisConfig(), description="Judging the vocoder, for `spiritlm evaluate resynthesis`."
    )
    publish: PublishConfig = Field(PublishConfig(), description="Model card of the published folder.")
    suite: SuiteStageConfig | None = Field(
        None, description="Small test sets, built and measured on the published model; null: none."
    )
    keep: KeepConfig | None = Field(
        None,
        description="Snapshots of before that `spiritlm lake gc` spares; null: none, the lake holds what is in use.",
    )
    compute: ComputeConfig = Field(ComputeConfig(), description="Workers, attempts, cluster.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ModelConfig(lm=self.lm, tokens=self.tokens)
        if self.lm.lora is not None and self.lm.lora.export == "adapter":
            raise ValueError("lm.lora.export: a recipe evaluates and publishes whole models, so it must be merged")
        for column in (Condition.parse(one).column for one in self.filters):
            if column in JUDGES and getattr(self.quality, JUDGES[column], None) is None:
                raise ValueError(f"filters: {column} is measured only where quality.{JUDGES[column]} names a model")
        if self.speakers and "split" in self.speakers.use and any(_repeats(source) for source in self.sources):
            raise ValueError(
                "speakers.use: split holds out voices that are known only once they were heard, so no source can speak "
                "the transcripts of the others (texts of kind transcripts): what is held out would be among them"
            )
        largest = self.tokens.sequences.hubert
        if self.units.quantizer.size > largest:
            raise ValueError(
                f"units.quantizer.units {self.units.quantizer.units} is more than the {largest} [Hu] tokens "
                "of tokens.sequences.hubert (with kind: linear, there is one more for the blank)"
            )
        return self

    @property
    def token_settings(self) -> TokensConfig:
        """`tokens` as the variant and the base model have it: Base has no [Pi] and [St]; a base model its tokenizer."""
        sequences, tokenizer = self.tokens.sequences, self.tokens.tokenizer
        if self.variant == "base":
            sequences = sequences.model_copy(update={"pitch": 0, "style": 0})
        if self.lm.base is not None and tokenizer.base is None:
            tokenizer = tokenizer.model_copy(update={"base": self.lm.base})
        return self.tokens.model_copy(update={"sequences": sequences, "tokenizer": tokenizer})


def _repeats(source: SourceConfig) -> bool:
    return isinstance(source, SpeakSource) and source.needs_transcripts


def load_recipe_file(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; see :func:`load_config_file`."""
    if not path.exists():
        raise RecipeError(f"there is no recipe file {path}; `spiritlm recipes` lists those that come with the package")
    return load_config_file(Recipe, path, "recipe", overrides)
