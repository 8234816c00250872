"""From recordings to a published speech language model: its stages, what each is made from, what each is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.recipes.optional import is_synthetic, notes, present
from spiritlm_core.align.config import AlignerFitConfig, WordsConfig
from spiritlm_core.align.fit import AlignerFit
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.audio.config import AudioConfig, SyntheticAudioConfig
from spiritlm_core.audio.stage import AudioStage, split_of
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError
from spiritlm_core.evaluate.config import (
    ResynthesisStageConfig,
    SuiteRunConfig,
    SuiteStageConfig,
    UnitEvaluationStageConfig,
)
from spiritlm_core.evaluate.heldout.stage import EvaluateStage
from spiritlm_core.evaluate.resynthesis.stage import ResynthesisStage
from spiritlm_core.evaluate.suite.stage import SuiteStage
from spiritlm_core.evaluate.units.stage import UnitEvaluationStage
from spiritlm_core.intake.pieces import Texts
from spiritlm_core.intake.recordings import Recordings
from spiritlm_core.intake.source import Source
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.plan import ArtifactPlan, Plan, TablePlan
from spiritlm_core.lake.schema import Row
from spiritlm_core.lm.config import ModelConfig
from spiritlm_core.lm.train.stage import ModelStage
from spiritlm_core.plan.graph import Graph, Lineage, Node
from spiritlm_core.publish.card import PublishStageConfig
from spiritlm_core.publish.stage import PublishStage
from spiritlm_core.quality.config import (
    DVectorsConfig,
    QualityConfig,
    SelectionConfig,
    SpeakersStageConfig,
    VoicesConfig,
)
from spiritlm_core.quality.duplicates import DuplicatesStage
from spiritlm_core.quality.selection import SelectionStage
from spiritlm_core.quality.speakers import SpeakersStage
from spiritlm_core.quality.stage import QualityStage
from spiritlm_core.quality.voices import DVectorsStage, VoicesFit
from spiritlm_core.recipe import Recipe
from spiritlm_core.speech.fits import HubertFit, PitchFit, QuantizerFit, StyleFit, VocoderFit
from spiritlm_core.speech.folder_stage import SpeakingTokenizerStage, SpeechTokenizerStage
from spiritlm_core.speech.stage import CopiesStage, UnitsStage
from spiritlm_core.speech.vocoder.fit_config import VocoderFitConfig, VocoderStageConfig
from spiritlm_core.tokens.config import SequencesStageConfig, TokenizerStageConfig
from spiritlm_core.tokens.fit import TokenizerFit
from spiritlm_core.tokens.stage import CopiedSequencesStage, SequencesStage
from spiritlm_core.tokens.text_stage import DocumentsStage, TextStage

ALIASES = {"ingest": "audio", "align": "words", "train": "model", "evaluate": "evaluation"}
"""Other words for a stage that people may try first; ``corpus`` is what a model is trained on."""

VOICED = (VocoderFit.name, SpeakingTokenizerStage.name)


def speech_lm(recipe: Recipe) -> Graph:
    """From recordings and texts to a published speech language model; its units and its vocoder on the way there."""
    graph = Graph(recipe.name, recipe)
    graph.notes += notes(recipe)
    units, tokens, lineage = recipe.units, recipe.token_settings, speech_lineage(recipe)
    expressive, asr = recipe.variant == "expressive", recipe.align.asr
    recogniser = asr if recipe.align.words.mode != "given" else None

    heard = graph.source(AudioStage, _audio(recipe), _recordings(recipe))
    audio, named = _speakers(graph, recipe, heard)
    aligner = recipe.align.aligner or graph.add(AlignerFit, _aligner(recipe), audio, asr=asr)
    words = graph.add(WordsStage, _words(recipe), heard, aligner=aligner, asr=recogniser)
    selection = _selection(graph, recipe, heard, audio, words)

    hubert = units.given_encoder or graph.add(HubertFit, units.hubert_stage, audio, labels=units.hubert.labels)
    quantizer = graph.add(QuantizerFit, units.quantizer_stage, audio, words if units.taught else None, hubert=hubert)
    pitch = graph.add(PitchFit, units.pitch, audio) if expressive else None
    style = graph.add(StyleFit, units.style, audio, hubert=hubert) if expressive else None
    streams = {"hubert": hubert, "quantizer": quantizer, "pitch": pitch, "style": style}
    sizes, judged = units.stage(expressive=expressive), candidates(recipe.unit_evaluation.models)
    graph.on_request(SpeechTokenizerStage, sizes, **streams)
    graph.on_request(UnitEvaluationStage, _unit_evaluation(recipe), audio, **streams, **judged)
    spoken = graph.add(UnitsStage, sizes, named, **streams)
    copied = units.copies_stage(expressive=expressive)
    copies = graph.add(CopiesStage, copied, audio, **streams) if units.copies.wanted else None

    vocoder = None
    if recipe.vocoder is not None:
        roles = {role: streams[role] for role in recipe.vocoder.roles}
        vocoder = graph.add(VocoderFit, _vocoder(recipe, recipe.vocoder), audio, spoken, **roles)
        graph.on_request(SpeakingTokenizerStage, sizes, **streams, vocoder=vocoder)
    listening = {**streams, "vocoder": vocoder, **_judges(recipe), **candidates(recipe.resynthesis.models)}
    graph.on_request(ResynthesisStage, _resynthesis(recipe), audio, **listening)

    documents = graph.source(DocumentsStage, FrozenConfig(), Texts(recipe.texts)) if recipe.texts else None
    base = tokens.tokenizer.base
    tokenizer = graph.add(TokenizerFit, _tokenizer(recipe), audio, words, documents, base=base)
    laid = CopiedSequencesStage if copies else SequencesStage
    chosen = (audio, words, spoken, selection, copies)
    sequences = graph.add(laid, _sequences(recipe), *chosen, tokenizer=tokenizer)
    text = graph.add(TextStage, FrozenConfig(), documents, tokenizer=tokenizer) if documents else None

    start = {"base": recipe.lm.base, "quantizer": quantizer if recipe.lm.from_centres else None}
    model = graph.add(ModelStage, _trained(recipe), sequences, text, tokenizer=tokenizer, **start)
    tables = (audio, words, spoken, sequences)
    judging = {
        "vocoder": vocoder,
        "recogniser": recipe.evaluate.given_recogniser,
        "base": recipe.lm.base if text else None,  # what texts were to it
    }
    evaluated = recipe.evaluate.reset("recogniser", "recogniser_optional")  # a role
    told = {"lineage": lineage, "rights": _rights, **judging}
    evaluation = graph.add(EvaluateStage, evaluated, *tables, text, model=model, **told)
    suite = None
    if recipe.suite is not None:
        judges = recipe.suite.judges
        voice = vocoder if judges.keys() & {"recogniser", "speech_judge"} else None  # where somebody listens
        suite = graph.add(SuiteStage, _suite(recipe, recipe.suite), model=model, **streams, vocoder=voice, **judges)
    parts = {**streams, "model": model, "evaluation": evaluation, "suite": suite, "vocoder": vocoder}
    graph.add(PublishStage, _published(recipe), **parts, lineage=lineage)
    return graph


def targets(graph: Graph, until: str | None) -> tuple[str, ...]:
    """The stages that `until` stands for: one by its name or an alias, those where training begins, or none.

    Raises RecipeError: it needs a vocoder, and the recipe has none.
    """
    if until is None:
        return ()
    if until == "corpus":
        return tuple(table.name for table in graph.nodes[ModelStage.name].tables)
    if until in VOICED and until not in graph.nodes:
        raise RecipeError(
            f"recipe {graph.recipe!r} has no vocoder: add a section `vocoder`, or --set vocoder.size=tiny"
        )
    return (ALIASES.get(until, until),)


def speech_lineage(recipe: Recipe) -> Lineage:
    """Tells what stages were: their settings, the models given to them, and what they made."""

    def lineage(plans: Mapping[str, Plan]) -> dict[str, Any]:
        given = {role: model.reference for plan in plans.values() for role, model in plan.call.models.items()}
        return {
            "recipe": recipe.name,
            "variant": recipe.variant,
            **({"note": "; ".join(told)} if (told := notes(recipe)) else {}),
            "settings": {name: config_json(plan.call.config) for name, plan in plans.items()},
            "given": {role: reference for role, reference in given.items() if reference is not None},
            "tables": {name: plan.fingerprint for name, plan in plans.items() if isinstance(plan, TablePlan)},
            "artifacts": {name: plan.key for name, plan in plans.items() if isinstance(plan, ArtifactPlan)},
        }

    return lineage


def candidates(models: Mapping[str, str]) -> dict[str, str]:
    """The roles of models that are compared with the recipe's own."""
    return {f"candidate.{name}": model for name, model in models.items()}


def _speakers(graph: Graph, recipe: Recipe, heard: Node) -> tuple[Node, Node]:
    """What stands for the table `audio` where its `split` counts, and where no more than its `speaker` does."""
    guessed = recipe.speakers
    if guessed is None:
        return heard, heard
    dvectors = graph.add(DVectorsStage, _part(guessed, DVectorsConfig), heard, encoder=guessed.encoder)
    voices = graph.add(VoicesFit, _part(guessed, VoicesConfig), dvectors)
    drawn = {name: getattr(recipe.audio, name) for name in ("held_out_share", "split_salt")}
    speakers = graph.add(SpeakersStage, SpeakersStageConfig(use=guessed.use, **drawn), heard, dvectors, voices=voices)
    return speakers if guessed.use else heard, speakers if "style" in guessed.use else heard


def _selection(graph: Graph, recipe: Recipe, heard: Node, audio: Node, words: Node) -> Node | None:
    """The table that says which segments stay, on what is measured for it; null where all do."""
    chooses = bool(recipe.filters or recipe.duplicates == "reject")
    if recipe.quality is None and not chooses:
        return None
    measured = graph.add(QualityStage, FrozenConfig(), heard, words, **dict(recipe.quality or QualityConfig()))
    if not chooses:
        return None
    rejects = recipe.duplicates == "reject"
    copies = graph.add(DuplicatesStage, FrozenConfig(), audio, measured) if rejects else None
    return graph.add(SelectionStage, SelectionConfig(filters=recipe.filters), measured, duplicates=copies)


def _part(config: FrozenConfig, of: type[FrozenConfig]) -> FrozenConfig:
    return of(**{name: getattr(config, name) for name in of.model_fields})


def _judges(recipe: Recipe) -> dict[str, str]:
    judged = recipe.resynthesis
    return {"recogniser": judged.recogniser, "speaker_encoder": judged.speaker_encoder}


def _audio(recipe: Recipe) -> AudioConfig:
    return SyntheticAudioConfig(**dict(recipe.audio)) if is_synthetic(recipe.sources) else recipe.audio


def _recordings(recipe: Recipe) -> Recordings:
    def split(row: Row) -> str:
        return split_of(row, _audio(recipe))

    return Recordings(recipe.sources, recipe.language, recipe.sharding, split, recipe.rights)


def _rights(plans: Mapping[str, Plan]) -> Any:
    """What is said of the recordings: licences, consent; null where nothing is."""
    audio = plans[AudioStage.name]
    said = audio.lineage.get("rights") if isinstance(audio, TablePlan) else None
    return None if said is None else {"rights": said}


def _aligner(recipe: Recipe) -> AlignerFitConfig:
    return recipe.align.fit if recipe.align.asr else recipe.align.fit.reset("asr_minutes")


def _words(recipe: Recipe) -> WordsConfig:
    words = recipe.align.words
    return words if recipe.align.asr and words.mode != "given" else words.reset("min_confidence")


def _unit_evaluation(recipe: Recipe) -> UnitEvaluationStageConfig:
    given = dict(recipe.unit_evaluation.reset("models"))  # roles
    return UnitEvaluationStageConfig(**given, precision=recipe.units.precision)


def _tokenizer(recipe: Recipe) -> TokenizerStageConfig:
    return TokenizerStageConfig(**dict(recipe.token_settings.tokenizer), language=recipe.language)


def _sequences(recipe: Recipe) -> SequencesStageConfig:
    return SequencesStageConfig(**dict(recipe.token_settings.sequences), rate=recipe.units.rate)


def _vocoder(recipe: Recipe, vocoder: VocoderFitConfig) -> VocoderStageConfig:
    expressive, fit = recipe.variant == "expressive", vocoder.used()
    sizes = recipe.units.stage(expressive=expressive)
    streams = fit if expressive else fit.reset("streams")
    return VocoderStageConfig(fit=streams, rate=recipe.units.rate, **dict(sizes))


def _resynthesis(recipe: Recipe) -> ResynthesisStageConfig:
    given = dict(recipe.resynthesis.reset("models"))  # roles
    return ResynthesisStageConfig(**given, precision=recipe.units.precision)


def _trained(recipe: Recipe) -> ModelConfig:
    tokens = recipe.token_settings.reset("tokenizer")  # a role
    shares = tokens.shares if recipe.texts else tokens.shares.reset("documents")
    return ModelConfig(lm=recipe.lm, tokens=tokens.model_copy(update={"shares": shares}))


def _published(recipe: Recipe) -> PublishStageConfig:
    data = recipe.publish.data or _described(recipe.sources)
    return PublishStageConfig(**{**dict(recipe.publish), "data": data}, precision=recipe.units.precision)


def _described(sources: Sequence[Source]) -> str:
    """What the model card says of the sources that are there; nothing where nothing is known of any."""
    known = [source.described for source in present(sources)]
    told = "; ".join(one or "recordings that whoever published this model did not describe" for one in known)
    return f"{told[0].upper()}{told[1:]}." if any(known) else ""


def _suite(recipe: Recipe, suite: SuiteStageConfig) -> SuiteRunConfig:
    return SuiteRunConfig(**dict(suite), precision=recipe.units.precision)
