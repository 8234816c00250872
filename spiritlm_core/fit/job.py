"""One fit as data, light enough to be built and sent by a process that never loads torch; and its command line."""

import argparse
import json
import logging
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from spiritlm_core.config import FrozenConfig
from spiritlm_core.cores import process_group
from spiritlm_core.errors import SpiritLMError, TrainingError
from spiritlm_core.fit.clips import FIT_INPUT
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.lake.plan import load_class
from spiritlm_core.lake.stage import ArtifactStage, Progress, TableInput
from spiritlm_core.lake.view import TableView

STOP = "stop"  # name of the file in the work folder that asks a job to save and stop


@dataclass(frozen=True)
class FitJob:
    """Everything a process that fits needs."""

    stage: str  # ``package.module:Class`` of the stage
    config: FrozenConfig  # its configuration
    models: Mapping[str, Path]  # role → local folder or file
    tables: Mapping[str, TableView]  # table → view
    work: Path  # checkpoints go here; shared by all ranks
    out: Path  # the fitted model goes here
    compute: FitCompute = field(default_factory=FitCompute)  # how many processes there are, and what each gets
    resume_from: Path | None = None
    """A checkpoint to start from, rather than the latest in `work`; only a :class:`JobStage` can."""

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

        Returns the summary; only that of rank 0 counts. Raises SpiritLMError: the fit cannot be done.
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
        return stage.build(self.tables, self.out, self.work, progress)


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
    fitted_by: ClassVar[str]  # ``package.module:function``, which is given the configuration, the job and `progress`

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Fit; a killed build goes on from its last checkpoint and ends with the same weights."""
        return load_class(self.fitted_by)(self.config, FitJob.of(self, tables, out, work, FitCompute()), progress)


def main(program: str, about: str, read_job: Callable[[Path], FitJob]) -> int:
    """Run the job in the file named on the command line; returns the exit status.

    The first process writes the summary to standard output as JSON, and progress to standard error.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about.partition("\n")[0])
    parser.add_argument("file", type=Path, help="YAML or JSON file with the arguments")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    first = os.environ.get("RANK", "0") == "0"

    def report(fraction: float, message: str) -> None:
        if first:
            logging.getLogger(program).info("%3.0f %% %s", 100 * fraction, message)

    try:
        job = read_job(parser.parse_args().file)
        with process_group():
            summary = job.run(report)
    except SpiritLMError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if first:
        sys.stdout.write(json.dumps(summary) + "\n")
    return 0
