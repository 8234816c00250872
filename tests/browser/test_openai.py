"""OpenAI's JavaScript client in Node.js gets what the Python one gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.lm.generate.presets import ask
from tests.support.serving import Served, served
from tests.support.small_model import sound

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(speaking: Path) -> Iterator[Served]:
    with served(speaking, "--no-page", "--token", "a-secret") as found:
        yield found


def test_the_client_of_npm(server: Served, driven: Callable[..., dict], speaking: Path, tmp_path: Path) -> None:
    clip = encode_wav(sound("low", 3))
    (tmp_path / "clip.wav").write_bytes(clip)
    seen = driven("openai", server, clip=str(tmp_path / "clip.wav"), token="a-secret")  # noqa: S106
    spirit = SpiritLM.from_pretrained(speaking, "cpu")
    (heard,) = ask(spirit, "asr", [clip], max_new_tokens=200)
    assert seen["text"] == spirit.generate("press one", "text", max_new_tokens=20).text
    assert seen["streamed"].strip() == seen["text"]
    assert seen["heard"] == spirit.generate([clip], "text", max_new_tokens=20).text
    assert seen["spoken"] > 1000
    assert seen["flac"] == "fLaC"
    assert seen["transcript"] == heard.text
    assert seen["subtitles"].startswith("WEBVTT")
    assert seen["refused"] == {"status": 400, "param": "n", "code": "unsupported_parameter", "kind": "BadRequestError"}
