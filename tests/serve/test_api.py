"""The HTTP interface gives what SpiritLM gives; whatever is wrong with a request is one clear error of the 4xx kind."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_flac, encode_wav
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.lm.generate.content import Speech
from spiritlm_core.lm.generate.fewshot import judged, log_likelihoods
from spiritlm_core.lm.generate.presets import ask, classify, encoded
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.routes import create_app
from spiritlm_core.serve.server import Server
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.serve.limits import HOME, LIMITS
from tests.support.small_model import sound

TOKENS = "[St2][Pi3][Hu1][Hu5]"
WORD = {"kind": "text", "text": "press one"}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def samples(wav: bytes) -> np.ndarray:
    found, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert rate == 16_000
    return found


def events(body: str) -> list[tuple[str, dict]]:
    found = []
    for block in filter(None, body.split("\n\n")):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_about(client: TestClient) -> None:
    health = client.get("/health").json()
    assert (health["ready"], health["model"], health["queue_depth"]) == (True, "speaking", 0)
    assert health["limits"]["max_seconds"] == 2
    one, two = client.get("/v1/model").json()["models"]
    assert (one["name"], one["speaks"], one["context_length"]) == ("speaking", True, 128)
    assert (one["speakers"], one["speaker_names"], two["speaker_names"]) == (3, ["ann", "bo", "cy"], [])
    assert (two["name"], two["hears"], two["speaks"]) == ("mute", True, False)
    described = client.get("/openapi.json").json()
    references = set(_references(described))
    assert {"GenerateRequest", "AudioPart", "Error"} <= set(described["components"]["schemas"])
    assert {reference.split("/")[-1] for reference in references} <= set(described["components"]["schemas"])


def test_the_description_is_shown_by_files_of_this_server_alone(client: TestClient) -> None:
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [name.rpartition("/")[2] for name in loaded] == ["swagger-ui.css", "favicon.png", "swagger-ui-bundle.js"]
    assert [client.get(name).status_code for name in loaded] == [200, 200, 200]
    assert "url: '/openapi.json'" in page
    assert '"validatorUrl": null' in page, "it would send the address of this server to another host"
    assert "http://" not in page
    assert "https://" not in page


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for part in value.values() for found in _references(part)]
    return [found for part in value for found in _references(part)] if isinstance(value, list) else []


@pytest.mark.parametrize("output", ["text", "speech", "any"])
def test_generate(client: TestClient, spirit: SpiritLM, output: str) -> None:
    options = {"max_new_tokens": 30, "temperature": 1.0, "top_p": 0.9, "seed": 7}
    request = {"parts": [WORD, {"kind": "units", "tokens": TOKENS}], "output": output, "speaker": 2, **options}
    found = client.post("/v1/generate", json=request).json()
    want = spirit.generate(["press one", Speech(tokens=TOKENS)], output, **options)
    assert [s.get("text", s.get("tokens")) for s in found["segments"]] == [s.content for s in want]
    assert (found["finish"], found["new_tokens"]) == (want.finish, len(want.ids))
    for segment, wanted in zip(found["segments"], want, strict=True):
        if segment["kind"] == "speech" and segment["wav"]:
            heard = samples(base64.b64decode(segment["wav"]))
            assert np.abs(heard - np.clip(wanted.waveform(2), -1, 1)).max() < 1e-4
    assert output != "speech" or found["segments"][0]["wav"]
    assert client.post("/v1/generate", json={**request, "speaker": "cy"}).json() == found, "by name"
    assert "wav" not in client.post("/v1/generate", json={**request, "wav": False}).text.replace('"wav":null', "")


def test_stream(client: TestClient) -> None:
    request = {"parts": [WORD], "output": "any", "max_new_tokens": 30, "temperature": 1.0, "seed": 10}
    whole = client.post("/v1/generate", json=request).json()
    body = client.post("/v1/generate", json={**request, "stream": True})
    assert body.headers["content-type"].startswith("text/event-stream")
    *pieces, (last, done) = events(body.text)
    assert (last, {name for name, _ in pieces}) == ("done", {"segment", "audio"})
    assert len(pieces) > 3
    for key in ("finish", "prompt_tokens", "new_tokens", "model"):
        assert done[key] == whole[key]
    for key in ("text", "tokens"):
        assert [s[key] for s in done["segments"] if key in s] == [s[key] for s in whole["segments"] if key in s]
        joined, want = ("".join(p.get(key, "") for p in found) for found in ([p for _, p in pieces], whole["segments"]))
        assert "".join(joined.split()) == "".join(want.split())
    refused = client.post("/v1/generate", json={**request, "stream": True, "parts": [{"kind": "units", "tokens": "x"}]})
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "parts.0")
    assert client.get("/health").json()["queue_depth"] == 0


def test_speech_of_a_stream(client: TestClient, spirit: SpiritLM) -> None:
    """It comes before the answer is over, and is that of the answer's tokens."""
    request = {"parts": [WORD], "output": "speech", "max_new_tokens": 40, "temperature": 1.0, "seed": 2, "speaker": "2"}
    found = events(client.post("/v1/generate", json={**request, "stream": True}).text)
    names = [name for name, _ in found]
    assert names.index("audio") < len(names) - names[::-1].index("segment") - 1, "before the last token"
    pcm = b"".join(base64.b64decode(data["pcm"]) for name, data in found if name == "audio")
    heard = np.frombuffer(pcm, "<i2") / 32768
    (segment,) = found[-1][1]["segments"]
    want = np.clip(spirit.speech_tokenizer.decode(segment["tokens"], 2), -1, 1)
    assert len(heard) == len(want)
    assert np.abs(heard - want).max() < 1e-4
    assert np.array_equal(samples(base64.b64decode(segment["wav"])), heard.astype(np.float32))
    for silent in ({"wav": False}, {"model": "mute"}):
        other = events(client.post("/v1/generate", json={**request, "stream": True, **silent}).text)
        assert {name for name, _ in other} == {"segment", "done"}
        assert other[-1][1]["segments"][0]["tokens"] == segment["tokens"]


def test_a_client_that_does_not_read(engine: Engine) -> None:
    """It loses its stream; the place is another's."""

    async def call() -> bool:
        body = json.dumps({"parts": [WORD], "output": "speech", "max_new_tokens": 9, "stream": True}).encode()
        scope = {"type": "http", "method": "POST", "path": "/v1/generate", "query_string": b"", "headers": []}
        app = create_app(engine, LIMITS.model_copy(update={"timeout": 0.5}))
        come = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(come, None) or await asyncio.sleep(60)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.sleep(60)

        await asyncio.wait_for(app({**scope, "http_version": "1.1"}, receive, send), 60)
        return True

    assert asyncio.run(call())
    assert engine.depth == 0


def test_transcribe_takes_a_recording_in_every_way(client: TestClient, spirit: SpiritLM, clip: bytes) -> None:
    (want, longer) = (ask(spirit, "asr", [clip], max_new_tokens=most)[0].text for most in (20, 40))
    once = spirit.generate([clip], "text", stop=("[Speech]",), max_new_tokens=20).text
    json_ = {"audio": {"kind": "audio", "data": base64_of(clip)}, "max_new_tokens": 20}
    form = {"request": json.dumps({"audio": {"kind": "audio", "file": "x"}, "max_new_tokens": 20})}
    assert client.post("/v1/transcribe", json=json_).json()["text"] == want
    assert client.post("/v1/transcribe", json={**json_, "hearings": 1}).json()["text"] == once
    refused = client.post("/v1/transcribe", json={**json_, "hearings": 0})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "hearings")
    assert client.post("/v1/transcribe", data=form, files={"x": clip}).json()["text"] == want
    options = {"request": json.dumps({"audio": {"kind": "audio", "file": "no"}})}
    assert client.post("/v1/transcribe", data=options, files={"x": clip}).status_code == 422
    for content in ({"files": {"anything": clip}}, {"content": clip, "headers": {"content-type": "audio/wav"}}):
        assert client.post("/v1/transcribe", **content).json()["text"] == longer, "as many tokens as the server allows"


def test_say_and_shots(client: TestClient, spirit: SpiritLM) -> None:
    shots = [{"question": [{"kind": "text", "text": "two"}], "answer": [{"kind": "units", "tokens": TOKENS}]}]
    request = {"text": "press one", "max_new_tokens": 30, "shots": shots, "speaker": 1}
    given = [("two", Speech(tokens=TOKENS))]
    want = spirit.generate("press one", "speech", stop=("[Text]",), max_new_tokens=30, shots=given)
    response = client.post("/v1/say", json=request)
    assert response.headers["content-type"] == "audio/wav"
    heard = samples(response.content)
    assert np.abs(heard - np.clip(want[0].waveform(1), -1, 1)).max() < 1e-4
    found = client.post("/v1/say", json={**request, "format": "json"}).json()
    assert found["segments"][0]["tokens"] == want.tokens
    assert (samples(base64.b64decode(found["segments"][0]["wav"])) == heard).all()
    silent = client.post("/v1/say", json={**request, "format": "json", "model": "mute"}).json()["segments"][0]
    assert (silent["tokens"], silent["wav"]) == (want.tokens, None)
    assert "no vocoder" in silent["silent"]
    assert client.post("/v1/say", json={**request, "model": "mute"}).json()["error"]["type"] == "no_vocoder"


def test_classify(client: TestClient, spirit: SpiritLM) -> None:
    labels = ["one", "two", "number"]
    request = {"parts": [{"kind": "units", "tokens": TOKENS}], "labels": labels}
    found = client.post("/v1/classify", json=request).json()
    nats = -log_likelihoods(spirit, [judged(spirit, [("speech", TOKENS)], "text", label) for label in labels])
    assert found["label"] == labels[int(nats.argmin())]
    assert list(found["nats"].values()) == pytest.approx(nats.tolist())
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert max(found["probabilities"], key=found["probabilities"].get) == found["label"]


def test_a_recording_is_classified_by_what_is_heard_from_four_places_in_a_frame(
    client: TestClient, spirit: SpiritLM, clip: bytes
) -> None:
    labels = ["one", "two", "press the number"]
    waveform = samples(clip)
    units = spirit.speech_tokenizer.encode_batch([waveform[start:] for start in (0, 160, 320, 480)])
    heard = [[("speech", spirit.speech_tokenizer.to_string(one))] for one in units]
    options = [judged(spirit, parts, "text", label) for parts in heard for label in labels]
    nats = -log_likelihoods(spirit, options).reshape(4, 3)
    assert len(np.unique(nats, axis=0)) > 1
    found = client.post("/v1/classify", json={"parts": [audio(clip)], "labels": labels}).json()
    assert list(found["nats"].values()) == pytest.approx(nats.mean(axis=0).tolist(), rel=1e-4)
    short = Speech(audio=waveform[:1300])
    assert classify(spirit, short, labels).nats == pytest.approx(classify(spirit, encoded(spirit, short), labels).nats)


def test_tokenize(client: TestClient, spirit: SpiritLM, clip: bytes) -> None:
    found = client.post("/v1/tokenize", content=clip, headers={"content-type": "application/octet-stream"}).json()
    units = spirit.speech_tokenizer.encode(clip)
    assert found["hubert"] == units.hubert.tolist()
    assert found["tokens"] == spirit.speech_tokenizer.to_string(units)


def audio(data: bytes) -> dict:
    return {"kind": "audio", "data": base64_of(data)}


def dense() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(9000, np.float32), 400_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


BAD: list[tuple[str, Any, int, str, str | None]] = [
    ("generate", {"parts": [{"kind": "text"}]}, 422, "invalid", "parts.0.text"),
    ("generate", {"parts": [{"kind": "video"}]}, 422, "invalid", "parts.0"),
    ("generate", {"parts": [WORD], "outptu": "text"}, 422, "invalid", "outptu"),
    ("generate", {"parts": [WORD], "output": "video"}, 422, "invalid", "output"),
    ("generate", {"parts": [WORD], "temperature": -1}, 422, "invalid", "temperature"),
    ("generate", {"parts": [WORD], "top_p": 0}, 422, "invalid", "top_p"),
    ("generate", {"parts": [WORD], "seed": 1 << 64}, 422, "invalid", "seed"),
    ("generate", {"parts": [WORD], "max_new_tokens": 41}, 422, "invalid", "max_new_tokens"),
    ("generate", {"parts": [WORD], "model": "other"}, 404, "no_such_model", "model"),
    ("generate", {"parts": [WORD], "speaker": 3, "max_new_tokens": 5}, 400, "no_such_voice", "speaker"),
    ("generate", {"parts": [{"kind": "text", "text": "press " * 300}], "max_new_tokens": 1}, 400, "bad_request", None),
    ("generate", {"parts": [{"kind": "audio"}], "max_new_tokens": 1}, 422, "invalid", "parts.0"),
    ("generate", {"parts": [{"kind": "audio", "data": "?"}], "max_new_tokens": 1}, 422, "invalid", "parts.0"),
    ("generate", {"parts": [WORD, audio(b"RIFF")], "max_new_tokens": 1}, 400, "bad_audio", "parts.1"),
    ("generate", {"parts": [audio(encode_wav(np.zeros(99)))], "max_new_tokens": 1}, 400, "bad_audio", "parts.0"),
    ("generate", {"parts": [audio(dense())], "max_new_tokens": 1}, 400, "bad_audio", "parts.0"),
    ("generate", {"parts": [{"kind": "units", "tokens": "[Hu99]"}], "max_new_tokens": 1}, 400, "bad_tokens", "parts.0"),
    ("transcribe", {"audio": audio(b""), "max_new_tokens": 1}, 400, "bad_audio", "audio"),
    ("transcribe", {"audio": {"kind": "text", "text": "x"}}, 422, "invalid", "audio"),
    ("tokenize", {"audio": audio(b"\0" * 5000)}, 400, "bad_audio", "audio"),
    ("say", {"text": ""}, 422, "invalid", "text"),
    ("classify", {"parts": [WORD], "labels": ["one"]}, 422, "invalid", "labels"),
    ("classify", {"parts": [WORD], "labels": ["one", "one"]}, 400, "bad_request", "labels"),
    ("classify", {"parts": [], "labels": ["one", "two"]}, 422, "invalid", "parts"),
]


@pytest.mark.parametrize(("route", "request_", "status", "kind", "field"), BAD)
def test_bad_requests(client: TestClient, route: str, request_: Any, status: int, kind: str, field: str | None) -> None:
    response = client.post(f"/v1/{route}", json=request_)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["field"]) == (status, kind, field), error
    assert error["message"]
    assert "\n" not in error["message"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["generate", "transcribe", "say", "classify", "tokenize"]),
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["parts", "audio", "text", "kind", "labels", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "audio/wav", "x/y"]),
)
def test_no_body_is_an_error_of_the_server(client: TestClient, route: str, body: bytes, kind: str) -> None:
    response = client.post(f"/v1/{route}", content=body, headers={"content-type": kind})
    assert response.status_code in (200, 400, 408, 413, 415, 422), response.text
    assert response.status_code == 200 or set(response.json()["error"]) == {"type", "message", "field"}


def test_too_much(client: TestClient) -> None:
    """By its announced length, by its real length, by its duration however small the file is."""
    big = b"\0" * 600_000
    kind = {"content-type": "audio/wav"}
    for content in (big, iter([big[:300_000], big[300_000:]])):
        response = client.post("/v1/tokenize", content=content, headers=kind)
        assert (response.status_code, response.json()["error"]["type"]) == (413, "too_large")
    quiet = encode_flac(np.zeros(60 * 16_000, np.float32))
    assert len(quiet) < 100_000
    response = client.post("/v1/tokenize", content=quiet, headers=kind)
    assert (response.status_code, response.json()["error"]["type"]) == (413, "too_long")
    half = audio(encode_wav(sound("low", 1, 1.2)))
    both = client.post("/v1/generate", json={"parts": [half, half], "max_new_tokens": 1})
    assert (both.status_code, both.json()["error"]["field"]) == (413, "parts.1")


def test_token_limit(engine: Engine) -> None:
    client = TestClient(create_app(engine, LIMITS.model_copy(update={"token_limit": 5})), HOME)
    short, long = ({"parts": [{"kind": "text", "text": "one " * n}], "max_new_tokens": 2} for n in (1, 9))
    assert client.post("/v1/generate", json=short).status_code == 200
    error = client.post("/v1/generate", json=long)
    assert (error.status_code, "5 are allowed" in error.json()["error"]["message"]) == (400, True)


def test_unknown_routes(client: TestClient) -> None:
    own, theirs = {"type", "message", "field"}, {"message", "type", "param", "code"}
    wrong = [("GET", "/v1/x", 404, theirs), ("POST", "/v1/embeddings", 404, theirs), ("GET", "/x", 404, own)]
    wrong += [("DELETE", "/v1/generate", 405, own), ("GET", "/v1/chat/completions", 405, theirs)]
    for method, path, status, fields in wrong:
        response = client.request(method, path)
        assert (response.status_code, set(response.json()["error"])) == (status, fields), path
        assert status != 405 or response.headers["allow"] == "POST"


def _page(app: FastAPI) -> FastAPI:
    async def anything(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("the page", 404)(scope, receive, send)

    app.mount("/", anything)
    return app


def test_head_and_other_methods_of_a_route_behind_which_is_a_page(engine: Engine) -> None:
    with TestClient(_page(create_app(engine, LIMITS)), HOME) as client:
        for path in ("/health", "/metrics", "/docs", "/openapi.json", "/live", "/v1/model", "/v1/models/speaking"):
            whole, head = client.get(path), client.head(path)
            assert (whole.status_code, head.status_code, head.content) == (200, 200, b""), path
            assert head.headers["content-type"] == whole.headers["content-type"]
            for method in ("POST", "DELETE", "OPTIONS", "TRACE", "X"):
                refused = client.request(method, path)
                assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD"), (method, path)
                assert f"not {method}" in refused.json()["error"]["message"]
        assert client.head("/v1/generate").status_code == 405
        assert [client.head(path).status_code for path in ("/v1/x", "/v1/models/x")] == [404, 404]
        assert client.get("/other").text == "the page"
        assert 'route="/health",status="405"' in client.get("/metrics").text


def test_silence_is_not_written_down(client: TestClient) -> None:
    wav = encode_wav(np.full(16_000, 0.001, np.float32))
    answer = client.post("/v1/transcribe", content=wav, headers={"Content-Type": "audio/wav"}).json()
    assert (answer["text"], answer["finish"]) == ("", "silence")
    assert "there is no speech in the recording" in answer["empty"]
    request = {"parts": [audio(wav)], "labels": ["one", "two"]}
    assert client.post("/v1/classify", json=request).json()["empty"] == answer["empty"]
    request["parts"].append(WORD)
    assert client.post("/v1/classify", json=request).json()["empty"] is None
    send = partial(client.post, "/v1/audio/transcriptions", files={"file": ("a.wav", wav)})
    assert send(data={"model": "whisper-1"}).json()["empty"] == answer["empty"]
    assert answer["empty"] in send(data={"model": "whisper-1", "stream": "true"}).text
    assert send(data={"model": "whisper-1", "response_format": "text"}).text == "\n"


def test_fields_are_named_as_they_were_sent(
    client: TestClient, spirit: SpiritLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spirit, "languages", ("en",))
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one"}]}
    for name in ("max_tokens", "max_completion_tokens"):
        error = client.post("/v1/chat/completions", json={**chat, name: 100_000}).json()["error"]
        assert (error["param"], error["code"]) == (name, "invalid")
    for more, name, said in (
        ({"audio": {"format": "ogg"}}, "audio.format", "pcm16"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "string"),
        ({"messages": [{"role": "user", "content": "x" * 100_001}]}, "messages.0.content", "100000"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0", "input_audio"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text", "required"),
    ):
        error = client.post("/v1/chat/completions", json={**chat, **more}).json()["error"]
        assert (error["param"], said in error["message"]) == (name, True), error
    blank = client.post("/v1/audio/speech", json={"model": "tts-1", "input": "  \n"})
    assert (blank.status_code, blank.json()["error"]["param"]) == (400, "input")
    wav = encode_wav(np.zeros(16_000, np.float32))
    for language, status in (("klingon", 400), ("de", 400), ("en", 200), ("EN-us", 200)):
        sent = {"model": "whisper-1", "language": language}
        answer = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav)}, data=sent)
        assert answer.status_code == status, language
        assert status == 200 or answer.json()["error"]["param"] == "language"


def test_a_model_is_found_by_the_names_by_which_it_answers(client: TestClient) -> None:
    own, _ = client.get("/v1/models").json()["data"]
    assert client.get("/v1/models/gpt-4o").json() == client.get(f"/v1/models/{own['id']}").json() == own
    assert client.get("/v1/models/other").json()["error"]["param"] == "model"


def test_what_is_our_fault_is_said_without_details(
    client: TestClient, spirit: SpiritLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(spirit), "generate_batch", fail)
    response = client.post("/v1/generate", json={"parts": [WORD], "max_new_tokens": 1})
    assert (response.status_code, response.json()["error"]["type"]) == (500, "internal")
    assert "secret" not in response.text
    assert client.get("/health").json() | {"limits": 0} == {
        "ready": True,
        "model": "speaking",
        "queue_depth": 0,
        "limits": 0,
    }


def test_a_vocoder_that_is_cut_short_is_one_error(speaking: Path, tmp_path: Path) -> None:
    """Of the model and of its speech tokenizer alone, before anything is loaded."""
    folder = tmp_path / "cut"
    shutil.copytree(speaking, folder)
    path = folder / "speech_tokenizer" / "vocoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    for load in (SpiritLM.from_pretrained, SpeechTokenizer.from_pretrained, Server(LIMITS).load):
        with pytest.raises(ModelReferenceError, match="vocoder/model.safetensors.*anew"):
            load([str(folder)] if load.__name__ == "load" else folder)  # type: ignore[operator]
