"""Word and character errors by a recogniser that has no part in the models under test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.align.whisperx import Transcriber
from spiritlm_core.language import main_code
from spiritlm_core.metrics.distances import Errors, edit_distance, errors, word_edits
from spiritlm_core.references.reference import as_reference, resolve

DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True)
class TextErrors:
    """Edits of one clip, and the words and characters of its reference."""

    word_edits: int
    words: int
    character_edits: int
    characters: int


class Recogniser:
    """A faster-whisper model. Beam search at temperature 0: the same waveform always gives the same text."""

    def __init__(self, folder: Path) -> None:
        self._transcriber = Transcriber(folder)

    def hear(self, waveform: NDArray[np.float32], language: str | None) -> str:
        """The text of float32[T] at 16 kHz. Raises Rejection: the model does not know the language."""
        return self._transcriber.transcribe(waveform, language or DEFAULT_LANGUAGE)[0]


@lru_cache(maxsize=1)
def fetched_recogniser(reference: str) -> Recogniser:
    """The faster-whisper model of a reference (``hf://…``, ``file://…``, …), loaded once for all who ask in a row.

    Raises ModelReferenceError: there is none.
    """
    return Recogniser(resolve(as_reference(reference)).path)


def text_errors(reference: str, heard: str, language: str | None) -> TextErrors:
    """Errors after :func:`normalised`; words are counted by jiwer."""
    wanted, got = (normalised(text, language) for text in (reference, heard))
    return TextErrors(word_edits(wanted, got), len(wanted.split()), edit_distance(wanted, got), len(wanted))


def word_and_character_errors(
    references: Sequence[str], heard: Sequence[str], language: str | None
) -> tuple[Errors, Errors]:
    """:func:`text_errors` of many clips: those in words, and those in characters."""
    prepare = partial(normalised, language=language)
    words = errors(references, heard, prepare, word_edits, lambda text: len(text.split()))
    return words, errors(references, heard, prepare)


def normalised(text: str, language: str | None) -> str:
    """The text as Whisper's own evaluation compares it (Radford et al. 2022, arXiv 2212.04356, appendix C)."""
    english = main_code(language, DEFAULT_LANGUAGE) == DEFAULT_LANGUAGE
    words = _normaliser(english)(text).split()
    return " ".join(word for word in words if any(map(str.isalnum, word)))  # of "..." it leaves a full stop


@cache
def _normaliser(english: bool) -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    # without the table of British spellings, which lies in a repository of the hub
    make: Callable[..., Callable[[str], str]] = partial(EnglishTextNormalizer, {}) if english else BasicTextNormalizer
    return make()
