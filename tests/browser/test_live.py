"""Talking with a model in a real browser, whose fake microphone says one word again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.audio.voices.spoken import speak
from tests.support.serving import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]
SILENCE = np.zeros(32_000, np.float32)


@pytest.fixture(scope="module")
def server(speaking: Path) -> Iterator[Served]:
    with served(speaking, "--max-seconds", 20) as found:
        yield found


@pytest.fixture(scope="module")
def seen(server: Served, driven: Callable[..., dict], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the script saw."""
    pytest.importorskip("espeakng_loader")
    word, _ = speak("speak://espeak/en-us?rate=150&pitch=50&range=50&text=yesterday")
    clip = tmp_path_factory.mktemp("files") / "word.wav"
    clip.write_bytes(encode_wav(np.concatenate([SILENCE, np.asarray(word, np.float32), SILENCE])))
    return driven("live", server, clip=str(clip))


def test_who_talks_is_heard_and_answered(seen: dict) -> None:
    assert seen["turn"].startswith("♪")
    assert seen["spoken"].startswith("♪")
    assert seen["written"]
    assert seen["within"].startswith("♪")


def test_who_talks_again_ends_what_is_played(seen: dict) -> None:
    assert seen["played"] == 0
    assert seen["stopped"] == "Talk"


def test_nothing_is_wider_than_a_phone_and_nothing_comes_from_elsewhere(seen: dict) -> None:
    assert seen["narrow"]
    assert seen["outside"] == []
    assert seen["errors"] == []


def test_the_server_ends(seen: dict, server: Served) -> None:
    """Although somebody still talks."""
    assert server.end() == 0
    assert "Traceback" not in "".join(server.lines)
