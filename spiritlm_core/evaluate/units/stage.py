"""The comparison of speech tokenizers on held-out speech, as one artifact, and its table."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spiritlm_core.cores import all_cores
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.clips import AUDIO_INPUT, draw, good_rows, read_clips
from spiritlm_core.evaluate.config import UnitEvaluationStageConfig
from spiritlm_core.evaluate.rendering import MISSING, Column, Table, at, interval, number, write_report
from spiritlm_core.evaluate.units.candidates import candidates
from spiritlm_core.evaluate.units.labels import DRAWS, align_phones
from spiritlm_core.evaluate.units.measure import HeldOut, differences, measure
from spiritlm_core.files import write_json
from spiritlm_core.fit.clips import Clip, train_clips
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView

_HELP = "Labels need English recordings with transcripts; see docs/sources.md on where these are looked for."
Result = Mapping[str, Any]


def _codebook(result: Result) -> str | None:
    figures = result["streams"]["hubert"]
    return f"{figures['used']}/{figures['size']}"


def _speaker(result: Result) -> str | None:
    probe = result["speaker"].get("all") or result["speaker"]["hubert"]
    return f"{100 * probe['accuracy']:.0f} ({100 * probe['chance']:.0f})" if "accuracy" in probe else None


def _edits(conditions: Sequence[str]) -> Callable[[Result], str | None]:
    def cell(result: Result) -> str | None:
        values = [at(result, "robustness", condition, "hubert") for condition in conditions]
        known = [value for value in values if value is not None]
        return f"{sum(known) / len(known):.2f}" if known else None

    return cell


def columns(settings: Mapping[str, Any]) -> list[Column]:
    """The columns for a configuration, `UnitEvaluationConfig` as JSON values."""
    snr = min(settings["snrs"], default=None)
    speeds = [f"speed {speed:g}" for speed in settings["speeds"]]
    noise = Column(f"UED {snr:g} dB", "unit edits in noise", _edits([f"noise {snr:g} dB"])) if snr is not None else None
    speed = Column("UED speed", "the same at other speeds, mean", _edits(speeds)) if speeds else None
    fixed = [
        Column("used", "HuBERT units that occur, of all", _codebook),
        Column("perpl.", "their perplexity over frames", number("streams", "hubert", "perplexity")),
        Column("PNMI", "phone-normalised mutual information", number("phones", "pnmi", digits=3)),
        Column("95 %", "its bootstrap interval over clips", interval("phones", "pnmi", digits=3)),
        Column("chance", "PNMI of the same units in other places", number("phones", "pnmi_chance", digits=3)),
        Column("phone pur.", "phone purity", number("phones", "phone_purity", digits=3)),
        Column("clus. pur.", "cluster purity", number("phones", "cluster_purity", digits=3)),
        Column("ABX w", "ABX error of units within speakers, %", number("abx", "units", "within", digits=1, scale=100)),
        Column("ABX a", "the same across speakers, %", number("abx", "units", "across", digits=1, scale=100)),
        Column("units/s", "all streams, runs collapsed", number("units_per_second", digits=1)),
        Column("bit/s", "all streams, by unigram entropy", number("bitrate")),
        Column("F0 cents", "RMS error of decoded F0", number("pitch", "f0_rmse_cents")),
        Column("voicing %", "frames decoded with wrong voicing", number("pitch", "voicing_error", digits=1, scale=100)),
    ]
    narrow = Column("UED 8 kHz", "the same after 8 kHz", _edits(["8 kHz"]))
    speaker = Column("speaker %", "pieces whose speaker a linear probe on all streams tells (chance)", _speaker)
    return [*fixed, *(column for column in (noise, narrow, speed) if column), speaker]


def table(report: Mapping[str, Any]) -> Table:
    """One row per tokenizer."""
    return Table.of("units of", columns(report["settings"]), report["candidates"], notes(report))


def page(report: Mapping[str, Any]) -> str:
    """One HTML file."""
    return table(report).page("units.html.j2", candidates=report["candidates"])


def notes(report: Mapping[str, Any]) -> list[str]:
    """On what the figures rest, and what is missing why."""
    held, labels = report["held_out"], report["labels"]
    scored = (
        f"{held['clips']} held-out clips, {held['minutes']:.1f} minutes, {len(held['speakers'])} speakers"
        f" ({', '.join(held['speakers']) or 'unnamed'}); seed {report['settings']['seed']};"
        f" train speech: {held['train_minutes']:.1f} minutes, {held['train_speakers']} speakers."
    )
    lines = [scored]
    if also := held["speakers_also_in_train"]:
        count = f"{len(also)} of {len(held['speakers'])} held-out speakers"
        lines.append(f"{count} are in the train split, too: set audio.held_out_by=speaker to judge on new voices.")
    skipped = "".join(f"; {count} clips: {reason}" for reason, count in labels["skipped"].items())
    if labels["missing"]:
        lines.append(f"{MISSING}: no phone labels, so no purity, PNMI and ABX: {labels['missing']}{skipped}. {_HELP}")
    else:
        lines.append(f"Phones of {labels['clips']} clips, {labels['classes']} classes{skipped}.")
    return [*lines, *_absent(report), *map(_gain, report["differences"])]


def _absent(report: Mapping[str, Any]) -> list[str]:
    """Why a figure is n/a: a line for each reason, with the tokenizers that it holds for."""
    reasons: dict[str, list[str]] = {}
    for result in report["candidates"]:
        for reason in _reasons(result, labelled=not report["labels"]["missing"]):
            reasons.setdefault(reason, []).append(result["name"])
    everyone = len(report["candidates"])
    named = {reason: "" if len(names) == everyone else f" ({', '.join(names)})" for reason, names in reasons.items()}
    return [f"{MISSING}: {reason}{of}." for reason, of in named.items()]


def _reasons(result: Result, *, labelled: bool) -> list[str]:
    speaker = result["speaker"].get("all") or result["speaker"]["hubert"]
    parts = {"F0 and voicing": at(result, "pitch", "missing"), "speaker": speaker.get("missing")}
    if labelled:
        absent = at(result, "abx", "absent") or {}
        parts |= {"phones": at(result, "phones", "missing"), "ABX": at(result, "abx", "missing")}
        parts |= {"ABX w": absent.get("within"), "ABX a": absent.get("across")}
    return [f"{what}, {reason}" for what, reason in parts.items() if reason]


def _gain(difference: Mapping[str, Any]) -> str:
    low, high = difference["pnmi_low"], difference["pnmi_high"]
    of, over = difference["of"], difference["over"]
    return f"PNMI of {of} over {over}: {difference['pnmi']:+.3f} [{low:+.3f}, {high:+.3f}], {difference['verdict']}."


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

        Raises SpiritLMError: nothing is held out, or there is no train speech for the k-means; ModelReferenceError: A
        model is missing or damaged.
        """
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
        @cache
        def train() -> list[np.ndarray]:
            return [clip.waveform for clip in train_clips(audio, self.config.train_minutes, self.config.seed)]

        named, results = list(candidates(self.models, self.config, train)), []
        for place, (name, load) in enumerate(named):
            progress(0.1 + 0.9 * place / len(named), f"judging {name}")
            kept = work / f"{place}.json"
            if not kept.exists():
                write_json(kept, measure(load(), data))
            results.append(json.loads(kept.read_text(encoding="utf-8")))
        return results

    def _report(self, held_out: Mapping[str, Any], data: HeldOut, results: list[dict[str, Any]]) -> dict[str, Any]:
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
