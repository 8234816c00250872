"""Small vocoders with seeded random weights."""

import os
from collections.abc import Iterator

import pytest
import torch

from spiritlm_core.speech.vocoder.vocoder import Vocoder
from tests.vocoder.models import BASE, EXPRESSIVE, FOURIER, build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=["base", "expressive", "fourier"])
def vocoder(request: pytest.FixtureRequest) -> Vocoder:
    return build({"base": BASE, "expressive": EXPRESSIVE, "fourier": FOURIER}[request.param])


@pytest.fixture(scope="session")
def expressive() -> Vocoder:
    return build(EXPRESSIVE)
