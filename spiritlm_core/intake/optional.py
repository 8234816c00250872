"""Sources and voices that a run can go without: before anything is planned, whether they can be had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spiritlm_core.errors import SourceError, SpiritLMError
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.sources.prompts import PromptsSource
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.intake.speak.texts import TranscriptTexts
from spiritlm_core.intake.speak.voices import Voices

_ABSENT = {"optional": "absent"}
_LACKING = (
    "{} could not be had, so this run goes on without; a run that can reach it uses it "
    "(with optional: false it stops and says why)"
)
SYNTHETIC = (
    "no source is of recorded speech, so what is held out, and all that is measured on it, is synthetic speech: "
    "it tells little of how people are understood"
)
"""What people are told of a model that was never judged by what people said."""


def settled(sources: Sequence[Source]) -> tuple[Source, ...]:
    """`sources`, with those marked absent that are optional and cannot be had, and such voices.

    Where all that is left is synthetic, there are no transcripts of people for texts of that kind.

    Raises:
        SourceError: nothing is left.
    """
    found = [_settled(source) for source in sources]
    left = [source for source in found if not _is_absent(source)]
    if not left:
        raise SourceError(f"{', '.join(map(_name, found))} is optional and could not be had, and there is nothing else")
    if len(left) < len(found) and is_synthetic(found):
        found = [_without_transcripts(source) for source in found]
    return tuple(found)


def lacking(sources: Sequence[Source]) -> list[str]:
    """What people are told of settled `sources`: a line for each that is absent, and one if all speech is synthetic."""
    missing = dict.fromkeys(name for source in sources for name in _absent(source))
    return [*map(_LACKING.format, missing), *([SYNTHETIC] if is_synthetic(sources) else [])]


def is_synthetic(sources: Sequence[Source]) -> bool:
    """Whether no source that is there is of recorded speech."""
    return all(source.origin == "synthetic" for source in sources if not _is_absent(source))


def _settled(source: Source) -> Source:
    if isinstance(source, PromptsSource):
        return source.model_copy(update=_ABSENT) if _is_lacking(source) else source
    if isinstance(source, SpeakSource):
        voices = tuple(entry.model_copy(update=_ABSENT) if _is_lacking(entry) else entry for entry in source.voices)
        if all(entry.optional == "absent" for entry in voices):
            names = ", ".join(entry.engine for entry in source.voices)
            raise SourceError(f"source speak: {names} is optional and could not be had, and there is no other voice")
        return source.model_copy(update={"voices": voices})
    return source


def _is_lacking(entry: PromptsSource | Voices) -> bool:
    """Whether it is optional, and now seen not to be there."""
    if entry.optional is not True:
        return False
    try:
        entry.check()
    except SpiritLMError:
        return True
    return False


def _is_absent(source: Source) -> bool:
    return isinstance(source, PromptsSource) and source.optional == "absent"


def _absent(source: Source) -> Iterator[str]:
    if _is_absent(source):
        yield _name(source)
    if isinstance(source, SpeakSource):
        yield from (f"the voices of {entry.engine}" for entry in source.voices if entry.optional == "absent")


def _name(source: Source) -> str:
    return f"prompts:{source.prompts}" if isinstance(source, PromptsSource) else source.short


def _without_transcripts(source: Source) -> Source:
    if not isinstance(source, SpeakSource):
        return source
    rest = tuple(texts for texts in source.texts if not isinstance(texts, TranscriptTexts))
    return source.model_copy(update={"texts": rest or source.texts})
