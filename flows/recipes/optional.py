"""What a recipe can go without: before anything is planned, whether it can be had."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError, SourceError, SpiritLMError
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.sources.prompts import PromptsSource
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.intake.speak.texts import TranscriptTexts
from spiritlm_core.recipe import Recipe
from spiritlm_core.references.reference import resolve
from spiritlm_core.speech.config import UnitsConfig
from spiritlm_core.speech.encoders.registry import check_folder

C = TypeVar("C", bound=FrozenConfig)

LACKING = (
    "{what} could not be had, so {therefore}; a run that can reach it uses it "
    "(with {setting}: false it stops and says why)"
)
"""What people are told of something that is absent."""
SYNTHETIC = (
    "no source is of recorded speech, so what is held out, and all that is measured on it, is synthetic speech: "
    "it tells little of how people are understood"
)
"""What people are told of a model that was never judged by what people said."""


def settled(recipe: Recipe) -> Recipe:
    """`recipe`, with sources, voices and models marked absent that are optional and cannot be had; models are fetched.

    Where all sources that are left are synthetic, there are no transcripts of people for texts of that kind.

    Raises:
        SourceError: no source, or no voice of one, is left.
        RecipeError: a model is optional that is not named.
        ModelReferenceError: a folder of this machine is no encoder.
    """
    units, evaluate = _model(recipe, "units", "encoder"), _model(recipe, "evaluate", "recogniser")
    given = recipe.model_copy(update={"units": units, "evaluate": evaluate, "sources": _sources(recipe.sources)})
    _check_encoder(given.units)
    return given


def notes(recipe: Recipe) -> list[str]:
    """What people must know of a run of a :func:`settled` recipe besides its figures."""
    gone: dict[tuple[str, str], dict[str, None]] = {}
    for what, therefore, setting in _lacking(recipe):
        gone.setdefault((therefore, setting), {})[what] = None
    told = [LACKING.format(what=", ".join(what), therefore=so, setting=name) for (so, name), what in gone.items()]
    return [*told, *([SYNTHETIC] if is_synthetic(recipe.sources) else [])]


def present(sources: Sequence[Source]) -> list[Source]:
    """Those of `sources` that are there."""
    return [source for source in sources if not _is_absent(source)]


def is_synthetic(sources: Sequence[Source]) -> bool:
    """Whether no source that is there is of recorded speech."""
    return all(source.origin == "synthetic" for source in present(sources))


def _lacking(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """What is absent, what follows from that, and the setting by which it would have to be there."""
    if recipe.units.encoder_optional == "absent":
        yield "`units.encoder`", "these units are of a HuBERT fitted here", "units.encoder_optional"
    for source in recipe.sources:
        voices = source.voices if isinstance(source, SpeakSource) else ()
        names = [f"the voices of {entry.engine}" for entry in voices if entry.optional == "absent"]
        for name in [_name(source)] if _is_absent(source) else names:
            yield name, "this run goes on without", "optional"
    if recipe.evaluate.recogniser_optional == "absent":
        why = "nothing that is heard was written down, and there are no word errors of speech"
        yield "`evaluate.recogniser`", why, "evaluate.recogniser_optional"


def _settled(config: C, setting: str, look: Callable[[], object]) -> C:
    """`config`, with `setting` saying "absent" where it is true and `look` finds that nothing is there."""
    if getattr(config, setting) is not True:
        return config
    try:
        look()
    except SpiritLMError:
        return config.model_copy(update={setting: "absent"})
    return config


def _model(recipe: Recipe, section: str, name: str) -> FrozenConfig:
    """A section of `recipe`, in which the model called `name` was looked for if it is optional."""
    config: FrozenConfig = getattr(recipe, section)
    reference, setting = getattr(config, name), f"{name}_optional"
    if reference is None and getattr(config, setting) is True:
        raise RecipeError(f"{section}.{setting} is true, but there is no {section}.{name}")
    return _settled(config, setting, lambda: resolve(reference))


def _check_encoder(units: UnitsConfig) -> None:
    for reference in (units.given_encoder, units.given_encoder is None and units.hubert.labels):
        if reference and reference.startswith("file://"):
            check_folder(resolve(reference).path)


def _sources(sources: Sequence[Source]) -> tuple[Source, ...]:
    found = [_source(source) for source in sources]
    if not (left := present(found)):
        raise SourceError(f"{', '.join(map(_name, found))} is optional and could not be had, and there is nothing else")
    if len(left) < len(found) and is_synthetic(found):
        found = [_without_transcripts(source) for source in found]
    return tuple(found)


def _source(source: Source) -> Source:
    if isinstance(source, PromptsSource):
        return _settled(source, "optional", source.check)
    if isinstance(source, SpeakSource):
        voices = tuple(_settled(entry, "optional", entry.check) for entry in source.voices)
        if all(entry.optional == "absent" for entry in voices):
            names = ", ".join(entry.engine for entry in source.voices)
            raise SourceError(f"source speak: {names} is optional and could not be had, and there is no other voice")
        return source.model_copy(update={"voices": voices})
    return source


def _is_absent(source: Source) -> bool:
    return isinstance(source, PromptsSource) and source.optional == "absent"


def _name(source: Source) -> str:
    return f"prompts:{source.prompts}" if isinstance(source, PromptsSource) else source.short


def _without_transcripts(source: Source) -> Source:
    if not isinstance(source, SpeakSource):
        return source
    rest = tuple(texts for texts in source.texts if not isinstance(texts, TranscriptTexts))
    return source.model_copy(update={"texts": rest or source.texts})
