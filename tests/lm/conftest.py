"""One small corpus and one trained model for all tests of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute
from tests.support.small_model import tiny_config

MODEL = "spiritlm_core.lm.train.stage:ModelStage"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def job(parquet: Path, tokenizer: Path, tmp_path: Path) -> FitJob:
    compute = LmCompute(micro_batch=2, checkpoint_every=4, log_every=4)
    config = tiny_config()
    tables = {"sequences": TableView.of_files([parquet])}
    return FitJob(MODEL, config, {"tokenizer": tokenizer}, tables, tmp_path / "work", tmp_path / "out", compute)
