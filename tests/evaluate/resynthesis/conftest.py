"""Clips of real speech, a speech tokenizer with a vocoder that was never trained, and the models that listen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.evaluate.config import RECOGNISER, SPEAKER_ENCODER
from spiritlm_core.references.reference import resolve
from tests.vocoder.models import EXPRESSIVE, build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer_folder(models, tmp_path_factory):
    """A speech tokenizer folder with a seeded vocoder."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for role, path in models.items():
        (folder / role).symlink_to(path)
    (folder / "config.json").write_text("{}")
    vocoder = build(EXPRESSIVE.model_copy(update={"units": 20, "style_units": 4})).model
    torch.nn.init.constant_(vocoder.durations.last.bias, 0.5)  # short: less to listen to
    vocoder.save(folder / "vocoder")
    return folder


def _fetched(reference):
    try:
        return resolve(reference).path
    except ModelReferenceError as error:
        pytest.skip(f"the model cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def asr():
    return _fetched(RECOGNISER)


@pytest.fixture(scope="session")
def speaker_encoder():
    return _fetched(SPEAKER_ENCODER)
