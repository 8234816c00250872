"""Fit a unit model or a vocoder without Prefect and Ray: ``torchrun --nproc-per-node 8 -m spiritlm_core.speech FILE``.

The file holds what the stage is given; one process needs no ``torchrun``::

    stage: hubert            # hubert, quantizer, pitch, style or vocoder; several processes help hubert and vocoder
    config: {steps: [1000]}  # its configuration, the section of that name below `units` in a recipe
    audio: [part-0.parquet]  # files of the table `audio`
    units: []                # vocoder: files of the table `units`
    words: []                # quantizer that keeps `directions`: files of the table `words`
    models: {}               # role: folder; quantizer, style: hubert; hubert: labels; vocoder: hubert and quantizer
    work: work/              # checkpoints; run again to go on from the last one
    out: hubert/             # the fitted model
"""

import sys
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationError

from spiritlm_core.config import FrozenConfig
from spiritlm_core.config_files import load_config_file
from spiritlm_core.errors import RecipeError
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.fit.job import FitJob, main
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.fits import HubertFit, PitchFit, QuantizerFit, StyleFit, VocoderFit

STAGES = {stage.name: stage for stage in (HubertFit, QuantizerFit, PitchFit, StyleFit, VocoderFit)}


class Arguments(FrozenConfig):
    """The content of the file."""

    stage: Literal["hubert", "quantizer", "pitch", "style", "vocoder"] = Field(description="What is fitted")
    config: dict[str, Any] = Field(default_factory=dict, description="The stage's configuration")
    audio: tuple[Path, ...] = Field(min_length=1, description="Parquet files of the table `audio`")
    units: tuple[Path, ...] = Field((), description="Parquet files of the table `units`")
    words: tuple[Path, ...] = Field((), description="Parquet files of the table `words`")
    models: dict[str, Path] = Field(default_factory=dict, description="Role: folder")
    work: Path = Field(description="Checkpoints")
    out: Path = Field(description="The fitted model")


def read_job(path: Path) -> FitJob:
    """Read a YAML or JSON file of :class:`Arguments`.

    Raises RecipeError: the file is missing, or something in it is wrong.
    """
    given = load_config_file(Arguments, path, "job")
    try:
        stage = STAGES[given.stage]
        config = get_annotations(stage)["config"].model_validate(given.config)
        files = {"audio": given.audio, "units": given.units, "words": given.words}
        tables = {name: TableView.of_files(paths) for name, paths in files.items()}
        return FitJob.of(stage(config, given.models), tables, given.out, given.work, FitCompute())
    except (OSError, ValidationError, pa.ArrowException) as error:
        raise RecipeError(f"{path}: {error}") from error


if __name__ == "__main__":
    sys.exit(main("spiritlm_core.speech", __doc__ or "", read_job))
