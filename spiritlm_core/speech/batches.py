"""Speech tokens of many clips; one that is no good spoils none of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spiritlm_core.errors import Rejection, SpiritLMError, is_machine_error
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.stage import grouped

if TYPE_CHECKING:
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

_GROUP_SECONDS = 300.0


def encode_clips(tokenizer: SpeechTokenizer, clips: Sequence[np.ndarray]) -> list[str | Rejection]:
    """Speech tokens such as ``[St3][Pi1][Hu7]`` of each clip, float32[T] at 16 kHz, or what is wrong with it.

    Clips of similar length are encoded together.
    """
    encoded: dict[int, str | Rejection] = {}
    for group in grouped([len(clip) / SAMPLE_RATE for clip in clips], _GROUP_SECONDS):
        encoded |= zip(group, _encode(tokenizer, [clips[i] for i in group]), strict=True)
    return [encoded[i] for i in range(len(clips))]


def _encode(tokenizer: SpeechTokenizer, clips: list[np.ndarray]) -> list[str | Rejection]:
    """After an error in a batch each clip is tried alone."""
    try:
        units = tokenizer.encode_batch(clips)
    except Exception as error:
        if is_machine_error(error) and not isinstance(error, SpiritLMError):
            raise
        if len(clips) > 1:
            return [tokens for clip in clips for tokens in _encode(tokenizer, [clip])]
        return [Rejection(str(error))]
    return [tokenizer.to_string(one) if len(one.hubert) else Rejection("too short for a speech unit") for one in units]
