"""Which stages there are, in which order, what each one is made from. The whole pipeline on one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from flows import given
from flows.given import Models
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError
from spiritlm_core.lake.plan import load_class
from spiritlm_core.recipe import Recipe
from tasks.run import LINEAGE


@dataclass(frozen=True)
class StageSpec:
    """One stage of the pipeline.

    `models` maps a role to the name of an earlier stage, to a model reference (it has ``://``), or to
    `LINEAGE`. A `pinned` artifact is built once per recipe and kept when the corpus grows. A stage `on_request` is no
    part of the road from recordings to a model: it runs where it is asked for by name.
    """

    name: str
    kind: Literal["table", "artifact"]
    cls: str
    config: Callable[[Recipe], FrozenConfig]
    models: Callable[[Recipe], Models] = field(default=lambda _: {})
    wanted: Callable[[Recipe], bool] = field(default=lambda _: True)
    pinned: bool = False
    on_request: bool = False
    about: str = ""


STAGES: tuple[StageSpec, ...] = (
    StageSpec(
        "audio",
        "table",
        "spiritlm_core.audio.stage:AudioStage",
        config=lambda recipe: recipe.audio,
        about="recordings, checked, cut at pauses, 16 kHz",
    ),
    StageSpec(
        "aligner",
        "artifact",
        "spiritlm_core.align.fit:AlignerFit",
        config=given.aligner,
        models=given.asr,
        wanted=lambda recipe: recipe.align.aligner is None,
        pinned=True,
        about="alignment model fitted on the corpus",
    ),
    StageSpec(
        "words",
        "table",
        "spiritlm_core.align.stage:WordsStage",
        config=given.words,
        models=given.align_models,
        about="words and their times (WhisperX)",
    ),
    StageSpec(
        "hubert",
        "artifact",
        "spiritlm_core.speech.pretraining.fit_hubert:HubertFit",
        config=lambda recipe: recipe.units.hubert,
        wanted=lambda recipe: recipe.units.hubert.model is None,
        pinned=True,
        about="HuBERT pre-trained on the corpus",
    ),
    StageSpec(
        "quantizer",
        "artifact",
        "spiritlm_core.speech.quantizers.fit_quantizer:QuantizerFit",
        config=lambda recipe: recipe.units.quantizer,
        models=given.hubert,
        pinned=True,
        about="k-means over HuBERT features",
    ),
    StageSpec(
        "pitch",
        "artifact",
        "spiritlm_core.speech.pitch.fit:PitchFit",
        config=lambda recipe: recipe.units.pitch,
        wanted=given.expressive,
        pinned=True,
        about="VQ-VAE over F0",
    ),
    StageSpec(
        "style",
        "artifact",
        "spiritlm_core.speech.style.fit:StyleFit",
        config=lambda recipe: recipe.units.style,
        models=given.hubert,
        wanted=given.expressive,
        pinned=True,
        about="k-means over one-second style features",
    ),
    StageSpec(
        "speech_tokenizer",
        "artifact",
        "spiritlm_core.speech.folder:SpeechTokenizerStage",
        config=given.units,
        models=given.unit_models,
        on_request=True,
        about="the unit models in one folder",
    ),
    StageSpec(
        "unit_evaluation",
        "artifact",
        "spiritlm_core.evaluate.units.stage:UnitEvaluationStage",
        config=given.unit_evaluation,
        models=given.judged,
        on_request=True,
        about="speech units judged on held-out speech",
    ),
    StageSpec(
        "units",
        "table",
        "spiritlm_core.speech.stage:UnitsStage",
        config=given.units,
        models=given.unit_models,
        about="HuBERT, pitch and style units",
    ),
    StageSpec(
        "vocoder",
        "artifact",
        "spiritlm_core.speech.vocoder.fit:VocoderFit",
        config=given.vocoder,
        models=given.listening,
        wanted=given.has_voice,
        pinned=True,
        about="units back to speech",
    ),
    StageSpec(
        "speaking_tokenizer",
        "artifact",
        "spiritlm_core.speech.folder:SpeakingTokenizerStage",
        config=given.units,
        models=lambda recipe: {**given.unit_models(recipe), **given.voice(recipe)},
        wanted=given.has_voice,
        on_request=True,
        about="the unit models and the vocoder in one folder",
    ),
    StageSpec(
        "resynthesis",
        "artifact",
        "spiritlm_core.evaluate.resynthesis.stage:ResynthesisStage",
        config=given.resynthesis,
        models=given.resynthesised,
        on_request=True,
        about="audio to units and back, judged on held-out speech",
    ),
    StageSpec(
        "documents",
        "table",
        "spiritlm_core.tokens.text_stage:DocumentsStage",
        config=lambda _: FrozenConfig(),
        wanted=given.with_texts,
        about="text documents, read and checked",
    ),
    StageSpec(
        "tokenizer",
        "artifact",
        "spiritlm_core.tokens.fit:TokenizerFit",
        config=lambda recipe: recipe.token_settings.tokenizer,
        models=given.base,
        pinned=True,
        about="text tokenizer",
    ),
    StageSpec(
        "sequences",
        "table",
        "spiritlm_core.tokens.stage:SequencesStage",
        config=lambda recipe: recipe.token_settings.sequences,
        models=lambda _: {"tokenizer": "tokenizer"},
        about="text and speech tokens of every word",
    ),
    StageSpec(
        "text",
        "table",
        "spiritlm_core.tokens.text_stage:TextStage",
        config=lambda _: FrozenConfig(),
        models=lambda _: {"tokenizer": "tokenizer"},
        wanted=given.with_texts,
        about="tokens of the text documents",
    ),
    StageSpec(
        "examples",
        "table",
        "spiritlm_core.tokens.stage:ExamplesStage",
        config=given.examples,
        models=lambda _: {"tokenizer": "tokenizer"},
        about="packed training sequences of the first epoch",
    ),
    StageSpec(
        "model",
        "artifact",
        "spiritlm_core.lm.train.stage:ModelStage",
        config=given.trained,
        models=given.model,
        about="the language model",
    ),
    StageSpec(
        "evaluation",
        "artifact",
        "spiritlm_core.evaluate.heldout.stage:EvaluateStage",
        config=lambda recipe: recipe.evaluate,
        models=lambda _: {"model": "model", "lineage": LINEAGE},
        about="held-out losses, few-shot tasks, report",
    ),
    StageSpec(
        "published",
        "artifact",
        "spiritlm_core.publish.stage:PublishStage",
        config=given.published,
        models=lambda recipe: {
            "model": "model",
            "evaluation": "evaluation",
            "lineage": LINEAGE,
            **given.unit_models(recipe),
            **given.voice(recipe),
        },
        about="Hugging Face folder with model card and lineage",
    ),
    StageSpec(
        "suite",
        "artifact",
        "spiritlm_core.evaluate.suite.stage:SuiteStage",
        config=given.suite,
        models=given.examined,
        wanted=lambda recipe: recipe.suite is not None,
        about="zero-shot and few-shot tasks on small test sets",
    ),
)

ALIASES = {"ingest": "audio", "align": "words", "corpus": "examples", "train": "model", "evaluate": "evaluation"}
"""Other words for a stage that people may try first."""


def check_vocoder(recipe: Recipe) -> None:
    """Make sure that `recipe` says what its vocoder is. Raises RecipeError."""
    if recipe.vocoder is None:
        raise RecipeError(f"recipe {recipe.name!r} has no vocoder: add a section `vocoder`, or --set vocoder.size=tiny")


def wanted_stages(recipe: Recipe, until: str | None = None) -> list[StageSpec]:
    """The stages that `recipe` runs, or `until` and all it is made from. Raises RecipeError for an unknown stage."""
    stages = [stage for stage in STAGES if stage.wanted(recipe) and not stage.on_request]
    if until is None:
        return stages
    name = ALIASES.get(until, until)
    names = [stage.name for stage in stages]
    if name not in names:
        raise RecipeError(f"there is no stage {until!r} in recipe {recipe.name!r}; its stages are {', '.join(names)}")
    return stages_for(recipe, [name])


def stages_for(recipe: Recipe, names: Iterable[str]) -> list[StageSpec]:
    """The stages called `names` and all they are made from, in the order of the pipeline, and nothing else.

    A name that the variant of `recipe` has no use for, such as ``style`` in Base, is left out.

    Raises:
        RecipeError: there is no such stage at all.
    """
    known = {stage.name: stage for stage in STAGES}
    if unknown := sorted(set(names := list(names)) - set(known)):
        raise RecipeError(f"there is no stage {unknown[0]!r}; there are {', '.join(known)}")
    needed: set[str] = set()
    waiting = [known[name] for name in names if known[name].wanted(recipe)]
    while waiting:
        stage = waiting.pop()
        needed.add(stage.name)
        sources = [known[name] for name in _made_from(stage, recipe) if name in known and name not in needed]
        waiting += [source for source in sources if source.wanted(recipe)]
    return [stage for stage in STAGES if stage.name in needed]


def ancestors(stage: StageSpec, recipe: Recipe) -> set[str]:
    """The stages that `stage` is made from, directly or not."""
    return {found.name for found in stages_for(recipe, [stage.name])} - {stage.name}


def _made_from(stage: StageSpec, recipe: Recipe) -> set[str]:
    """What `stage` reads: names of tables and artifacts, and whatever else is said in their place."""
    return {*(item.table for item in load_class(stage.cls).inputs), *stage.models(recipe).values()}
