"""What one training run is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from spiritlm_core.fit.job import STOP, FitJob
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.lm.train.source import Source


@dataclass(frozen=True)
class Training:
    """Everything that the loop needs.

    Attributes:
        config: what is trained, and on which mix of sequences.
        compute: how it runs.
        source: where training sequences come from.
        tokenizer: folder of the text tokenizer, or of a model with its ``vocabulary.json``.
        base: local folder or ``.gguf`` file of the base model, None for a fresh Llama.
        work: checkpoints go here; shared by all ranks.
        out: the finished model goes here.
        resume_from: start from this checkpoint rather than from the latest in `work`.
    """

    config: ModelConfig
    compute: LmCompute
    source: Source
    tokenizer: Path
    base: Path | None
    work: Path
    out: Path
    resume_from: Path | None = None

    @classmethod
    def of(cls, job: FitJob, config: ModelConfig, source: Source, tokenizer: Path, base: Path | None) -> Self:
        """The training that a job of a stage with ``LmCompute`` asks for."""
        compute = cast("LmCompute", job.compute)
        return cls(config, compute, source, tokenizer, base, job.work, job.out, job.resume_from)

    @property
    def stop_file(self) -> Path:
        """A file that, once it exists, asks the run to save and stop."""
        return self.work / STOP
