"""The comparison of speech tokenizers on held-out speech, as one artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from spiritlm_core.cores import all_cores
from spiritlm_core.evaluate.units.clips import AUDIO_INPUT, describe, held_out_clips
from spiritlm_core.evaluate.units.config import UnitEvaluationStageConfig
from spiritlm_core.files import write_json
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView

if TYPE_CHECKING:
    import numpy as np

    from spiritlm_core.evaluate.units.measure import HeldOut

REPORT = "units.json"
TABLE = "units.md"
PAGE = "units.html"


class UnitEvaluationStage(ArtifactStage):
    """Judges tokenizers on held-out rows: MFCC, every HuBERT iteration, the recipe's own, and any given ones.

    Writes ``units.json`` (every figure), ``units.md`` (one table) and ``units.html``. Roles: hubert and quantizer, for
    Expressive pitch and style, and ``candidate.NAME`` for every given speech tokenizer folder.
    """

    name: ClassVar[str] = "unit_evaluation"
    about: ClassVar[str] = "speech units judged on held-out speech"
    version: ClassVar[int] = 2
    outputs: ClassVar[tuple[Output, ...]] = (Output("units", "units.html", "units.html"),)
    inputs: ClassVar[tuple[TableInput, ...]] = (AUDIO_INPUT,)
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: UnitEvaluationStageConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Label the held-out speech, measure one tokenizer after the other; a killed build keeps those it has.

        Raises:
            SpiritLMError: Nothing is held out, or there is no train speech for the k-means.
            ModelReferenceError: A model is missing or damaged.
        """
        from spiritlm_core.evaluate.units.labels import align_phones
        from spiritlm_core.evaluate.units.measure import HeldOut

        audio = tables["audio"]
        clips = held_out_clips(audio, self.config.max_minutes, self.config.seed)
        progress(0.0, f"phones of {len(clips)} held-out clips")
        data = HeldOut(clips, align_phones(clips), self.config)
        with all_cores():
            results = self._results(audio, data, work, progress)
        report = self._report(describe(audio, clips), data, results)
        _write(out, report)
        return _summary(report)

    def _results(self, audio: TableView, data: HeldOut, work: Path, progress: Progress) -> list[dict[str, Any]]:
        from spiritlm_core.evaluate.units.candidates import candidates
        from spiritlm_core.evaluate.units.measure import measure

        @cache
        def train() -> list[np.ndarray]:
            from spiritlm_core.fit.training import train_clips

            return [clip.waveform for clip in train_clips(audio, self.config.train_minutes, self.config.seed)]

        named, results = list(candidates(self.models, self.config, train)), []
        for number, (name, load) in enumerate(named):
            progress(0.1 + 0.9 * number / len(named), f"judging {name}")
            kept = work / f"{number}.json"
            if not kept.exists():
                write_json(kept, measure(load(), data))
            results.append(json.loads(kept.read_text(encoding="utf-8")))
        return results

    def _report(self, held_out: Mapping[str, Any], data: HeldOut, results: list[dict[str, Any]]) -> dict[str, Any]:
        from spiritlm_core.evaluate.units.measure import DRAWS, differences

        gains = differences(results)
        for result in results:
            result["phones"].pop(DRAWS, None)
        return {
            "settings": self.config.model_dump(mode="json"),
            "held_out": held_out,
            "labels": data.labels.to_dict(),
            "candidates": results,
            "differences": gains,
        }


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    held_out = report["held_out"]
    return {
        "clips": held_out["clips"],
        "minutes": held_out["minutes"],
        "speakers": len(held_out["speakers"]),
        "pnmi": {result["name"]: result["phones"].get("pnmi") for result in report["candidates"]},
    }


def _write(out: Path, report: Mapping[str, Any]) -> None:
    from spiritlm_core.evaluate.units.table import markdown, page

    write_json(out / REPORT, report)
    (out / TABLE).write_text(markdown(report), encoding="utf-8")
    (out / PAGE).write_text(page(report), encoding="utf-8")
