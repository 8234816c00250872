"""Seconds from the end of what somebody says until the answer is heard: asked as a whole, as a stream, and live.

    python benchmarks/serve.py MODEL AUDIO… [--tokens 200] [--pause 0.5] [--repeat 3]

Starts `spiritlm serve MODEL` on this machine. Live sends the recordings as fast as they were spoken, with silence
behind; its time includes the pause in which the server waits whether more is said.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import typer
from websockets.sync.client import connect

from spiritlm_core.audio.codec import encode_wav, to_int16
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.lake.schema import SAMPLE_RATE

PIECE = 640  # samples of a message, 40 ms
Ask = Callable[[np.ndarray], float | None]


@contextmanager
def server(model: str) -> Iterator[str]:
    """The address of a server of its own."""
    command = [sys.executable, "-m", "spiritlm_core.cli", "serve", model, "--port", "0", "--no-page"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        (url,) = re.findall(r"http://[\d.:]+", process.stdout.readline() if process.stdout else "")
        yield url
        process.terminate()


class Client:
    """Asks for answers that are written and said; each method gives the seconds until one is heard, None if none is."""

    def __init__(self, url: str, tokens: int, pause: float) -> None:
        self._url, self._pause = url, pause
        self._tokens, self._http = tokens, httpx.Client(base_url=url, timeout=300)

    def _request(self, waveform: np.ndarray, **more: object) -> dict[str, Any]:
        audio = {"data": base64.b64encode(encode_wav(waveform)).decode(), "format": "wav"}
        messages = [{"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}]
        spoken = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "pcm16"}}
        return {"model": "gpt-audio", "messages": messages, "max_tokens": self._tokens, **spoken, **more}

    def whole(self, waveform: np.ndarray) -> float | None:
        """One call for one turn."""
        began = time.perf_counter()
        answer = self._http.post("/v1/chat/completions", json=self._request(waveform))
        return time.perf_counter() - began if answer.is_success else None  # what cannot be heard is an error

    def stream(self, waveform: np.ndarray) -> float | None:
        """The same call with an answer in pieces."""
        began = time.perf_counter()
        with self._http.stream("POST", "/v1/chat/completions", json=self._request(waveform, stream=True)) as answer:
            lines = (line for line in answer.iter_lines() if '"data": "' in line)
            return next((time.perf_counter() - began for _ in lines), None)

    def live(self, waveform: np.ndarray) -> float | None:
        """Sound in as it comes, sound out as it is made."""
        with connect(f"{self._url.replace('http', 'ws', 1)}/v1/live") as socket:
            socket.send(json.dumps({"max_new_tokens": self._tokens, "pause": self._pause}))
            socket.recv()
            ended = threading.Event()
            times: list[float] = []
            talking = threading.Thread(target=_talk, args=(socket, waveform, times, ended))
            talking.start()
            try:
                for message in socket:
                    if isinstance(message, bytes):
                        return time.perf_counter() - times[0]
                    if json.loads(message)["type"] in ("done", "error"):
                        return None
            finally:
                ended.set()
                talking.join()
        return None


def _talk(socket: object, waveform: np.ndarray, times: list[float], ended: threading.Event) -> None:
    """Send speech, note when it is over, and go on with silence until the answer is there."""
    speech = iter(np.array_split(waveform, max(1, len(waveform) // PIECE)))
    clock = time.perf_counter()
    while not ended.is_set():
        piece = next(speech, None)
        if piece is None and not times:
            times.append(time.perf_counter())
        sound = np.zeros(PIECE, np.float32) if piece is None else piece
        socket.send(to_int16(sound).astype("<i2").tobytes())  # type: ignore[attr-defined]
        clock += len(sound) / SAMPLE_RATE
        time.sleep(max(0.0, clock - time.perf_counter()))


def main(model: str, audio: list[Path], tokens: int = 200, pause: float = 0.5, repeat: int = 3) -> None:
    """Measure, and print a table."""
    waveforms = [as_waveform(path) for path in audio]
    with server(model) as url:
        client = Client(url, tokens, pause)
        ways: dict[str, Ask] = {"one call": client.whole, "streamed call": client.stream, "live": client.live}
        client.whole(waveforms[0])
        print(f"{'':14} {'first sound':>12} {'without pause':>14} {'answers':>8}")
        for name, ask in ways.items():
            times = [ask(waveform) for _ in range(repeat) for waveform in waveforms]
            heard = [seconds for seconds in times if seconds is not None]
            middle = float(np.median(heard)) if heard else float("nan")
            after = middle - pause * (name == "live")
            print(f"{name:14} {middle:10.2f} s {after:12.2f} s {len(heard):4} of {len(times)}")


if __name__ == "__main__":
    typer.run(main)
