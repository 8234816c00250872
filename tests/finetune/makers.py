"""Rows, examples and fine-tunings of the small model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from spiritlm_core.config import FrozenConfig
from spiritlm_core.finetune.artifact_stages import FinetuneStage
from spiritlm_core.finetune.config import ContextConfig, DataConfig, ExamplesConfig, SplitConfig, TuningConfig
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.rows import TASK_ROWS
from spiritlm_core.finetune.stage import TaskExamplesStage, TaskUnitsStage
from spiritlm_core.finetune.template import Template
from spiritlm_core.fit.job import FitJob
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, LmConfig, OptimizerConfig
from tests.support.small_model import LABELS

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
