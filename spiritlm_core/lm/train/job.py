"""One training run as data, light enough to be built and sent by a process that never loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from spiritlm_core.lake.stage import Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.lm.train.source import CorpusSource, Source


@dataclass(frozen=True)
class Job:
    """Everything a training process needs.

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
    def of_stage(
        cls,
        config: ModelConfig,
        compute: LmCompute,
        models: Mapping[str, Path],
        tables: Mapping[str, TableView],
        out: Path,
        work: Path,
    ) -> Self:
        """The job of the stage ``model``: roles ``tokenizer`` and ``base``, tables ``sequences`` and ``text``."""
        base = models.get("base")
        return cls(
            config=config,
            compute=compute,
            source=CorpusSource(tables["sequences"], config.tokens, tables.get("text")),
            tokenizer=Path(models["tokenizer"]),
            base=None if base is None else Path(base),
            work=work,
            out=out,
        )

    @property
    def stop_file(self) -> Path:
        """A file that, once it exists, asks the run to save and stop."""
        return self.work / "stop"

    def run(self, progress: Progress) -> dict[str, Any]:
        """Train in this process, one of the ranks of its process group if there is one; returns the summary.

        Raises:
            TrainingError: training diverged or cannot be resumed.
        """
        from spiritlm_core.lm.train.loop import train

        return train(self, progress)
