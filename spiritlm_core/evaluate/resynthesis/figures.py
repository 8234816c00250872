"""From what was counted in each clip to the figures of a system, and the table and the page with players."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.evaluate.config import ResynthesisConfig
from spiritlm_core.evaluate.rendering import Cell, Column, Table, data_uri, interval, number
from spiritlm_core.evaluate.resynthesis.systems import System
from spiritlm_core.metrics.bootstrap import Estimate, ratio

Row = dict[str, Any]  # what was counted in one clip; a key is missing, or None, where it cannot be
_RATES = {
    "wer": ("word_edits", "words"),
    "cer": ("character_edits", "characters"),
    "mcd": ("mcd", None),
    "mcd_in_place": ("mcd_in_place", None),
    "f0_cents": ("squared_cents", "voiced"),  # the root is taken of the ratio
    "voicing_error": ("wrong_voicing", "frames"),
    "duration_error": ("duration_share", None),
    "duration_seconds": ("duration_seconds", None),
    "speaker": ("speaker", None),
    "speaker_others": ("speaker_others", None),
}
"""Figure → what is summed over clips, and by what the sum is divided; None is the number of clips."""

_PAIRED = ("wer", "cer", "speaker_others")
"""Figures that the recording has, too, so that a system's can be compared with it."""


def result_of(system: System, rows: list[Row], original: list[Row], config: ResynthesisConfig) -> dict[str, Any]:
    """All figures of a system with their intervals, as JSON values, from its sums for each clip and the originals'."""
    figures: dict[str, float | None] = {}
    for name in _RATES:
        figures |= _rate(name, rows, None, config).to_dict(name)
    gains: dict[str, float | None] = {}
    for name in _PAIRED:
        gains |= _rate(name, rows, original, config).to_dict(name)
    return {
        "name": system.name,
        "about": system.about,
        "timed": system.timed,
        "figures": figures,
        "minus_original": gains,
        "clips": rows,
    }


def _rate(name: str, rows: Sequence[Row], original: Sequence[Row] | None, config: ResynthesisConfig) -> Estimate:
    """A figure over the clips that have it: pooled words, characters and frames, else the mean over clips.

    With those of the recordings it is the difference from theirs, over the same resamples of clips.
    """
    top, bottom = _RATES[name]
    having = [i for i, row in enumerate(rows) if row.get(top) is not None]
    tops = [rows[i][top] - (original[i][top] if original else 0) for i in having]
    bottoms = [1 if bottom is None else rows[i][bottom] for i in having]
    estimate = ratio(tops, bottoms, samples=config.bootstrap_samples, seed=config.seed)
    return Estimate(*map(sqrt, (estimate.value, estimate.low, estimate.high))) if name == "f0_cents" else estimate


def rounded(value: Any) -> Any:
    """`value` with six digits behind the point in every number of it."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _figure(name: str, digits: int = 2, scale: float = 1.0) -> Cell:
    return number("figures", name, digits=digits, scale=scale)


COLUMNS = (
    Column("WER %", "word error rate of the recogniser", _figure("wer", 1, 100)),
    Column("95 %", "bootstrap over clips", interval("figures", "wer", digits=1, scale=100)),
    Column("CER %", "character error rate", _figure("cer", 1, 100)),
    Column("MCD dB", "mel-cepstral distortion, warped in time", _figure("mcd")),
    Column("95 %", "bootstrap over clips", interval("figures", "mcd", digits=2)),
    Column("MCD in place", "the same frame by frame, where timing is kept", _figure("mcd_in_place")),
    Column("F0 cents", "RMS difference of F0 over frames voiced in both", _figure("f0_cents", 0)),
    Column("voicing %", "frames voiced in one of both", _figure("voicing_error", 1, 100)),
    Column("duration %", "difference of length, by the length of the recording", _figure("duration_error", 1, 100)),
    Column("duration s", "the same in seconds", _figure("duration_seconds")),
    Column("speaker", "cosine of d-vectors of the clip and its recording", _figure("speaker", 3)),
    Column("speaker o.", "the same with the mean of the speaker's other recordings", _figure("speaker_others", 3)),
)


def table(report: Mapping[str, Any]) -> Table:
    """One row per system."""
    return Table.of("system", COLUMNS, report["systems"], notes(report))


def notes(report: Mapping[str, Any]) -> list[str]:
    """On what the figures rest, what is missing and why, and the word errors beside those of the recordings."""
    held, settings = report["held_out"], report["settings"]
    scored = (
        f"{held['clips']} clips, {held['minutes']:.1f} minutes, {len(held['speakers'])} speakers"
        f" ({', '.join(held['speakers'][:5]) or 'unnamed'}), {held['with_transcript']} with a transcript;"
        f" seed {settings['seed']}."
    )
    gone = {"recogniser": "WER, CER", "speakers": "speaker similarity"}
    why = [f"{gone[name]}: {reason}." for name, reason in report["missing"].items()]
    original, *others = report["systems"]
    beside = [line for result in others if (line := _beside(result, original))]
    return [scored, *why, *beside]


def _beside(result: Mapping[str, Any], original: Mapping[str, Any]) -> str | None:
    gain, base = result["minus_original"], original["figures"]["wer"]
    if gain["wer"] is None:
        return None
    low, high = 100 * gain["wer_low"], 100 * gain["wer_high"]
    times = f", {result['figures']['wer'] / base:.2f} times the original's" if base else ""
    return f"WER of {result['name']} minus the original's: {100 * gain['wer']:+.1f} [{low:+.1f}, {high:+.1f}]{times}."


def page(report: Mapping[str, Any], sounds: Mapping[str, Mapping[str, Waveform]]) -> str:
    """One HTML file with players of `sounds`: system → clip → float32[T] at 16 kHz."""
    values = {"systems": report["systems"], "settings": report["settings"], "players": _players(report, sounds)}
    return table(report).page("resynthesis.html.j2", **values)


def _players(report: Mapping[str, Any], sounds: Mapping[str, Mapping[str, Waveform]]) -> list[dict[str, Any]]:
    """For each clip its transcript, and of each system the sound and what the recogniser heard."""
    rows = {result["name"]: {row["clip"]: row for row in result["clips"]} for result in report["systems"]}

    def player(name: str, key: str) -> dict[str, Any]:
        row, url = rows[name][key], data_uri(encode_flac(sounds[name][key]), "audio/flac")
        return {"name": name, "heard": row.get("heard"), "mcd": row["mcd"], "url": url}

    keys = next(iter(sounds.values()), {})
    return [
        {"clip": key, "text": report["texts"][key], "sounds": [player(name, key) for name in sounds]} for key in keys
    ]
