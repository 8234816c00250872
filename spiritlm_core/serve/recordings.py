"""Recordings of a request: decoded within the limits."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.config import LimitsConfig
from spiritlm_core.audio.decode import TooLong
from spiritlm_core.audio.waveform import read_waveform
from spiritlm_core.errors import Rejection
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.serve.errors import RequestError, invalid
from spiritlm_core.serve.schema import AudioPart

_LIMITS = LimitsConfig(max_channels=2, max_rate=192_000)


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
        except Rejection as error:
            raise RequestError(400, "bad_audio", f"the recording cannot be used: {error}", field) from error

    def _bytes(self, part: AudioPart, field: str) -> bytes:
        if part.file is not None:
            if part.file not in self._files:
                raise invalid(f"the request has no file {part.file!r:.60}", field)
            return self._files[part.file]
        return decoded(part.data or "", field)

    def _decoded(self, data: bytes) -> NDArray[np.float32]:
        limits = _LIMITS.model_copy(update={"max_hours": self._left / 3600})
        waveform = read_waveform(io.BytesIO(data), "the recording", limits=limits)
        self._left -= len(waveform) / SAMPLE_RATE
        return waveform


_URL = re.compile(r"data:.{0,1000}?;\s*base64,", re.IGNORECASE | re.DOTALL)
_SAFE = str.maketrans("-_", "+/")


def decoded(text: str, field: str) -> bytes:
    """Bytes of base64, also in many lines and with the alphabet of URLs, or of a ``data:`` URL of it.

    Raises:
        RequestError: it is neither; `field` is named.
    """
    text = text.strip()
    url = _URL.match(text)
    body = unquote(text[url.end() :]) if url else text
    if "," in body:
        raise invalid("data is base64, or a URL data:…;base64,…", field)
    try:
        return base64.b64decode("".join(body.split()).translate(_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"data is not base64: {error}", field) from error
