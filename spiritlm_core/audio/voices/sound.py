"""What an engine gives back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import SpiritLMError

Time = tuple[float, float]  # seconds from the start of the sound: when a word begins and ends


@dataclass(frozen=True)
class Sound:
    """A sentence, spoken."""

    samples: NDArray[np.int16]  # int16[T], one channel
    rate: int  # sampling rate in hertz
    words: Sequence[Time | None] = ()
    """When each word of the text, parted at white space, was said; None where the engine does not tell."""


class NothingHeardError(SpiritLMError):
    """A text of which an engine makes no sound, such as punctuation alone."""
