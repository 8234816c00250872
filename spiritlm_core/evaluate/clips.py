"""Utterances picked out of a lake, the same everywhere and in any order of shards; what a recogniser hears in them."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.align.whisperx import Transcriber
from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.fit.clips import Clip, head
from spiritlm_core.lake.stage import TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.language import main_code
from spiritlm_core.metrics.distances import Errors, errors
from spiritlm_core.references.reference import as_reference, resolve

_LISTING = ("utterance_id", "split", "duration", "speaker", "reject_stage")
AUDIO_INPUT = TableInput("audio", (*_LISTING, "language", "text", "audio"))  # what evaluations of recordings read


def rank(seed: int, key: str) -> bytes:
    """A fixed random rank of `key`: sorting by it shuffles, whatever else is in the corpus."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest()


def good_rows(
    audio: TableView, split: str, shortest: float = 0.0, longest: float = float("inf")
) -> dict[str, dict[str, Any]]:
    """The good rows of one split of the `audio` table by utterance_id, without their sound; lengths in seconds."""
    rows = (row for shard in audio.good((*_LISTING, "text"), split) for row in shard.to_pylist())
    return {row["utterance_id"]: row for row in rows if shortest <= (row["duration"] or 0.0) <= longest}


def draw(rows: Mapping[str, Mapping[str, Any]], minutes: float, seed: int) -> list[str]:
    """Keys of `rows` in the order of :func:`rank` until `minutes` are full; at least one if there are any."""
    keys = sorted(rows, key=lambda key: rank(seed, key))
    return head(keys, {key: row["duration"] or 0.0 for key, row in rows.items()}, 60 * minutes)


def read_clips(audio: TableView, keys: Sequence[str]) -> list[Clip]:
    """The clips of these rows, in this order."""
    rows = rows_of(audio, set(keys), ["speaker", "language", "text", "audio"])
    ordered = ((key, rows[key]) for key in keys)
    return [Clip(key, row["speaker"], row["language"], row["text"], decode_flac(row["audio"])) for key, row in ordered]


def rows_of(view: TableView, keys: Collection[str], columns: Collection[str]) -> dict[str, dict[str, Any]]:
    """Some columns of a few utterances by utterance_id; only shards that hold one of them are read beyond their ids."""
    rows: dict[str, dict[str, Any]] = {}
    for load in view.loaders:
        wanted = [i for i, key in enumerate(load(["utterance_id"])["utterance_id"].to_pylist()) if key in keys]
        if wanted:
            chosen = load(["utterance_id", *columns]).take(wanted).to_pylist()
            rows.update((row.pop("utterance_id"), row) for row in chosen)
    return rows


DEFAULT_LANGUAGE = "en"


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


def word_and_character_errors(
    references: Sequence[str], heard: Sequence[str], language: str | None
) -> tuple[Errors, Errors]:
    """Errors after :func:`normalised`: those in words, and those in characters."""
    wanted, got = ([normalised(text, language) for text in texts] for texts in (references, heard))
    return errors(wanted, got, str.split), errors(wanted, got, str)


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
