"""One fit as data, light enough to be built and sent by a process that never loads torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import TrainingError
from spiritlm_core.fit.clips import FIT_INPUT
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.lake.plan import load_class
from spiritlm_core.lake.stage import ArtifactStage, Progress, TableInput
from spiritlm_core.lake.view import TableView

STOP = "stop"
"""Name of the file in the work folder that asks a job to save and stop."""


@dataclass(frozen=True)
class FitJob:
    """Everything a process that fits needs.

    Attributes:
        stage: ``package.module:Class`` of the stage.
        config: its configuration.
        models: role → local folder or file.
        tables: table → view.
        work: checkpoints go here; shared by all ranks.
        out: the fitted model goes here.
        compute: how many processes there are, and what each gets.
        resume_from: a checkpoint to start from, rather than the latest in `work`; only a :class:`JobStage` can.
    """

    stage: str
    config: FrozenConfig
    models: Mapping[str, Path]
    tables: Mapping[str, TableView]
    work: Path
    out: Path
    compute: FitCompute = field(default_factory=FitCompute)
    resume_from: Path | None = None

    @classmethod
    def of(
        cls, stage: ArtifactStage, tables: Mapping[str, TableView], out: Path, work: Path, compute: FitCompute
    ) -> Self:
        """The build of a stage, by one process if several cannot share it."""
        compute = compute if stage.shared else compute.model_copy(update={"workers": 1})
        path = f"{type(stage).__module__}:{type(stage).__qualname__}"
        return cls(path, stage.config, stage.models, tables, work, out, compute)

    @property
    def stop_file(self) -> Path | None:
        """A file that, once it exists, makes the job save and stop; None if it need not be asked, and goes on."""
        return self.work / STOP if issubclass(load_class(self.stage), JobStage) else None

    def run(self, progress: Progress) -> dict[str, Any]:
        """Fit in this process, one of the ranks of its process group if there is one; resumes from `work`.

        Returns:
            The summary; only that of rank 0 counts.

        Raises:
            SpiritLMError: the fit cannot be done.
        """
        if self.compute.use_gpu:
            import torch

            if not torch.cuda.is_available():
                raise TrainingError("the recipe's `compute` says use_gpu: true, but torch sees no GPU here")
        stage = load_class(self.stage)(self.config, self.models)
        if isinstance(stage, JobStage):
            return stage.run_job(self, progress)
        for folder in (self.work, self.out):
            folder.mkdir(parents=True, exist_ok=True)
        summary: dict[str, Any] = stage.build(self.tables, self.out, self.work, progress)
        return summary


class JobStage(ArtifactStage):
    """A stage whose build follows its job: it runs as `compute` says, and saves and stops when it is asked to."""

    compute: ClassVar[type[FitCompute]] = FitCompute

    @abstractmethod
    def run_job(self, job: FitJob, progress: Progress) -> dict[str, Any]:
        """See :meth:`FitJob.run`; `job` is of this stage."""

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Fit in this process with the defaults of `compute`; see :meth:`ArtifactStage.build`."""
        return self.run_job(FitJob.of(self, tables, out, work, self.compute()), progress)


class UnitFit(ArtifactStage):
    """A model of the speech units that is fitted on the train speech of a corpus, and kept when that grows."""

    inputs: ClassVar[tuple[TableInput, ...]] = (FIT_INPUT,)
    pinned: ClassVar[bool] = True
    processes = "units"
    shared: ClassVar[bool] = False
