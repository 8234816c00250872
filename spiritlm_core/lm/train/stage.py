"""The stage ``model``: trains the language model in this process, or as a :class:`Job` in others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.lake.stage import ArtifactStage, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.lm.train.job import Job


class ModelStage(ArtifactStage):
    """Trains on the train split of ``sequences`` and ``text``; the artifact is a Hugging Face folder.

    Model roles: ``tokenizer`` (folder of the text tokenizer) and, for a warm start, ``base`` (folder or ``.gguf``).
    """

    name: ClassVar[str] = "model"
    about: ClassVar[str] = "the language model"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("sequences"), TableInput("text", optional=True))
    resources: ClassVar[Resources] = Resources(num_cpus=1)

    processes = "training"
    config: ModelConfig

    def job(self, compute: LmCompute, tables: Mapping[str, TableView], out: Path, work: Path) -> Job:
        """The training as a job that several processes can run."""
        return Job.of_stage(self.config, compute, self.models, tables, out, work)

    def build(
        self,
        tables: Mapping[str, TableView],
        out: Path,
        work: Path,
        progress: Progress,
        compute: LmCompute | None = None,
    ) -> dict[str, Any]:
        """Train in this process and write the folder; resumes from the checkpoints in `work`.

        Raises:
            TrainingError: training diverged, or was asked to stop.
            CheckpointError: a checkpoint in `work` cannot be loaded.
        """
        from spiritlm_core.lm.train.loop import train

        return train(self.job(compute or LmCompute(), tables, out, work), progress)
