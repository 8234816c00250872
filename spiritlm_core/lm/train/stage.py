"""The stage ``model``: trains the language model."""

from typing import Any, ClassVar

from spiritlm_core.fit.config import FitCompute
from spiritlm_core.fit.job import FitJob, JobStage
from spiritlm_core.lake.stage import Progress, Resources, TableInput
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.lm.train.source import CorpusSource, Training


class ModelStage(JobStage):
    """Trains on the train split of ``sequences`` and ``text``; the artifact is a Hugging Face folder.

    Model roles: ``tokenizer`` (folder of the text tokenizer); for a warm start ``base`` (folder or ``.gguf``); where
    rows of units start from cluster centres, ``quantizer``.
    """

    name: ClassVar[str] = "model"
    about: ClassVar[str] = "the language model"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("sequences"), TableInput("text", optional=True))
    resources: ClassVar[Resources] = Resources(num_cpus=1)

    processes = "training"
    compute: ClassVar[type[FitCompute]] = LmCompute
    config: ModelConfig

    def run_job(self, job: FitJob, progress: Progress) -> dict[str, Any]:
        """Train and write the folder; resumes from the checkpoints in `work`.

        Raises TrainingError: training diverged, or was asked to stop; CheckpointError: a checkpoint in `work` cannot be
        loaded.
        """
        from spiritlm_core.lm.train.loop import train

        source = CorpusSource(job.tables["sequences"], self.config.tokens, job.tables.get("text"))
        return train(Training(job, self.config, source), progress)
