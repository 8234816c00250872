"""The comparison of speech tokenizers on held-out speech, as one artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from spiritlm_core.cores import all_cores
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.clips import AUDIO_INPUT, Clip, draw, good_rows, read_clips
from spiritlm_core.evaluate.rendering import write_report
from spiritlm_core.evaluate.units.config import UnitEvaluationStageConfig
from spiritlm_core.files import write_json
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView

if TYPE_CHECKING:
    import numpy as np

    from spiritlm_core.evaluate.units.measure import HeldOut


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
        from spiritlm_core.evaluate.units.table import page, table

        audio = tables["audio"]
        clips = _held_out(audio, self.config)
        progress(0.0, f"phones of {len(clips)} held-out clips")
        data = HeldOut(clips, align_phones(clips), self.config)
        with all_cores():
            results = self._results(audio, data, work, progress)
        report = self._report(_describe(audio, clips), data, results)
        write_report(out, "units", report, table(report), page(report))
        return _summary(report)

    def _results(self, audio: TableView, data: HeldOut, work: Path, progress: Progress) -> list[dict[str, Any]]:
        from spiritlm_core.evaluate.units.candidates import candidates
        from spiritlm_core.evaluate.units.measure import measure

        @cache
        def train() -> list[np.ndarray]:
            from spiritlm_core.fit.clips import train_clips

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


def _held_out(audio: TableView, config: UnitEvaluationStageConfig) -> list[Clip]:
    if not (rows := good_rows(audio, "held_out")):
        raise SpiritLMError(
            "no utterance is held out, so units cannot be judged: raise audio.held_out_share "
            "(and set audio.held_out_by=speaker to hold out whole speakers)"
        )
    return read_clips(audio, draw(rows, config.max_minutes, config.seed))


def _describe(audio: TableView, clips: Sequence[Clip]) -> dict[str, Any]:
    """Speakers and minutes of the clips scored, and which of these speakers are in the train split too."""
    train = list(good_rows(audio, "train").values())
    speakers = {clip.speaker for clip in clips if clip.speaker}
    return {
        "clips": len(clips),
        "minutes": round(sum(clip.seconds for clip in clips) / 60, 2),
        "speakers": sorted(speakers),
        "speakers_also_in_train": sorted(speakers & {row["speaker"] for row in train}),
        "train_minutes": round(sum(row["duration"] or 0.0 for row in train) / 60, 2),
        "train_speakers": len({row["speaker"] for row in train if row["speaker"]}),
    }


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    held_out = report["held_out"]
    return {
        "clips": held_out["clips"],
        "minutes": held_out["minutes"],
        "speakers": len(held_out["speakers"]),
        "pnmi": {result["name"]: result["phones"].get("pnmi") for result in report["candidates"]},
    }
