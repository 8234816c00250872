"""What people send by mistake or on purpose: each is refused in one sentence, or answered."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from tests.support.small_model import sound

WORD = {"kind": "text", "text": "press one"}
RECORDING = {"content-type": "application/octet-stream"}


def file_of(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Samples, float[T] or float[T, channels], as a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def broken() -> np.ndarray:
    samples = sound("low", 1)
    samples[100] = math.nan
    return samples


def refused(response: Any, status: int, kind: str, *words: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, kind), error
    assert "\n" not in error["message"]
    for word in words:
        assert word in error["message"]


def wav(bits: int = 16, channels: int = 1, rate: int = 16_000) -> bytes:
    """A WAV whose header says so."""
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate % (1 << 32), 2, bits)
    return b"RIFF\x24\x7d\0\0WAVEfmt \x10\0\0\0" + form + b"data\0\x7d\0\0" + bytes(32_000)


FILES: list[tuple[str, Any, int, str, str]] = [
    ("nan", lambda: file_of(broken(), subtype="FLOAT"), 400, "bad_audio", "no numbers"),
    ("infinite", lambda: file_of(np.full(9000, np.inf), subtype="FLOAT"), 400, "bad_audio", "no numbers"),
    ("nothing", lambda: b"", 400, "bad_audio", "empty file"),
    ("pdf", lambda: b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" * 40, 400, "bad_audio", "cannot be"),
    ("page", lambda: b"<!doctype html><html><body>Not found</body></html>", 400, "bad_audio", "cannot be"),
    ("hour", lambda: file_of(np.zeros(3600 * 4000, np.int16), 4000, "FLAC"), 413, "too_long", "2 s together"),
    ("channels", lambda: file_of(np.zeros((9000, 8))), 400, "bad_audio", "8 channels"),
    ("dense", lambda: file_of(np.zeros((9000, 2), np.int16), 655_350, "FLAC"), 400, "bad_audio", "655350 Hz"),
    ("no bits", lambda: wav(bits=0), 400, "bad_audio", "cannot be"),
    ("no channels", lambda: wav(channels=0), 400, "bad_audio", "cannot be"),
    ("one hertz", lambda: wav(rate=1), 400, "bad_audio", "1 Hz"),
    ("2 GHz", lambda: wav(rate=2_147_483_629), 400, "bad_audio", "2147483629 Hz"),
    ("header", lambda: file_of(np.zeros(0)), 400, "bad_audio", "no samples"),
]


@pytest.mark.parametrize(("make", "status", "kind", "words"), [case[1:] for case in FILES], ids=[c[0] for c in FILES])
def test_recordings(client: TestClient, make: Any, status: int, kind: str, words: str) -> None:
    data = make()
    refused(client.post("/v1/tokenize", content=data, headers=RECORDING), status, kind, words)
    inside = {"audio": {"kind": "audio", "data": base64.b64encode(data).decode()}, "max_new_tokens": 1}
    refused(client.post("/v1/transcribe", json=inside), status, kind, words)
    refused(client.post("/v1/transcribe", files={"clip": ("clip.wav", data)}), status, kind, words)


@pytest.mark.parametrize(
    "write",
    [
        lambda text: "\n".join(text[i : i + 76] for i in range(0, len(text), 76)),
        lambda text: "\r\n".join(text[i : i + 64] for i in range(0, len(text), 64)) + "\r\n",
        lambda text: f"data:audio/wav;base64,{text}",
        lambda text: f"DATA:;name=x;Base64,\n {text}\t",
        lambda text: f'data:audio/wav;codecs="a,b"; rate=16000; base64,{text}',
        lambda text: "data:audio/wav;base64," + quote(text, safe=""),
        lambda text: text.replace("+", "-").replace("/", "_"),
    ],
    ids=["lines", "lines of mail", "url", "wrapped url", "parameters", "percent", "alphabet of urls"],
)
def test_base64_as_programs_write_it(client: TestClient, clip: bytes, write: Any) -> None:
    plain = base64.b64encode(clip).decode()
    want, found = (
        client.post("/v1/tokenize", json={"audio": {"kind": "audio", "data": data}}) for data in (plain, write(plain))
    )
    assert want.status_code == 200
    assert found.json() == want.json()


@pytest.mark.parametrize(
    "data", ["data:audio/wav,abcd", "data:audio/wav;base64", "http://x/y;base64,abcd", "ab,cd", "YQ"]
)
def test_what_is_no_base64(client: TestClient, data: str) -> None:
    audio = {"kind": "audio", "data": data}
    refused(client.post("/v1/tokenize", json={"audio": audio}), 422, "invalid", "base64")


@pytest.mark.parametrize(("route", "kinds"), [("transcribe", ", audio/*"), ("tokenize", ", audio/*"), ("say", "data,")])
def test_another_type_of_body_is_told_which_there_are(client: TestClient, route: str, kinds: str) -> None:
    response = client.post(f"/v1/{route}", content=b"x", headers={"content-type": "text/plain"})
    refused(response, 415, "unsupported", "application/json, multipart/form-data", kinds, "text/plain")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"parts": [WORD], "tempature": 5}, "temperature may be meant"),
        ({"parts": [WORD], "max_tokens": 5, "stream": True}, "max_new_tokens may be meant"),
        ({"parts": [{"kind": "text", "text": "x", "texts": "y"}]}, "text may be meant"),
    ],
)
def test_a_field_that_there_is_not_is_told_what_may_be_meant(client: TestClient, body: Any, words: str) -> None:
    refused(client.post("/v1/generate", json=body), 422, "invalid", words)


def parts(**more: Any) -> dict[str, Any]:
    return {"parts": [WORD], "max_new_tokens": 1, **more}


def units(tokens: str) -> list[dict[str, str]]:
    return [{"kind": "units", "tokens": tokens}]


BODIES: list[tuple[str, dict[str, Any], int, str]] = [
    ("generate", parts(max_new_tokens=10**30), 422, "max_new_tokens"),
    ("generate", parts(max_new_tokens=-1), 422, "max_new_tokens"),
    ("generate", parts(max_new_tokens=1.5), 422, "max_new_tokens"),
    ("generate", parts(top_k=-1), 422, "top_k"),
    ("generate", parts(seed=-1), 422, "seed"),
    ("generate", parts(model=""), 404, "model"),
    ("generate", parts(model="../../etc/passwd"), 404, "model"),
    ("generate", parts(speaker=-1), 422, "speaker"),
    ("generate", parts(speaker=1 << 80), 422, "speaker"),
    ("generate", parts(speaker=1.5), 422, "speaker"),
    ("generate", parts(speaker=True), 422, "speaker"),
    ("generate", parts(speaker=""), 422, "speaker"),
    ("generate", parts(speaker="9" * 5000), 422, "speaker"),
    ("generate", parts(speaker="nobody"), 400, "speaker"),
    ("generate", parts(speaker="²"), 400, "speaker"),
    ("generate", parts(expression=7), 400, "expression"),
    ("generate", parts(shots=[{"question": [WORD]}]), 422, "shots.0.answer"),
    ("generate", parts(shots=[{"question": [WORD], "answer": []}]), 422, "shots.0.answer"),
    ("generate", parts(shots=[{"question": [WORD], "answer": units("[Hu")}]), 400, "shots.0.answer.0"),
    ("generate", {"parts": units("[Hu-1]"), "max_new_tokens": 1}, 400, "parts.0"),
    ("generate", {"parts": units("[Hu1]<script>"), "max_new_tokens": 1}, 400, "parts.0"),
    ("generate", {"parts": units("]"), "max_new_tokens": 1}, 400, "parts.0"),
    ("transcribe", {"audio": {"kind": "audio", "data": "=" * 8}}, 422, "audio"),
    ("transcribe", {"audio": {"kind": "audio", "data": "äöü"}}, 422, "audio"),
    ("transcribe", {"audio": {"kind": "audio", "file": "/etc/passwd"}}, 422, "audio"),
    ("say", {"text": "one", "voice": "x"}, 422, "voice"),
    ("say", {"text": "one", "format": "mp3"}, 422, "format"),
    ("classify", {"parts": [WORD], "labels": ["one", " "]}, 400, "labels"),
    ("classify", {"parts": [WORD], "labels": ["one", ""]}, 422, "labels.1"),
    ("classify", {"parts": [WORD], "labels": ["one", " one"]}, 400, "labels"),
    ("classify", {"parts": [], "labels": ["one", "two"]}, 422, "parts"),
]


@pytest.mark.parametrize(("route", "body", "status", "field"), BODIES)
def test_bodies(client: TestClient, route: str, body: dict[str, Any], status: int, field: str) -> None:
    response = client.post(f"/v1/{route}", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["field"]) == (status, field), error
    assert error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize("extreme", [1e-300, 5e-324, 1e-9, 100])
def test_extreme_sampling_is_answered(client: TestClient, extreme: float) -> None:
    for more in (
        {"temperature": extreme},
        {"temperature": 1, "top_p": min(extreme, 1)},
        {"temperature": 1, "top_k": 1},
    ):
        response = client.post("/v1/generate", json={"parts": [WORD], "max_new_tokens": 5, "seed": 3, **more})
        assert response.status_code == 200, response.text


def test_what_is_no_unicode(client: TestClient) -> None:
    kind = {"content-type": "application/json"}
    body = b'{"parts": [{"kind": "text", "text": "%s"}], "max_new_tokens": 1}'
    for text in (b"\xff\xfe", b"\\ud800", b"\x00"):
        response = client.post("/v1/generate", content=body % text, headers=kind)
        assert response.status_code == 422, response.text
    for text in ("\x00", "\u202e", "\U0001f600" * 9):
        response = client.post("/v1/say", json={"text": text, "max_new_tokens": 3, "format": "json"})
        assert response.status_code == 200, response.text
    form = b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n\xff\xff\r\n--x--\r\n'
    response = client.post("/v1/generate", content=form, headers={"content-type": "multipart/form-data; boundary=x"})
    refused(response, 422, "invalid")


def test_a_request_as_a_file_of_the_form(client: TestClient) -> None:
    """As ``curl -F request=@request.json`` sends it."""
    request = json.dumps({"parts": [WORD], "max_new_tokens": 1, "output": "text"}).encode()
    response = client.post("/v1/generate", files={"request": ("request.json", request)})
    assert response.status_code == 200, response.text


def test_deep_json(client: TestClient) -> None:
    body = b'{"parts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = client.post("/v1/generate", content=body, headers={"content-type": "application/json"})
    refused(response, 422, "invalid")


def test_a_playlist_names_no_files_of_the_server(
    client: TestClient, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.wav").write_bytes(clip)
    monkeypatch.chdir(tmp_path)
    for playlist in (b"ffconcat version 1.0\nfile secret.wav\n", b"#EXTM3U\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"):
        refused(client.post("/v1/tokenize", content=playlist, headers=RECORDING), 400, "bad_audio", "cannot be decoded")
