"""The stage ``suite``: small test sets are built, and the model is measured with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.cores import all_cores
from spiritlm_core.evaluate.rendering import write_report
from spiritlm_core.evaluate.suite.config import SuiteRunConfig
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.folder import ROLES, write_speech_tokenizer

NAME = "model"


class SuiteStage(ArtifactStage):
    """Builds the test sets with the seed of `ask`, and measures the model on them.

    Writes ``suite.json`` (every figure), ``suite.md`` (one table) and ``suite.html``. Role ``model``: the model;
    hubert, quantizer, pitch, style and vocoder: its speech tokenizer, where it has none beside it. The models that
    judge have roles, too, so that their content counts; `ask` says where they are.
    """

    name: ClassVar[str] = "suite"
    about: ClassVar[str] = "zero-shot and few-shot tasks on small test sets"
    version: ClassVar[int] = 4  # 4: verdicts
    outputs: ClassVar[tuple[Output, ...]] = (Output("suite", "suite.html", "suite.html"),)
    inputs: ClassVar[tuple[TableInput, ...]] = ()
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: SuiteRunConfig

    def build(
        self,
        tables: Mapping[str, TableView],  # noqa: ARG002 - the sets are made of templates
        out: Path,
        work: Path,
        progress: Progress,
    ) -> dict[str, Any]:
        """Write the report; returns the value of every figure."""
        from spiritlm_core.evaluate.suite.layouts import read_suite
        from spiritlm_core.evaluate.suite.run import run_suite
        from spiritlm_core.evaluate.suite.table import page, table
        from spiritlm_core.lm.generate.spirit import SpiritLM

        progress(0.0, "building test sets")
        folder, speech = self._sets(work), self._speech_tokenizer(work)
        progress(0.2, "asking the model")
        with all_cores():
            report = run_suite(
                {NAME: lambda: SpiritLM.from_pretrained(self.models["model"], speech_tokenizer=speech)},
                read_suite(folder),
                self.config.ask,
                tell=lambda message: progress(0.3, message),
            )
        for task in report["tasks"]:
            task["folder"] = task["name"]  # the same report on every machine
        report = json.loads(json.dumps(report, allow_nan=False).replace(f"{folder}/", ""))
        write_report(out, "suite", report, table(report), page(report))
        return summary(report)

    def _speech_tokenizer(self, work: Path) -> Path | None:
        if self.models.keys().isdisjoint(ROLES):
            return None
        write_speech_tokenizer(work / "speech_tokenizer", self.models, self.config.precision)
        return work / "speech_tokenizer"

    def _sets(self, work: Path) -> Path:
        """The folder of the built sets; what an attempt that was cut off left is built anew."""
        import shutil

        from spiritlm_core.audio.voices.espeak import Espeak
        from spiritlm_core.evaluate.suite.build import build_suite

        folder = work / "sets"
        shutil.rmtree(folder, ignore_errors=True)
        with Espeak() as espeak:
            build_suite(
                folder,
                espeak if self.config.spoken else None,
                self.config.voices,
                self.config.sets,
                self.config.items,
                self.config.ask.seed,
            )
        return folder


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure flat, ``TASK/WAY/FIGURE`` → value; nothing that was not measured."""
    return {
        f"{measure['task']}/{measure['direction']}/{one['metric']}": one["value"]
        for measure in report["measures"]
        for one in measure["figures"]
        if one["value"] is not None
    }
