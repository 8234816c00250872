"""A small model that hears and speaks, made once for all tests that ask for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import ArchitectureConfig, LmConfig, ModelConfig, OptimizerConfig
from spiritlm_core.tokens.config import TokensConfig
from tests.lm import corpora
from tests.speech.synthetic import vowel

TINY = ArchitectureConfig(hidden_size=32, layers=2, heads=2, kv_heads=1, ffn_size=64)


def tiny_config(steps: int = 12, **lm: object) -> ModelConfig:
    """Two sequences of 128 tokens a step; with `window` 4 an epoch boundary lies inside a run."""
    values = {"architecture": TINY, "tokens_per_step": 256, "steps": steps, "vocabulary_multiple": 16}
    values["optimizer"] = OptimizerConfig(learning_rate=1e-2, warmup_steps=3)
    tokens = TokensConfig(context_length=128, sequences=corpora.SIZES, window=4)
    return ModelConfig(lm=LmConfig.model_validate({**values, **lm}), tokens=tokens)


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


@pytest.fixture(scope="session")
def published(table: pa.Table, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for a few steps, as a folder."""
    from spiritlm_core.lm.train.stage import ModelStage

    folder = tmp_path_factory.mktemp("published")
    stage = ModelStage(tiny_config(steps=30), {"tokenizer": tokenizer})
    tables = {"sequences": TableView.of(table)}
    stage.build(tables, folder / "out", folder / "work", lambda *_: None)
    return folder / "out"


LABELS = {"low": 0, "middle": 20, "high": 40}


def sound(label: str, seed: int, seconds: float = 0.6) -> np.ndarray:
    """A vowel, another one for each label, with a pitch and noise of its own."""
    rng = np.random.default_rng(seed)
    formants = dict(zip(LABELS, ((700, 1200), (300, 2300), (350, 800)), strict=True))[label]
    first, last = rng.uniform(110, 220, 2)
    wave = vowel(seconds, first, last, formants)
    return (wave + 0.002 * rng.standard_normal(len(wave))).astype(np.float32)


@pytest.fixture(scope="session")
def speech_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained HuBERT, whose frames still differ from vowel to vowel, and a quantizer for them."""
    from spiritlm_core.speech.encoders.encoder import layer_frames
    from spiritlm_core.speech.encoders.registry import load_encoder
    from spiritlm_core.speech.folder import write_speech_tokenizer
    from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, KMeans
    from tests.speech.models import small

    hubert, quantizer = tmp_path_factory.mktemp("hubert"), tmp_path_factory.mktemp("quantizer")
    sounds = [sound(label, seed) for label in LABELS for seed in range(4)]
    frames = np.concatenate(layer_frames(load_encoder(small(hubert), 1), sounds, 1))
    mean, scale = frames.mean(axis=0), frames.std(axis=0)
    centres = ((frames - mean) / scale)[:: len(frames) // 24][:24]
    KMeans(centres, mean, scale, {"layer": 1}).save(quantizer / QUANTIZER_FILE)
    folder = tmp_path_factory.mktemp("speech") / "speech_tokenizer"
    write_speech_tokenizer(folder, {"hubert": hubert, "quantizer": quantizer})
    return folder


@pytest.fixture(scope="session")
def base(published: Path, speech_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its speech tokenizer beside it."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(published, folder)
    shutil.copytree(speech_tokenizer, folder / "speech_tokenizer")
    return folder


@pytest.fixture(scope="session")
def speaking(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose speech tokenizer has a vocoder."""
    from tests.vocoder.models import BASE, build

    folder = tmp_path_factory.mktemp("speaking") / "speaking"
    shutil.copytree(base, folder)
    vocoder = folder / "speech_tokenizer" / "vocoder"
    vocoder.mkdir()
    build(BASE.model_copy(update={"speaker_names": ("ann", "bo", "cy")})).model.save(vocoder)
    return folder
