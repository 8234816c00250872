"""A small model that hears and speaks, one that cannot speak, and the HTTP interface over both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.routes import create_app
from tests.serve.limits import HOME, LIMITS
from tests.support.small_model import sound


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def spirit(speaking: Path) -> SpiritLM:
    return SpiritLM.from_pretrained(speaking, "cpu")


@pytest.fixture(scope="session")
def mute(base: Path) -> SpiritLM:
    return SpiritLM.from_pretrained(base, "cpu")


@pytest.fixture(scope="session")
def clip() -> bytes:
    """A WAV file of 0.6 s."""
    return encode_wav(sound("low", 3))


@pytest.fixture(scope="session")
def engine(spirit: SpiritLM, mute: SpiritLM) -> Iterator[Engine]:
    engine = Engine({"speaking": spirit, "mute": mute}, LIMITS.queue)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(engine, LIMITS), HOME, raise_server_exceptions=False) as client:
        yield client
