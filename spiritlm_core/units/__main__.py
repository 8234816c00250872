"""Fit one unit model without Prefect and Ray: ``torchrun --nproc-per-node 8 -m spiritlm_core.units job.yaml``.

The file holds what the stage is given; one process needs no ``torchrun``::

    stage: hubert            # hubert, quantizer, pitch or style; several processes help hubert only
    config: {steps: [1000]}  # its configuration, the section of that name below `units` in a recipe
    audio: [part-0.parquet]  # files of the table `audio`
    models: {}               # quantizer and style: {hubert: folder}
    work: work/              # checkpoints; run again to go on from the last one
    out: hubert/             # the fitted model
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import yaml
from pydantic import Field, ValidationError

from spiritlm_core.config import FrozenConfig
from spiritlm_core.cores import process_group
from spiritlm_core.errors import RecipeError, SpiritLMError
from spiritlm_core.lake.view import TableView
from spiritlm_core.units.config import HubertConfig, PitchConfig, QuantizerConfig, StyleConfig
from spiritlm_core.units.job import FitJob

STAGES: dict[str, tuple[str, type[FrozenConfig]]] = {
    "hubert": ("spiritlm_core.units.fit_hubert:HubertFit", HubertConfig),
    "quantizer": ("spiritlm_core.units.fit_quantizer:QuantizerFit", QuantizerConfig),
    "pitch": ("spiritlm_core.units.fit_pitch:PitchFit", PitchConfig),
    "style": ("spiritlm_core.units.fit_style:StyleFit", StyleConfig),
}


class Arguments(FrozenConfig):
    """The content of the file."""

    stage: Literal["hubert", "quantizer", "pitch", "style"] = Field(description="What is fitted")
    config: dict[str, Any] = Field(default_factory=dict, description="The stage's configuration")
    audio: tuple[Path, ...] = Field(min_length=1, description="Parquet files of the table `audio`")
    models: dict[str, Path] = Field(default_factory=dict, description="Role: folder")
    work: Path = Field(description="Checkpoints")
    out: Path = Field(description="The fitted model")


def read_job(path: Path) -> FitJob:
    """Read a YAML or JSON file of :class:`Arguments`.

    Raises:
        RecipeError: the file is missing, or something in it is wrong.
    """
    try:
        given = Arguments.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        cls, config = STAGES[given.stage]
        tables = {"audio": TableView.of_files(given.audio)}
        return FitJob(cls, config.model_validate(given.config), given.models, tables, given.work, given.out)
    except (OSError, ValidationError, yaml.YAMLError, pa.ArrowException) as error:
        raise RecipeError(f"{path}: {error}") from error


def main() -> int:
    """Fit; the summary goes to standard output as JSON, progress to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m spiritlm_core.units", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("file", type=Path, help="YAML or JSON file with the arguments")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    first = os.environ.get("RANK", "0") == "0"
    try:
        summary = _fit(read_job(parser.parse_args().file), first=first)
    except SpiritLMError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if first:
        sys.stdout.write(json.dumps(summary) + "\n")
    return 0


def _fit(job: FitJob, *, first: bool) -> dict[str, Any]:
    def report(fraction: float, message: str) -> None:
        if first:
            logging.getLogger(__name__).info("%3.0f %% %s", 100 * fraction, message)

    for folder in (job.work, job.out):
        folder.mkdir(parents=True, exist_ok=True)
    with process_group():
        return job.run(report)


if __name__ == "__main__":
    sys.exit(main())
