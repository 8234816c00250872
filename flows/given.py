"""What each stage is given out of a recipe: its own configuration, and the models in its roles."""

from __future__ import annotations

from collections.abc import Mapping

from spiritlm_core.align.config import AlignerFitConfig, WordsConfig
from spiritlm_core.evaluate.config import PublishStageConfig
from spiritlm_core.evaluate.resynthesis.config import ResynthesisStageConfig
from spiritlm_core.evaluate.suite.config import SuiteRunConfig, SuiteStageConfig
from spiritlm_core.evaluate.units.config import UnitEvaluationStageConfig
from spiritlm_core.lm.config import ModelConfig
from spiritlm_core.recipe import Recipe
from spiritlm_core.speech.config import UnitsStageConfig
from spiritlm_core.speech.vocoder.fit_config import VocoderFitConfig, VocoderStageConfig
from spiritlm_core.tokens.config import TokensConfig

Models = Mapping[str, str]
"""Role to the name of an earlier stage, a model reference, or `tasks.run.LINEAGE`."""


def expressive(recipe: Recipe) -> bool:
    """Whether there are pitch and style."""
    return recipe.variant == "expressive"


def with_texts(recipe: Recipe) -> bool:
    """Whether there are documents besides the recordings."""
    return bool(recipe.texts)


def unit_models(recipe: Recipe) -> Models:
    """The models of the speech units."""
    models = {**hubert(recipe), "quantizer": "quantizer"}
    return {**models, "pitch": "pitch", "style": "style"} if expressive(recipe) else models


def voice(recipe: Recipe) -> Models:
    """The vocoder, if there is one."""
    return {"vocoder": "vocoder"} if has_voice(recipe) else {}


def listening(recipe: Recipe) -> Models:
    """What a vocoder is fitted with: recordings are encoded again, a little later each time."""
    models = {**hubert(recipe), "quantizer": "quantizer"}
    return models if recipe.vocoder is not None and recipe.vocoder.shifts > 1 else {}


def has_voice(recipe: Recipe) -> bool:
    """Whether there is a vocoder."""
    return recipe.vocoder is not None


def units(recipe: Recipe) -> UnitsStageConfig:
    """Number and precision of the units."""
    return recipe.units.stage(expressive=expressive(recipe))


def vocoder(recipe: Recipe) -> VocoderStageConfig:
    """The fit of the vocoder, without pitch and style in Base."""
    fit = (recipe.vocoder or VocoderFitConfig()).used()
    return VocoderStageConfig(fit=fit if expressive(recipe) else fit.reset("streams"), **dict(units(recipe)))


def hubert(recipe: Recipe) -> Models:
    """HuBERT, given or fitted."""
    return {"hubert": recipe.units.hubert.model or "hubert"}


def unit_evaluation(recipe: Recipe) -> UnitEvaluationStageConfig:
    """How units are judged; the tokenizers to compare are roles."""
    return UnitEvaluationStageConfig(**dict(recipe.unit_evaluation.reset("models")), precision=recipe.units.precision)


def resynthesis(recipe: Recipe) -> ResynthesisStageConfig:
    """How units and vocoder are judged; the models to compare are roles."""
    return ResynthesisStageConfig(**dict(recipe.resynthesis.reset("models")), precision=recipe.units.precision)


def judged(recipe: Recipe) -> Models:
    """The unit models, and the tokenizers to compare."""
    given = recipe.unit_evaluation.models
    return {**unit_models(recipe), **{f"candidate.{name}": model for name, model in given.items()}}


def resynthesised(recipe: Recipe) -> Models:
    """The unit models, the vocoder, the judges, and the models to compare."""
    given = recipe.resynthesis
    judges = {"recogniser": given.recogniser, "speaker_encoder": given.speaker_encoder}
    candidates = {f"candidate.{name}": model for name, model in given.models.items()}
    return {**unit_models(recipe), **voice(recipe), **judges, **candidates}


def asr(recipe: Recipe) -> Models:
    """The recogniser, if there is one."""
    return {"asr": recipe.align.asr} if recipe.align.asr else {}


def aligner(recipe: Recipe) -> AlignerFitConfig:
    """The fit of the aligner."""
    return recipe.align.fit if asr(recipe) else recipe.align.fit.reset("asr_minutes")


def heard(recipe: Recipe) -> Models:
    """The recogniser, where transcripts are not all that counts."""
    return asr(recipe) if recipe.align.words.mode != "given" else {}


def words(recipe: Recipe) -> WordsConfig:
    """How words are found."""
    return recipe.align.words if heard(recipe) else recipe.align.words.reset("min_confidence")


def align_models(recipe: Recipe) -> Models:
    """The aligner, and the recogniser where it is needed."""
    return {**heard(recipe), "aligner": recipe.align.aligner or "aligner"}


def examples(recipe: Recipe) -> TokensConfig:
    """How training sequences are packed."""
    return recipe.token_settings.reset("tokenizer", "shares", "window")


def trained(recipe: Recipe) -> ModelConfig:
    """The language model and its training."""
    tokens = recipe.token_settings.reset("tokenizer")  # a role
    shares = tokens.shares if recipe.texts else tokens.shares.reset("documents")
    return ModelConfig(lm=recipe.lm, tokens=tokens.model_copy(update={"shares": shares}))


def published(recipe: Recipe) -> PublishStageConfig:
    """The model card, and how the units were extracted."""
    return PublishStageConfig(**dict(recipe.publish), precision=recipe.units.precision)


def suite(recipe: Recipe) -> SuiteRunConfig:
    """Which sets are built, what is asked, and how the units were extracted."""
    return SuiteRunConfig(**dict(recipe.suite or SuiteStageConfig()), precision=recipe.units.precision)


def examined(recipe: Recipe) -> Models:
    """What is measured and by whom: no card, no figures, and no voice where nobody listens."""
    judges = recipe.suite.judges if recipe.suite else {}
    speaks = voice(recipe) if judges.keys() & {"recogniser", "speech_judge"} else {}
    return {"model": "model", **unit_models(recipe), **speaks, **judges}


def base(recipe: Recipe) -> Models:
    """The tokenizer to start from, if it is not fitted."""
    return {"base": recipe.token_settings.tokenizer.base} if recipe.token_settings.tokenizer.base else {}


def model(recipe: Recipe) -> Models:
    """The text tokenizer, and the language model to start from, if there is one."""
    base = {"base": recipe.lm.base} if recipe.lm.base else {}
    return {"tokenizer": "tokenizer", **base}
