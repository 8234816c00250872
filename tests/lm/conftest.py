"""One small corpus and one trained model for all tests of the package."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import ArchitectureConfig, LmCompute, LmConfig, ModelConfig, OptimizerConfig
from spiritlm_core.tokens.config import TokensConfig
from tests.lm import corpora

MODEL = "spiritlm_core.lm.train.stage:ModelStage"
TINY = ArchitectureConfig(hidden_size=32, layers=2, heads=2, kv_heads=1, ffn_size=64)


def tiny_config(steps: int = 12, **lm: object) -> ModelConfig:
    """Two sequences of 128 tokens a step; with `window` 4 an epoch boundary lies inside a run."""
    values = {"architecture": TINY, "tokens_per_step": 256, "steps": steps, "vocabulary_multiple": 16}
    values["optimizer"] = OptimizerConfig(learning_rate=1e-2, warmup_steps=3)
    tokens = TokensConfig(context_length=128, sequences=corpora.SIZES, window=4)
    return ModelConfig(lm=LmConfig.model_validate({**values, **lm}), tokens=tokens)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.tokenizer(corpora.sentences(200), tmp_path_factory.mktemp("lm") / "tokenizer")


@pytest.fixture(scope="session")
def table(tokenizer: Path) -> pa.Table:
    return corpora.sequences(corpora.sentences(30), tokenizer)


@pytest.fixture(scope="session")
def parquet(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "sequences.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture
def job(parquet: Path, tokenizer: Path, tmp_path: Path) -> FitJob:
    compute = LmCompute(micro_batch=2, checkpoint_every=4, log_every=4)
    config = tiny_config()
    tables = {"sequences": TableView.of_files([parquet])}
    return FitJob(MODEL, config, {"tokenizer": tokenizer}, tables, tmp_path / "work", tmp_path / "out", compute)


@pytest.fixture(scope="session")
def published(table: pa.Table, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for a few steps, as a folder."""
    from spiritlm_core.lm.train.stage import ModelStage

    folder = tmp_path_factory.mktemp("published")
    stage = ModelStage(tiny_config(steps=30), {"tokenizer": tokenizer})
    tables = {"sequences": TableView.of(table)}
    stage.build(tables, folder / "out", folder / "work", lambda _fraction, _message: None)
    return folder / "out"
