"""A small model that knows a few units, and tasks over them that can be learnt in seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.config import FrozenConfig
from spiritlm_core.finetune.config import ContextConfig, DataConfig, ExamplesConfig, SplitConfig, TuningConfig
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.rows import TASK_ROWS
from spiritlm_core.finetune.stage import TaskExamplesStage, TaskUnitsStage
from spiritlm_core.finetune.template import Template, find_template
from spiritlm_core.finetune.train_stage import FinetuneStage
from spiritlm_core.fit.job import FitJob
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, LmConfig, OptimizerConfig
from tests.lm.conftest import published, table, tokenizer
from tests.speech.encoders.test_hubert import small
from tests.speech.synthetic import vowel

__all__ = ["published", "table", "tokenizer"]
LABELS = {"low": 0, "middle": 20, "high": 40}
TOKENS = ContextConfig(context_length=64, window=4)


COMPUTE = LmCompute(micro_batch=8, checkpoint_every=10, log_every=50)


def tuning(steps: int = 200, **lm: Any) -> TuningConfig:
    rates = OptimizerConfig(learning_rate=1e-2, warmup_steps=10)
    values = {"tokens_per_step": 512, "steps": steps, "optimizer": rates, "validate_every": 40, "seed": 1}
    return TuningConfig(lm=LmConfig.model_validate({**values, **lm}), tokens=TOKENS)


def tune(config: TuningConfig, base: Path, examples: TableView, folder: Path) -> dict[str, Any]:
    stage = FinetuneStage(config, {"base": base})
    tables = {"task_examples": examples}
    return FitJob.of(stage, tables, folder / "out", folder / "work", COMPUTE).run(lambda *_: None)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def spoken(label: str, rng: np.random.Generator, units: int = 8) -> str:
    """Speech tokens whose phonetic units lie in one of three ranges; a few of them lie anywhere."""
    found = LABELS[label] + rng.integers(0, 20, units)
    found = np.where(rng.random(units) < 0.15, rng.integers(0, 60, units), found)
    return "[St1][Pi2]" + "".join(f"[Hu{unit}]" for unit in found)


def labelled(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    labels = [str(rng.choice(list(LABELS))) for _ in range(count)]
    return [{"audio": spoken(label, rng), "label": label} for label in labels]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def examples_of(
    data: Path, base: Path, template: Template, share: float = 0.2, length: int = 64, **models: Path
) -> TableView:
    """The table of examples, as the two stages make it."""
    rows = read_rows(DataConfig(path=str(data)), template, StatCache())
    units = TaskUnitsStage(FrozenConfig(), models).process(items_table(rows, TASK_ROWS))
    config = ExamplesConfig(
        question=template.question,
        answer=template.answer,
        labels=template.labels,
        context_length=length,
        split=SplitConfig(held_out_share=share),
    )
    stage = TaskExamplesStage(config, {"base": base})
    stage.setup()
    return TableView.of(stage.process(units))


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

    hubert, quantizer = tmp_path_factory.mktemp("hubert"), tmp_path_factory.mktemp("quantizer")
    sounds = [sound(label, seed) for label in LABELS for seed in range(4)]
    frames = np.concatenate(layer_frames(load_encoder(small(hubert), 1), sounds, 1))
    mean, scale = frames.mean(axis=0), frames.std(axis=0)
    centres = ((frames - mean) / scale)[:: len(frames) // 24][:24]
    KMeans(centres, mean, scale, {"layer": 1}).save(quantizer / QUANTIZER_FILE)
    folder = tmp_path_factory.mktemp("speech") / "speech_tokenizer"
    write_speech_tokenizer(folder, {"hubert": hubert, "quantizer": quantizer}, {"hubert": 24})
    return folder


@pytest.fixture(scope="session")
def base(published: Path, speech_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its speech tokenizer beside it."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(published, folder)
    shutil.copytree(speech_tokenizer, folder / "speech_tokenizer")
    return folder


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
