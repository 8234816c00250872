"""A small model that knows a few units, and tasks over them that can be learnt in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.finetune.template import find_template
from spiritlm_core.lake.view import TableView
from tests.finetune.makers import examples_of, labelled, tune, tuning, write_lines
from tests.support.small_model import LABELS, sound


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def classification(published: Path, tmp_path_factory: pytest.TempPathFactory) -> TableView:
    data = write_lines(tmp_path_factory.mktemp("data") / "data.jsonl", labelled(400))
    return examples_of(data, published, find_template("classification"))


@pytest.fixture(scope="session")
def tuned(published: Path, classification: TableView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after fine-tuning all its weights."""
    folder = tmp_path_factory.mktemp("tuned")
    assert tune(tuning(), published, classification, folder)["steps"] == 200
    return folder / "out"


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines that name sound files; one file is missing, one is no sound, one row has no label."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = []
    for number in range(48):
        label = list(LABELS)[number % 3]
        (folder / f"{number}.flac").write_bytes(encode_flac(sound(label, 100 + number)))
        rows.append({"wav": f"{number}.flac", "label": label})
    (folder / "noise.flac").write_bytes(b"no sound at all")
    rows += [{"wav": "gone.flac", "label": "low"}, {"wav": "noise.flac", "label": "low"}, {"wav": "0.flac"}]
    return write_lines(folder / "data.jsonl", rows)
