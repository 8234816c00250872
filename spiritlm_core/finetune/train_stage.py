"""The stage ``finetuned``: trains the base model further on the examples of a task, all weights or adapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from spiritlm_core.errors import NothingToTrainOnError
from spiritlm_core.finetune.config import TuningConfig
from spiritlm_core.finetune.rows import commonest
from spiritlm_core.finetune.source import ExampleSource
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.fit.job import FitJob, JobStage
from spiritlm_core.lake.schema import is_rejected
from spiritlm_core.lake.shard import reason_group
from spiritlm_core.lake.stage import Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.lm.train.source import Training
from spiritlm_core.tokens.config import SequencesConfig, TokensConfig
from spiritlm_core.tokens.hf import load_vocabulary


class FinetuneStage(JobStage):
    """Trains on the train split of ``task_examples``; the artifact is a Hugging Face folder, or adapters of peft.

    Model role: ``base``, the folder of a model of this project.
    """

    name: ClassVar[str] = "finetuned"
    about: ClassVar[str] = "the model, trained further"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("task_examples"),)
    resources: ClassVar[Resources] = Resources(num_cpus=1)
    processes = "training"
    compute: ClassVar[type[FitCompute]] = LmCompute
    config: TuningConfig

    @classmethod
    def check(cls, tables: Mapping[str, TableView], say: Callable[[str], None]) -> None:
        """Say before the training what it will lack. Raises NothingToTrainOnError if no example is left."""
        splits: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for shard in tables["task_examples"].shards(("split", "reject_stage", "reject_reason")):
            for row in shard.to_pylist():
                if is_rejected(row):
                    reasons[reason_group(row["reject_reason"])] += 1
                else:
                    splits[row["split"]] += 1
        rejected, rows = reasons.total(), reasons.total() + splits.total()
        lost = f"{rejected} of {rows} rows were rejected" + (f" ({commonest(reasons)})" if rejected else "")
        if not splits["train"]:
            raise NothingToTrainOnError(f"no row is left to train on: {lost}, {splits['held_out']} are held out")
        if 2 * rejected >= rows:
            say(f"  warning: {lost}")
        if not splits["held_out"]:
            say("  warning: no example is held out, so there will be no figures: see data.split")

    def run_job(self, job: FitJob, progress: Progress) -> dict[str, Any]:
        """Train and write the folder; resumes from the checkpoints in `work`.

        Raises:
            TrainingError: training diverged, or was asked to stop.
            NothingToTrainOnError: no example is left to train on.
        """
        from spiritlm_core.lm.train.loop import train

        base, settings = self.models["base"], self.config.tokens
        vocabulary = load_vocabulary(base)
        sizes = SequencesConfig(hubert=vocabulary.hubert, pitch=vocabulary.pitch, style=vocabulary.style)
        tokens = TokensConfig(context_length=settings.context_length, window=settings.window, sequences=sizes)
        config = ModelConfig(lm=self.config.lm, tokens=tokens)
        source = ExampleSource(job.tables["task_examples"], settings)
        return train(Training.of(job, config, source, base, base), progress)
