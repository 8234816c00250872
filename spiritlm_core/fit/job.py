"""One fit of a unit model as data, light enough to be built and sent by a process that never loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.config import FrozenConfig
from spiritlm_core.fit.training import FIT_INPUT
from spiritlm_core.lake.plan import load_class
from spiritlm_core.lake.stage import ArtifactStage, Progress, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.config import UnitsCompute


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
        compute: how many processes there are.
    """

    stage: str
    config: FrozenConfig
    models: Mapping[str, Path]
    tables: Mapping[str, TableView]
    work: Path
    out: Path
    compute: UnitsCompute = field(default_factory=UnitsCompute)

    @property
    def stop_file(self) -> None:
        """Fits keep their last checkpoint and need not be asked."""

    def run(self, progress: Progress) -> dict[str, Any]:
        """Fit in this process, one of the ranks of its process group if there is one; resumes from `work`.

        Returns:
            The summary; only that of rank 0 counts.

        Raises:
            SpiritLMError: the fit cannot be done.
        """
        for folder in (self.work, self.out):
            folder.mkdir(parents=True, exist_ok=True)
        stage = load_class(self.stage)(self.config, self.models)
        summary: dict[str, Any] = stage.build(self.tables, self.out, self.work, progress)
        return summary


class UnitFit(ArtifactStage):
    """A model of the speech units that is fitted on the train speech of a corpus, and kept when that grows."""

    inputs: ClassVar[tuple[TableInput, ...]] = (FIT_INPUT,)
    pinned: ClassVar[bool] = True
    processes = "units"
    shared: ClassVar[bool] = False  # whether several processes can fit one model together

    def job(self, compute: UnitsCompute, tables: Mapping[str, TableView], out: Path, work: Path) -> FitJob:
        """The fit for processes of its own; see :class:`ArtifactStage`."""
        processes = compute if self.shared else compute.model_copy(update={"workers": 1})
        stage = f"{type(self).__module__}:{type(self).__qualname__}"
        return FitJob(stage, self.config, self.models, tables, work, out, processes)
