"""Running a job from the command line without Prefect and Ray, alone or as one of the processes of ``torchrun``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from spiritlm_core.cores import process_group
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.fit.job import FitJob


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
