"""Recordings of a request: decoded within the limits."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.codec import TooLong, header, read_waveform
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.serve.errors import RequestError, invalid
from spiritlm_core.serve.schema import AudioPart

_FINEST = 4000
"""Largest terms of a resampling's ratio: its filter grows with them, and 44 101 Hz would take gigabytes."""
_RATES = (4_000, 192_000)
_CHANNELS = 2


class Recordings:
    """Decodes the recordings of one request, as long as they are not too long together.

    Args:
        files: uploaded files by the name of their field.
        seconds: how long they may be.
    """

    def __init__(self, files: Mapping[str, bytes], seconds: float) -> None:
        self._files, self._most, self._left = files, seconds, seconds

    def waveform(self, part: AudioPart, field: str) -> NDArray[np.float32]:
        """float32[samples] at 16 kHz.

        Raises:
            RequestError: there is no such file, it is no recording, or it is too long; `field` is named.
        """
        data = self._bytes(part, field)
        try:
            return self._decoded(data)
        except TooLong as error:
            message = f"recordings of a request may last {self._most:g} s together: send a shorter one"
            raise RequestError(413, "too_long", message, field) from error
        except (Rejection, SpiritLMError) as error:
            raise RequestError(400, "bad_audio", f"the recording cannot be used: {error}", field) from error

    def _bytes(self, part: AudioPart, field: str) -> bytes:
        if part.file is not None:
            if part.file not in self._files:
                raise invalid(f"the request has no file {part.file!r:.60}", field)
            return self._files[part.file]
        try:
            return base64.b64decode(part.data or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"data is not base64: {error}", field) from error

    def _decoded(self, data: bytes) -> NDArray[np.float32]:
        if known := header(data):
            _check_format(*known)
        samples, rate = read_waveform(data, "the recording", self._left)
        _check_format(rate, len(samples))  # a header may promise what is not in the file
        waveform = as_waveform(samples, rate)
        self._left -= len(waveform) / SAMPLE_RATE
        return waveform


def _check_format(rate: int, channels: int) -> None:
    """Refuse what takes much memory however short it is.

    Raises:
        Rejection: too many channels, or an unusual rate.
    """
    if channels > _CHANNELS:
        raise Rejection(f"it has {channels} channels: mix them to one or two")
    if not _RATES[0] <= rate <= _RATES[1] or max(SAMPLE_RATE, rate) // math.gcd(rate, SAMPLE_RATE) > _FINEST:
        raise Rejection(f"its rate of {rate} Hz is not supported: convert it to {SAMPLE_RATE} Hz")
