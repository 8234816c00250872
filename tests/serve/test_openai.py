"""OpenAI's own Python client, unchanged but for the address, gets what SpiritLM gives."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import soundfile
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsBase
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.lm.generate.content import Answer, SpeechSegment
from spiritlm_core.lm.generate.presets import ask
from spiritlm_core.serve.openai.schema import ChatRequest, OpenAIRequest, SpeechRequest, TranscriptionRequest
from tests.support.serving import Served, served
from tests.support.small_model import sound
from tests.support.watching import PATIENCE, wait_for

pytestmark = pytest.mark.integration
WORD = {"role": "user", "content": "press one"}
FORMATS = ("wav", "pcm", "flac", "opus", "mp3", "aac")


@pytest.fixture(scope="module")
def server(speaking: Path) -> Iterator[Served]:
    with served(speaking, "--no-page", "--max-new-tokens", 40, "--max-seconds", 2) as found:
        yield found
        assert found.end() == 0
        assert "Traceback" not in "".join(found.lines)


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    (one,) = client.models.list()
    assert client.models.retrieve(one.id) == one
    return one.id


@pytest.fixture(scope="module")
def seed(spirit: SpiritLM) -> int:
    """One with which the model, which has learned little, writes several words."""
    options = {"max_new_tokens": 20, "temperature": 1.0}
    return next(n for n in range(500) if len(spirit.generate("press one", "text", seed=n, **options).text.split()) > 2)


def audio_part(clip: bytes) -> dict:
    data = base64.b64encode(clip).decode()
    return {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]}


def test_text_is_that_of_the_model(client: openai.OpenAI, model: str, spirit: SpiritLM, clip: bytes) -> None:
    options = {"temperature": 1.0, "seed": 3}
    messages = [{"role": "system", "content": "one"}, WORD, audio_part(clip)]
    found = client.chat.completions.create(model=model, messages=messages, max_tokens=20, **options)
    want = spirit.generate(["one", "press one", clip], "text", max_new_tokens=20, **options)
    assert (found.model, found.choices[0].message.content) == (model, want.text)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(want.prompt_ids), len(want.ids))
    assert found.choices[0].finish_reason == ("length" if want.finish == "length" else "stop")


def test_streamed_text_is_the_same(client: openai.OpenAI, model: str, seed: int) -> None:
    request = {"model": model, "messages": [WORD], "max_completion_tokens": 20, "temperature": 1.0, "seed": seed}
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said.strip() == whole.choices[0].message.content
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 2
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_speech_of_an_answer_and_a_turn_about_it(client: openai.OpenAI, model: str, spirit: SpiritLM) -> None:
    spoken = {"modalities": ["audio"], "audio": {"voice": "cy", "format": "wav"}, "max_tokens": 30}
    message = client.chat.completions.create(model=model, messages=[WORD], **spoken).choices[0].message
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(message.audio.data)), dtype="float32")
    want = spirit.generate("press one", "speech", max_new_tokens=30)
    assert rate == 16_000
    assert np.abs(heard - want[0].waveform(2).clip(-1, 1)).max() < 1e-4
    back = [WORD, {"role": "assistant", "audio": {"id": message.audio.id}}]
    more = client.chat.completions.create(model=model, messages=back, max_tokens=5)
    follows = spirit.generate(["press one", SpeechSegment(want.tokens)], "text", max_new_tokens=5)
    assert more.choices[0].message.content == follows.text
    assert more.usage.prompt_tokens == len(follows.prompt_ids)


def test_text_and_speech_are_one_answer_written_and_said(
    client: openai.OpenAI, model: str, spirit: SpiritLM, seed: int
) -> None:
    options = {"temperature": 1.0, "seed": seed}
    request = {"model": model, "messages": [WORD], "max_tokens": 20, "modalities": ["text", "audio"], **options}
    message = client.chat.completions.create(**request, audio={"voice": "alloy", "format": "flac"}).choices[0].message
    assert message.audio.transcript == spirit.generate("press one", "text", max_new_tokens=20, **options).text
    (said,) = ask(spirit, "tts", [message.audio.transcript], max_new_tokens=20, **options)
    whole = as_waveform(base64.b64decode(message.audio.data))
    assert np.abs(whole - spirit.speech_tokenizer.decode(said.tokens)).max() < 1e-3
    chunks = list(client.chat.completions.create(**request, audio={"voice": "alloy", "format": "pcm16"}, stream=True))
    audio = [chunk.choices[0].delta.audio for chunk in chunks if chunk.choices[0].delta.audio]
    assert "".join(part.transcript or "" for part in audio).strip() == message.audio.transcript
    pcm = b"".join(base64.b64decode(part.data or "") for part in audio)
    assert abs(len(pcm) / 2 / 24_000 - len(whole) / 16_000) < 0.1
    assert audio[-1].id == message.audio.id


@pytest.mark.parametrize("kind", FORMATS)
def test_speech_comes_in_every_format(client: openai.OpenAI, model: str, kind: str, tmp_path: Path) -> None:
    said = client.audio.speech.create(model=model, voice="bo", input="press one", response_format=kind)
    said.write_to_file(tmp_path / "said")
    data = (tmp_path / "said").read_bytes()
    if kind == "pcm":
        data = _wav(data)
    plain = client.audio.speech.create(model="tts-1", voice="bo", input="press one", response_format="wav").read()
    want, found = as_waveform(plain), as_waveform(data)
    assert abs(len(found) - len(want)) < 3000  # an encoder may pad
    assert np.std(found) == pytest.approx(np.std(want), rel=0.2)


def _wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 24_000, 0, "NONE", ""))
        out.writeframes(pcm)
    return file.getvalue()


def _understood(spirit: SpiritLM) -> Iterator[tuple[bytes, float, Answer]]:
    """Recordings of 0.6 s in which the model, which has learned little, hears something, and how hot it must be."""
    for temperature, number in product((0.0, 1.0, 2.0), range(20)):
        clip = encode_wav(sound("low", number))
        (answer,) = ask(spirit, "asr", [clip], max_new_tokens=40, temperature=temperature)
        if answer.text:
            yield clip, temperature, answer


def test_speech_streams(client: openai.OpenAI, server: Served, model: str) -> None:
    request = {"model": model, "voice": "alloy", "input": "press one"}
    with client.audio.speech.with_streaming_response.create(**request, response_format="pcm") as said:
        assert said.headers["content-type"] == "audio/pcm"
        assert "content-length" not in said.headers
        whole = b"".join(said.iter_bytes())
    assert len(whole) > 4800
    body = {**request, "response_format": "pcm", "stream_format": "sse"}
    lines = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=PATIENCE).text.split("\n\n")
    assert '"speech.audio.done"' in lines[-2]
    assert all('"speech.audio.delta"' in line for line in lines[:-2])


def test_transcripts(client: openai.OpenAI, model: str, spirit: SpiritLM) -> None:
    clip, temperature, want = next(_understood(spirit))
    file = ("clip.wav", clip)
    create = partial(client.audio.transcriptions.create, temperature=temperature)
    assert create(model=model, file=file).text == want.text
    assert create(model=model, file=file, response_format="text") == f"{want.text}\n"
    assert create(model=model, file=file, response_format="srt") == f"1\n00:00:00,000 --> 00:00:00,600\n{want.text}\n"
    assert create(model=model, file=file, response_format="vtt").startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:00.6")
    verbose = create(model="whisper-1", file=file, response_format="verbose_json", language="en")
    assert (verbose.text, verbose.duration, verbose.segments[0].end) == (want.text, 0.6, 0.6)
    events = list(create(model=model, file=file, stream=True))
    once = ask(spirit, "asr", [clip], hearings=1, max_new_tokens=40, temperature=temperature)[0].text
    assert events[-1].text == once
    assert "".join(event.delta for event in events[:-1]).strip() == once


@pytest.mark.parametrize(
    ("call", "error", "param"),
    [
        ({"model": "nothing"}, openai.NotFoundError, "model"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"max_tokens": 4000}, openai.BadRequestError, "max_tokens"),
        ({"n": 2}, openai.BadRequestError, "n"),
        ({"extra_body": {"tempersture": 1}}, openai.BadRequestError, "tempersture"),
        ({"messages": [WORD, audio_part(b"RIFF")]}, openai.BadRequestError, "messages.1.content.0.input_audio"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_x"}}]}, openai.BadRequestError, "messages"),
        ({"modalities": ["audio"], "audio": {"voice": "dan"}}, openai.BadRequestError, "voice"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_an_error_of_the_client(
    client: openai.OpenAI, model: str, call: dict, error: type[openai.APIStatusError], param: str, stream: bool
) -> None:
    with pytest.raises(error) as found:
        client.chat.completions.create(**{"model": model, "messages": [WORD], "stream": stream, **call})
    assert found.value.param == param
    assert found.value.code
    assert set(found.value.body) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("path", "schema", "known"),
    [
        ("/chat/completions", ChatRequest, CompletionCreateParamsBase),
        ("/audio/speech", SpeechRequest, SpeechCreateParams),
        ("/audio/transcriptions", TranscriptionRequest, TranscriptionCreateParamsBase),
    ],
)
def test_every_parameter_of_the_client_is_known_and_may_be_null(
    client: openai.OpenAI, model: str, path: str, schema: type[OpenAIRequest], known: type
) -> None:
    names = set(known.__annotations__) - {"file"}
    assert names <= {*schema.model_fields, *schema.ignored, *schema.neutral}
    if "file" in known.__annotations__:
        return  # a form has no null
    needed = {"model": model, "messages": [WORD], "input": "one", "voice": "alloy", "max_tokens": 1}
    given = {name: needed.get(name) for name in names}
    assert client.post(path, cast_to=httpx.Response, body=given).status_code == 200


def test_other_routes_fail_in_the_same_form(client: openai.OpenAI, model: str, clip: bytes) -> None:
    with pytest.raises(openai.APIStatusError, match="last 2 s"):
        client.audio.transcriptions.create(model=model, file=("long.wav", _wav(bytes(200_000))))
    with pytest.raises(openai.BadRequestError, match="--aligner"):
        client.audio.transcriptions.create(
            model=model, file=("a.wav", clip), response_format="verbose_json", timestamp_granularities=["word"]
        )
    with pytest.raises(openai.BadRequestError, match="speed=2"):
        client.audio.speech.create(model=model, voice="alloy", input="one", speed=2)
    with pytest.raises(openai.BadRequestError, match="larger|boundary|file"):
        client.post(
            "/audio/transcriptions",
            cast_to=object,
            body={},
            options={"headers": {"content-type": "multipart/form-data; boundary=x"}},
        )


@pytest.mark.slow
def test_two_hundred_calls_at_once_are_all_answered(server: Served, model: str, clip: bytes) -> None:
    """The queue holds sixteen: the client waits as long as it is told, and asks again."""

    async def burst(count: int) -> list[object]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", timeout=PATIENCE, max_retries=10_000
        ) as client:
            chat, audio = client.chat.completions.create, client.audio
            kinds = (
                lambda: chat(model=model, messages=[WORD], max_tokens=5),
                lambda: audio.speech.create(model=model, voice="alloy", input="one", response_format="opus"),
                lambda: audio.transcriptions.create(model=model, file=("clip.wav", clip)),
                lambda: chat(model=model, messages=[WORD], max_tokens=5, modalities=["audio"]),
            )
            return await asyncio.gather(*(kinds[i % len(kinds)]() for i in range(count)))

    asyncio.run(burst(40))
    before = server.resident
    answers = asyncio.run(burst(200))
    growth = server.resident - before
    assert len(answers) == 200
    assert growth < 24_000_000, f"{before / 1e6:.0f} MB before, {growth / 1e6:+.1f} MB after"
    wait_for(lambda: server.depth == 0)
