"""Which text and which speech tokens belong to a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spiritlm_core.lake.schema import Row
from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.text import TextTokenizer


def word_by_word(
    timed: Sequence[Mapping[str, Any]],
    speech_ids: np.ndarray,
    times: np.ndarray,
    tokenizer: TextTokenizer,
    config: SequencesConfig,
) -> Row | None:
    """The token columns of a `sequences` row.

    Args:
        timed: Words as in the `words` table.
        speech_ids: int32[N] ids of the merged speech tokens of the segment.
        times: float64[N], their start times in seconds, not falling.
        tokenizer: For the text.
        config: How many words may be interpolated.

    Returns:
        None if there is no text, or too few of its words are timed.
    """
    kept = [(" ".join(word["word"].split()), word) for word in timed if word["word"] and word["word"].strip()]
    missing = sum(word["start"] is None or bool(word["interpolated"]) for _, word in kept)
    if not kept or missing > config.max_interpolated * len(kept):
        return None
    words = [text for text, _ in kept]
    tokens = tokenizer.encode_words(words)
    speech_offsets = slots([word["start"] for _, word in kept], times)
    if not len(tokens.ids):
        return None
    return {
        "text": " ".join(words),
        "words": words,
        "text_ids": tokens.ids,
        "text_offsets": tokens.offsets,
        "speech_ids": speech_ids,
        "speech_offsets": speech_offsets,
        "can_switch": switches(np.diff(tokens.offsets), np.diff(speech_offsets), tokens.can_switch),
        "speech_only": False,
    }


def speech_only(text: object, speech_ids: np.ndarray) -> Row:
    """The token columns of a row without usable words: one "word" that holds all the speech."""
    return {
        "text": text,
        "words": [""],
        "text_ids": [],
        "text_offsets": [0, 0],
        "speech_ids": speech_ids,
        "speech_offsets": [0, len(speech_ids)],
        "can_switch": [True],
        "speech_only": True,
    }


def slots(starts: Sequence[float | None], times: np.ndarray) -> np.ndarray:
    """Share speech tokens out to words: a word's slot lasts until the next word starts.

    So the silence between two words belongs to the earlier one, that in front of the first word to the first.

    Args:
        starts: Start of each of W words in seconds; None counts as the start before it.
        times: float64[N], start times of the tokens, not falling.

    Returns:
        int32[W + 1]; word i owns tokens ``offsets[i]`` to ``offsets[i + 1]``.
    """
    known = np.array([-np.inf if start is None else start for start in starts], dtype=np.float64)
    inner = np.searchsorted(times, np.maximum.accumulate(known)[1:], side="left")
    return np.concatenate([[0], inner, [len(times)]]).astype(np.int32)


def switches(text_counts: np.ndarray, speech_counts: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Where the modality may change, so that no span is ever empty in either modality.

    Args:
        text_counts: int[W], text tokens of each word.
        speech_counts: int[W], speech tokens of each word.
        allowed: bool[W], where the text tokens allow a change.

    Returns:
        bool[W], True in front of words where it may change; the first is always True.
    """
    starts = np.zeros(len(allowed), dtype=bool)
    text = speech = 0
    for i, (ok, more_text, more_speech) in enumerate(
        zip(allowed.tolist(), text_counts.tolist(), speech_counts.tolist(), strict=True)
    ):
        if ok and text and speech:
            starts[i] = True
            text = speech = 0
        text, speech = text + more_text, speech + more_speech
    if starts.any() and not (text and speech):
        starts[np.flatnonzero(starts)[-1]] = False  # the last words join those before them
    starts[:1] = True
    return starts
