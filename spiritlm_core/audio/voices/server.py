"""A process that has loaded an engine of speech, and lets a copy of itself speak each sentence.

Engines keep state from one sentence to the next: the noise of breathy voices, a generator of random numbers. The server
itself never speaks, it forks: every copy begins in the state in which the engine was loaded, so that a sound depends on
what is asked alone.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np

from spiritlm_core.audio.voices.sound import NothingHeardError, Sound
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.failures import require

Answer = Callable[[dict[str, Any]], Sound]
"""Makes the sound of a request: what `load` of an engine's module gives. Raises SpiritLMError, NothingHeardError."""


class Speaker:
    """An engine in a process of its own; a context manager that ends it.

    `engine` is a module of this folder, whose function `load` is given `loaded`; `library` is what it needs.
    """

    def __init__(self, engine: str, library: str, *loaded: str) -> None:
        self._engine, self._library, self._loaded = engine, library, loaded
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, text: str, voice: str, settings: Mapping[str, Any]) -> Sound:
        """`text` in a voice.

        Raises NothingHeardError: there is nothing in it to say; SpiritLMError: the library is absent or damaged, the
        voice is unknown, or the text cannot be spoken.
        """
        answer = self._ask({"text": text, "voice": voice, **settings})
        if why := answer.get("nothing"):
            raise NothingHeardError(f"{self._engine} cannot say {text!r:.60} in the voice {voice!r}: {why}")
        if why := answer.get("error"):
            raise SpiritLMError(f"{self._engine} cannot say {text!r:.60} in the voice {voice!r}: {why}")
        samples = np.frombuffer(base64.b64decode(answer["samples"]), np.int16)
        return Sound(samples, answer["rate"], [time and (time[0], time[1]) for time in answer["words"]])

    def close(self) -> None:
        """End the process; another call starts it again."""
        if self._server is not None:
            self._server.communicate()
            self._server = None

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        server = self._server = self._server or self._start()
        assert server.stdin is not None and server.stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            line = server.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self._server = None
            raise SpiritLMError(f"{self._engine} ended unexpectedly: is {self._library} installed and intact?")
        return json.loads(line)

    def _start(self) -> subprocess.Popen[str]:
        require(self._library)
        command = [sys.executable, "-m", __name__, self._engine, *self._loaded]
        root = str(Path(__file__).parents[3])
        paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
        return subprocess.Popen(  # noqa: S603 - this very file
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=paths
        )


def serve(answer: Answer) -> None:
    """Answer requests on standard input, each from a child process, one line for one."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            sys.stdout.write(json.dumps(_answered(answer, json.loads(line))) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


def _answered(answer: Answer, request: dict[str, Any]) -> dict[str, Any]:
    try:
        sound = answer(request)
    except NothingHeardError as problem:
        return {"nothing": str(problem)}
    except SpiritLMError as problem:
        return {"error": str(problem)}
    samples = base64.b64encode(sound.samples.tobytes()).decode()
    return {"rate": sound.rate, "samples": samples, "words": list(sound.words)}


if __name__ == "__main__":
    serve(import_module(f"spiritlm_core.audio.voices.{sys.argv[1]}").load(*sys.argv[2:]))
