"""What the table of resyntheses shows, what is to be said below it, and players."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spiritlm_core.evaluate.rendering import Cell, Column, Table, data_uri, interval, number

if TYPE_CHECKING:
    from spiritlm_core.evaluate.resynthesis.run import Resynthesis


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


def page(resynthesis: Resynthesis) -> str:
    """One HTML file with players."""
    report = resynthesis.report
    values = {"systems": report["systems"], "settings": report["settings"], "players": _players(resynthesis)}
    return table(report).page("resynthesis.html.j2", **values)


def _players(resynthesis: Resynthesis) -> list[dict[str, Any]]:
    """For each clip its transcript, and of each system the sound and what the recogniser heard."""
    from spiritlm_core.audio.codec import encode_flac

    rows = {result["name"]: {row["clip"]: row for row in result["clips"]} for result in resynthesis.report["systems"]}
    sounds, texts = resynthesis.sounds, resynthesis.report["texts"]

    def player(name: str, key: str) -> dict[str, Any]:
        row, url = rows[name][key], data_uri(encode_flac(sounds[name][key]), "audio/flac")
        return {"name": name, "heard": row.get("heard"), "mcd": row["mcd"], "url": url}

    keys = next(iter(sounds.values()), {})
    return [{"clip": key, "text": texts[key], "sounds": [player(name, key) for name in sounds]} for key in keys]
