"""A recipe: one file that says everything about one whole run, from recordings to a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from spiritlm_core.align.config import AlignConfig
from spiritlm_core.audio.config import AudioConfig, ShardingConfig, SourceConfig
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError
from spiritlm_core.evaluate.config import EvaluateConfig, PublishConfig
from spiritlm_core.evaluate.resynthesis.config import ResynthesisConfig
from spiritlm_core.evaluate.suite.config import SuiteStageConfig
from spiritlm_core.evaluate.units.config import UnitEvaluationConfig
from spiritlm_core.language import LanguageCode
from spiritlm_core.lm.config import LmCompute, LmConfig, ModelConfig
from spiritlm_core.tokens.config import TextSource, TokensConfig
from spiritlm_core.units.config import UnitsCompute, UnitsConfig
from spiritlm_core.vocoder.fit_config import VocoderFitConfig

C = TypeVar("C", bound=FrozenConfig)


class ComputeConfig(FrozenConfig):
    """How the work is run. Nothing here enters a fingerprint."""

    executor: Literal["auto", "ray", "inline"] = Field(
        "auto",
        description="auto: Ray where a cluster is configured, else processes of this machine; ray: a private Ray then; "
        "inline: everything in one process, for debugging.",
    )
    ray_address: str | None = Field(None, description="Ray cluster to join; null takes RAY_ADDRESS.")
    workers: int | None = Field(None, ge=1, description="Workers of a table stage; null takes what the CPUs allow.")
    shard_timeout_seconds: float = Field(3600.0, gt=0, description="A shard that takes longer is tried again.")
    attempts: int = Field(3, ge=1, description="How often a shard is tried before the run stops.")
    units: UnitsCompute = Field(UnitsCompute(), description="Processes that fit the unit models and the vocoder.")
    training: LmCompute = Field(LmCompute(), description="Workers, batch and checkpoints of the training.")


class Recipe(FrozenConfig):
    """One whole run. Every field but `compute`, `sharding`, `name` and `description` shapes what is computed."""

    name: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the recipe; snapshots and fitted models are pinned under it.",
    )
    description: str = Field("", description="One line on what the recipe is for.")
    variant: Literal["base", "expressive"] = Field(
        "expressive", description="base: phonetic units only; expressive: plus pitch and style."
    )
    language: LanguageCode = Field("en", description="Language of recordings that name none.")
    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="Where the recordings come from.")
    texts: tuple[TextSource, ...] = Field((), description="Text documents besides the recordings, for the text stream.")
    audio: AudioConfig = Field(AudioConfig(), description="Checking, segmenting and splitting recordings.")
    sharding: ShardingConfig = Field(ShardingConfig(), description="How many recordings share a shard.")
    align: AlignConfig = Field(AlignConfig(), description="Words and their times.")
    units: UnitsConfig = Field(UnitsConfig(), description="Speech units.")
    vocoder: VocoderFitConfig | None = Field(None, description="Units back to speech; null: the model has no voice.")
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
    compute: ComputeConfig = Field(ComputeConfig(), description="Workers, attempts, cluster.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ModelConfig(lm=self.lm, tokens=self.tokens)
        if self.lm.lora is not None and self.lm.lora.export == "adapter":
            raise ValueError("lm.lora.export: a recipe evaluates and publishes whole models, so it must be merged")
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


def load_recipe(text: str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML; see :func:`load_config`."""
    return load_config(Recipe, text, name, overrides)


def load_config(model: type[C], text: str, name: str, overrides: Sequence[str] = ()) -> C:
    """Read a configuration from YAML.

    Args:
        model: its class.
        text: the YAML.
        name: the file's name, for messages.
        overrides: ``a.b=value`` assignments, applied in order; values are YAML.

    Raises:
        RecipeError: what is wrong, with the key and the line of every error.
    """
    lines: dict[tuple[str, ...], int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not YAML: {error}") from error
    if not isinstance(body, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys to values, see `spiritlm recipes`")
    _index(node, (), lines, name)
    for override in overrides:
        _apply(body, override)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RecipeError(_explain(error, name, lines, overrides)) from None


def load_recipe_file(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; see :func:`load_config`."""
    if not path.exists():
        raise RecipeError(f"there is no recipe file {path}; `spiritlm recipes` lists those that come with the package")
    return load_config_file(Recipe, path, "recipe", overrides)


def load_config_file(model: type[C], path: Path, kind: str, overrides: Sequence[str] = ()) -> C:
    """Read a file of some `kind`, such as "recipe"; see :func:`load_config`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no {kind} file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    return load_config(model, text, str(path), overrides)


def _index(node: Any, path: tuple[str, ...], lines: dict[tuple[str, ...], int], name: str) -> None:
    """Remember on which line every key stands, and refuse keys given twice (YAML keeps the last silently)."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*path, str(key.value))
            if where in lines:
                raise RecipeError(f"{name}, line {key.start_mark.line + 1}: {'.'.join(where)} is given twice")
            lines[where] = key.start_mark.line + 1
            _index(value, where, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*path, str(index)] = value.start_mark.line + 1
            _index(value, (*path, str(index)), lines, name)


def _apply(body: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override!r}: write KEY=VALUE, for example --set lm.steps=100")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not YAML ({error})") from error
    target: Any = body
    for part in parts[:-1]:
        target = _enter(target, part, override)
    _assign(target, parts[-1], parsed, override)


def _enter(target: Any, part: str, override: str) -> Any:
    if isinstance(target, dict):
        if target.get(part) is None:
            target[part] = {}
        return target[part]
    if isinstance(target, list) and part.isdigit() and int(part) < len(target):
        return target[int(part)]
    raise RecipeError(f"--set {override!r}: {part!r} cannot be reached, what is before it holds no such key")


def _assign(target: Any, part: str, value: Any, override: str) -> None:
    if isinstance(target, list) and part.isdigit() and int(part) < len(target):
        target[int(part)] = value
    elif isinstance(target, dict):
        target[part] = value
    else:
        raise RecipeError(f"--set {override!r}: {part!r} cannot be set, what is before it is a single value")


def _explain(error: ValidationError, name: str, lines: dict[tuple[str, ...], int], overrides: Sequence[str]) -> str:
    found = []
    for item in error.errors(include_url=False):
        loc = tuple(str(part) for part in item["loc"])
        key = ".".join(loc) or "recipe"
        found.append(f"{_place(loc, name, lines, overrides)}: {key}: {_problem(item)}")
    return "\n".join(dict.fromkeys(found))


def _problem(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown key"
    if item["type"] == "missing":
        return "is required"
    shown = "" if isinstance(item["input"], dict | list) else f" (got {item['input']!r})"
    return f"{item['msg'].removeprefix('Value error, ')}{shown}"


def _place(loc: tuple[str, ...], name: str, lines: dict[tuple[str, ...], int], overrides: Sequence[str]) -> str:
    """The override or the line to blame: that of the key itself, or of the closest key around it.

    Discriminated unions put the chosen tag into the location; it stands in no file and is skipped.
    """
    dotted = ".".join(loc)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if dotted == key or dotted.startswith(key + "."):
            return f"--set {override}"
    known: tuple[str, ...] = ()
    for part in loc:
        if (*known, part) in lines:
            known = (*known, part)
    return f"{name}, line {lines[known]}" if known else name
