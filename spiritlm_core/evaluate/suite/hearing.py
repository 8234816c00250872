"""A speech recogniser that has nothing to do with the model under test, as a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from spiritlm_core.errors import Rejection

Hear = Callable[[np.ndarray], str]
"""The words in float32[T] at 16 kHz."""


@lru_cache(maxsize=1)
def recogniser(reference: str, language: str = "en") -> Hear:
    """Load a faster-whisper model.

    Args:
        reference: of its folder: ``hf://…``, ``file://…``, ``s3://…`` or ``pypi://…``.
        language: that is spoken.

    Raises:
        ModelReferenceError: there is none.
    """
    from spiritlm_core.evaluate.resynthesis.recogniser import Recogniser
    from spiritlm_core.models.reference import resolve

    found = Recogniser(resolve(reference).path)

    def hear(waveform: np.ndarray) -> str:
        try:
            return found.hear(waveform, language)
        except Rejection:
            return ""

    return hear
