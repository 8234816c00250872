"""Live: turns are found in sound that keeps coming, answered while the answer is made, and interrupted."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import to_int16
from spiritlm_core.audio.vad import WINDOW, VoiceActivity, speech_probabilities
from spiritlm_core.audio.voices.spoken import speak
from spiritlm_core.lm.generate.content import Speech
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.live.turns import Turns
from spiritlm_core.serve.routes import create_app
from tests.serve.limits import HOME, LIMITS
from tests.support.watching import PATIENCE

SILENCE = np.zeros(16_000, np.float32)
CHUNK = 3200  # bytes, 0.1 s


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """A word, float32[T] at 16 kHz."""
    pytest.importorskip("espeakng_loader")
    return speak("speak://espeak/en-us?rate=150&pitch=50&range=50&text=yesterday")[0].astype(np.float32)


@pytest.fixture(scope="module")
def live(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(engine, LIMITS), HOME) as client:
        yield client


def connected(live: TestClient) -> WebSocketTestSession:
    return live.websocket_connect("/v1/live", headers={"host": "localhost"})


def pieces(*parts: np.ndarray, rate: int = 16_000) -> Iterator[bytes]:
    """16-bit sound as it comes, 0.1 s at a time."""
    sound = np.repeat(np.concatenate(parts), rate // 16_000)
    pcm = to_int16(sound).astype("<i2").tobytes()
    step = CHUNK * rate // 16_000
    return (pcm[start : start + step] for start in range(0, len(pcm), step))


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_turn_is_the_speech_with_a_little_silence_around_it(speech: np.ndarray, rate: int) -> None:
    turns = Turns(rate, pause=0.5, longest=10)
    found = [
        event for piece in pieces(SILENCE, speech, SILENCE, speech, SILENCE, rate=rate) for event in turns.feed(piece)
    ]
    assert [event is None for event in found] == [True, False, True, False]
    for turn in (found[1], found[3]):
        assert turn is not None
        assert len(speech) - 8000 < len(turn) < len(speech) + 12_000
    assert turns.end() is None


def test_a_turn_ends_at_its_longest_and_when_it_is_ended(speech: np.ndarray) -> None:
    turns = Turns(16_000, pause=5, longest=1)
    ended = [event for piece in pieces(SILENCE, speech, speech) for event in turns.feed(piece) if event is not None]
    assert 15_000 < len(ended[0]) <= 16_000
    waiting = Turns(16_000, pause=5, longest=20)
    assert waiting.end() is None
    assert [event for piece in pieces(SILENCE, speech) for event in waiting.feed(piece)] == [None]
    assert waiting.end() is not None
    assert waiting.end() is None


def test_silence_and_a_click_are_no_turn(speech: np.ndarray) -> None:
    turns, click = Turns(16_000, 0.3, 10), np.zeros(8000, np.float32)
    click[4000:4040] = 0.9
    assert not [event for piece in pieces(SILENCE, click, SILENCE) for event in turns.feed(piece)]


def test_activity_is_the_same_in_pieces(speech: np.ndarray) -> None:
    windows = speech[: len(speech) // WINDOW * WINDOW].reshape(-1, WINDOW)
    activity = VoiceActivity()
    found = np.concatenate([activity.probabilities(windows[i : i + 3]) for i in range(0, len(windows), 3)])
    np.testing.assert_allclose(found, speech_probabilities(windows.reshape(-1)), atol=1e-5)


def talk(socket: WebSocketTestSession, *parts: np.ndarray) -> None:
    for piece in pieces(*parts):
        socket.send_bytes(piece)


def until(socket: WebSocketTestSession, *kinds: str) -> tuple[list[dict], bytes]:
    """Messages until one of these, and the sound between them."""
    told, sound = [], b""
    while True:
        message = socket.receive()
        if message.get("bytes") is not None:
            sound += message["bytes"]
            continue
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        told.append(json.loads(message["text"]))
        if told[-1]["type"] in kinds:
            return told, sound


def test_a_turn_is_answered_in_speech(live: TestClient, spirit: SpiritLM, speech: np.ndarray) -> None:
    with connected(live) as socket:
        socket.send_json({"output": "speech", "max_new_tokens": 30, "speaker": "bo"})
        assert socket.receive_json() == {"type": "ready", "model": "speaking", "sample_rate": 16_000}
        talk(socket, SILENCE, speech, SILENCE)
        told, sound = until(socket, "done")
    assert [message["type"] for message in told] == ["listening", "thinking", "done"]
    heard = np.frombuffer(sound, "<i2") / 32768
    turns = Turns(16_000, 0.5, 2)
    (turn,) = [event for piece in pieces(SILENCE, speech, SILENCE) for event in turns.feed(piece) if event is not None]
    want = spirit.generate([Speech(audio=to_int16(turn) / np.float32(32768))], "speech", max_new_tokens=30)
    reference = spirit.speech_tokenizer.decode(want.tokens, "bo")
    assert len(heard) > 1000
    assert abs(len(heard) - len(reference)) < 8000


def test_turns_are_remembered_and_written_down(live: TestClient, speech: np.ndarray) -> None:
    with connected(live) as socket:
        socket.send_json({"output": "text", "max_new_tokens": 5, "temperature": 1, "pause": 0.3})
        for _ in range(6):  # more than the model's context of 128 tokens holds
            talk(socket, SILENCE, speech, SILENCE)
            assert until(socket, "done", "error")[0][-1]["type"] == "done"
    with connected(live) as socket:
        socket.send_json({"task": "transcribe", "max_new_tokens": 5})
        talk(socket, SILENCE, speech, SILENCE)
        told, sound = until(socket, "done", "error")
        assert told[-1]["type"] == "done"
        assert "".join(m.get("text", "") for m in told if m["type"] == "text").strip() == told[-1]["text"]
        assert not sound


def test_who_speaks_interrupts(live: TestClient, engine: Engine, spirit: SpiritLM, speech: np.ndarray) -> None:
    """The answer waits for the speaker, so that it is surely under way."""
    waiting = threading.Event()
    hook = spirit.model.register_forward_pre_hook(lambda *_: waiting.wait(PATIENCE) and None)
    try:
        with connected(live) as socket:
            socket.send_json({"max_new_tokens": 40})
            talk(socket, SILENCE, speech, SILENCE)
            until(socket, "thinking")
            talk(socket, SILENCE, speech)
            told, sound = until(socket, "listening")
            assert [message["type"] for message in told] == ["interrupted", "listening"]
            assert not sound
            waiting.set()
            talk(socket, SILENCE)
            told, _ = until(socket, "done")
            assert [message["type"] for message in told if message["type"] != "text"] == ["thinking", "done"]
    finally:
        waiting.set()
        hook.remove()
    assert engine.depth == 0


def test_an_answer_to_silence_is_empty_and_says_why(live: TestClient) -> None:
    with connected(live) as socket:
        socket.send_json({})
        talk(socket, SILENCE)
        socket.send_text("answer")
        told, _ = until(socket, "done")
    assert [message["type"] for message in told] == ["ready", "done"]
    assert (told[-1]["text"], told[-1]["finish"]) == ("", "silence")
    assert "there is no speech" in told[-1]["empty"]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (['{"pose": 1}'], "pause may be meant"),
        (["nonsense"], "Invalid JSON"),
        ([b"\0\0"], "the first message is JSON"),
        (["{}", b"\0"], "an even number of bytes"),
        (["{}", "sing"], "there is no message 'sing'"),
        (['{"model": "nothing"}'], "there is no model"),
    ],
)
def test_what_is_wrong_is_said_and_ends_it(live: TestClient, messages: list[str | bytes], words: str) -> None:
    with connected(live) as socket:
        for message in messages:
            socket.send({"type": "websocket.receive", "bytes" if isinstance(message, bytes) else "text": message})
        told, _ = until(socket, "error")
        assert words in told[-1]["error"]["message"]
        with pytest.raises(WebSocketDisconnect):
            until(socket, "anything")


@pytest.mark.parametrize("messages", [[], ['{"pose": 1}'], ["{}"], ["{}", "sing"], ["{}", "answer"]])
def test_who_leaves_before_it_is_answered_is_no_error(engine: Engine, messages: list[str]) -> None:
    """What is sent to it then cannot be, which a server would show with a traceback."""
    sent = iter([{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": each} for each in messages)])
    sendings = []

    async def receive() -> dict:
        return next(sent, {"type": "websocket.disconnect", "code": 1006})

    async def send(message: dict) -> None:
        sendings.append(message["type"])
        if message["type"] != "websocket.accept":
            raise OSError

    where = {"type": "websocket", "path": "/v1/live", "query_string": b"", "headers": [(b"host", b"localhost")]}
    asyncio.run(create_app(engine, LIMITS)(where, receive, send))
    assert sendings[0] == "websocket.accept"
    assert (len(sendings) > 1) == bool(messages)


def test_so_many_may_talk_as_there_are_places(live: TestClient) -> None:
    sockets = [connected(live).__enter__() for _ in range(LIMITS.queue)]
    with connected(live) as socket, pytest.raises(WebSocketDisconnect, match="try again"):
        until(socket, "ready")
    for socket in sockets:
        socket.close()
        socket.__exit__(None, None, None)


@pytest.mark.parametrize(("origin", "host"), [("http://elsewhere.example", "localhost"), ("http://localhost", "evil")])
def test_pages_of_other_sites_cannot_listen(live: TestClient, origin: str, host: str) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        live.websocket_connect("/v1/live", headers={"origin": origin, "host": host}),
    ):
        pass
