"""What the table of speech tokenizers shows, and what is to be said below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spiritlm_core.evaluate.rendering import MISSING, Column, Table, at, interval, number

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
