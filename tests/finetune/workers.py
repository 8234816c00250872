"""One rank of a fine-tuning with adapters: ``torchrun workers.py BASE EXAMPLES FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from spiritlm_core.cores import process_group
from spiritlm_core.finetune.artifact_stages import FinetuneStage
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, LoraConfig
from tests.finetune.makers import tuning


def main(base: Path, examples: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    compute = LmCompute(micro_batch=2, use_gpu=False)
    stage = FinetuneStage(tuning(8, lora=LoraConfig(rank=4, train_embeddings=True)), {"base": base})
    tables = {"task_examples": TableView.of_files([examples])}
    with process_group():
        FitJob.of(stage, tables, folder / "out", folder / "work", compute).run(lambda *_: None)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
