"""The formant synthesizer eSpeak NG from the wheel `espeakng-loader`, through its C interface (``speak_lib.h``).

The library keeps state from one sentence to the next (noise, flutter) and seeds the noise with the time, so that the
same sentence sounds a little different every time. Every sentence is therefore spoken by a process of its own, forked
from a small server that has loaded the library and never speaks itself, and the noise is seeded with a constant: the
sound depends on text, voice, rate, pitch and range alone.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import subprocess
import sys
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.failures import require

_SYNCHRONOUS, _UTF8, _CHARACTERS = 2, 1, 1  # AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_UTF8, POS_CHARACTER
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeakRATE, espeakPITCH, espeakRANGE
_SEED = 1  # of the noise of breathy voices; any
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """How a sentence is spoken.

    Attributes:
        name: of eSpeak NG, such as ``en-us``, or with a variant, ``en-us+f3``.
        rate: words per minute, 80 to 450.
        pitch: base pitch, 0 to 99; 50 is the voice's own.
        range: how far the pitch moves, 0 (monotone) to 99; 50 is the voice's own.
    """

    name: str
    rate: int = 150
    pitch: int = 50
    range: int = 50


class Espeak:
    """Speaks; a context manager that ends its server.

    Raises:
        SpiritLMError: when called: the wheel is absent or damaged, the voice is unknown or the text cannot be spoken.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, text: str, voice: Voice | str, path: Path) -> None:
        """Write `text` to `path` as WAV, 22 050 Hz, 16 bit."""
        spoken = voice if isinstance(voice, Voice) else Voice(voice)
        answer = self._ask({"text": text, **asdict(spoken)})
        if "error" in answer:
            raise SpiritLMError(f"eSpeak NG cannot say {text!r:.60} in the voice {spoken.name!r}: {answer['error']}")
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(answer["rate"])
            file.writeframes(base64.b64decode(answer["samples"]))

    def close(self) -> None:
        """End the server; another call starts it again."""
        if self._server is not None:
            self._server.communicate()
            self._server = None

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._server is None:
            require("espeakng_loader")
            command = [sys.executable, "-m", __name__]
            root = str(Path(__file__).parents[3])
            paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
            self._server = subprocess.Popen(  # noqa: S603 - this very file
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=paths
            )
        server = self._server
        assert server.stdin is not None and server.stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            line = server.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self._server = None
            raise SpiritLMError("the speech synthesizer ended unexpectedly: is espeakng-loader installed and intact?")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Library:
    """The shared library, loaded and initialized, but not yet used."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._data = Path(espeakng_loader.get_data_path())
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(self._data), 0))
        if self.rate <= 0:
            raise SpiritLMError(f"eSpeak NG does not find its data in {self._data}")
        self._parts: list[bytes] = []
        self._callback = _CALLBACK(self._take)  # kept: the library holds a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            self._parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    def speak(self, text: str, voice: Voice) -> bytes:
        """Samples, int16. Raises SpiritLMError."""
        variant = voice.name.partition("+")[2]  # the library passes over one that it does not know
        known = not variant or (self._data / "voices" / "!v" / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise SpiritLMError("there is no such voice")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        size = ctypes.c_size_t(len(data) + 1)
        failed = self._library.espeak_Synth(data, size, 0, _CHARACTERS, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if failed or not any(map(any, self._parts)):
            raise SpiritLMError(f"error {failed}" if failed else "nothing is heard")
        return b"".join(self._parts)


def _serve() -> None:
    """Answer requests on standard input, each from a child process, one line for one."""
    library = _Library()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            sys.stdout.write(json.dumps(_answer(library, json.loads(line))) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


def _answer(library: _Library, request: dict[str, Any]) -> dict[str, Any]:
    text = request.pop("text")
    try:
        samples = library.speak(text, Voice(**request))
    except SpiritLMError as problem:
        return {"error": str(problem)}
    return {"rate": library.rate, "samples": base64.b64encode(samples).decode()}


if __name__ == "__main__":
    _serve()
