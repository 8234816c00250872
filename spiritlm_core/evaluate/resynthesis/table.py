"""The comparison as a table: one row per system, in Markdown, on a terminal and as a page with players."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritlm_core.evaluate.rendering import aligned, data_uri, markdown_table, template
from spiritlm_core.files import write_json

if TYPE_CHECKING:
    from spiritlm_core.evaluate.resynthesis.run import Resynthesis

MISSING = "n/a"


@dataclass(frozen=True)
class Column:
    """A column: heading, what it shows, the figure, how it is scaled, its digits, and whether the interval is shown."""

    heading: str
    about: str
    figure: str
    scale: float = 1.0
    digits: int = 2
    interval: bool = False

    def cells(self, result: Mapping[str, Any]) -> list[str]:
        """The figure, and its interval if that is shown."""
        value, low, high = (result["figures"][f"{self.figure}{end}"] for end in ("", "_low", "_high"))
        shown = MISSING if value is None else self._text(value)
        between = MISSING if low is None or high is None else f"{self._text(low)}-{self._text(high)}"
        return [shown, between] if self.interval else [shown]

    def _text(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}"


COLUMNS = (
    Column("WER %", "word error rate of the recogniser", "wer", 100, 1, interval=True),
    Column("CER %", "character error rate", "cer", 100, 1),
    Column("MCD dB", "mel-cepstral distortion, warped in time", "mcd", interval=True),
    Column("MCD in place", "the same frame by frame, where timing is kept", "mcd_in_place"),
    Column("F0 cents", "RMS difference of F0 over frames voiced in both", "f0_cents", digits=0),
    Column("voicing %", "frames voiced in one of both", "voicing_error", 100, 1),
    Column("duration %", "difference of length, by the length of the recording", "duration_error", 100, 1),
    Column("duration s", "the same in seconds", "duration_seconds"),
    Column("speaker", "cosine of d-vectors of the clip and its recording", "speaker", digits=3),
    Column("speaker o.", "the same with the mean of the speaker's other recordings", "speaker_others", digits=3),
)


def cells(report: Mapping[str, Any]) -> list[list[str]]:
    """Headings and one row per system."""
    heading = [name for column in COLUMNS for name in ((column.heading, "95 %")[: 1 + column.interval])]
    rows = [
        [result["name"], *(cell for column in COLUMNS for cell in column.cells(result))] for result in report["systems"]
    ]
    return [["system", *heading], *rows]


def markdown(report: Mapping[str, Any]) -> str:
    """The table and the notes below it."""
    return "\n".join([*markdown_table(cells(report)), "", *(f"- {note}" for note in notes(report))]) + "\n"


def plain(report: Mapping[str, Any]) -> str:
    """The same for a terminal, columns aligned."""
    return "\n".join([*aligned(cells(report)), "", *notes(report)])


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


def page(found: Resynthesis) -> str:
    """One HTML file with players that needs nothing else; every value is escaped."""
    report = found.report
    heading, *rows = cells(report)
    drawn: str = template("resynthesis.html.j2").render(
        heading=heading,
        rows=rows,
        columns=COLUMNS,
        notes=notes(report),
        systems=report["systems"],
        players=_players(found),
        settings=report["settings"],
    )
    return drawn


def _players(found: Resynthesis) -> list[dict[str, Any]]:
    """For each clip its transcript, and of each system the sound and what the recogniser heard."""
    rows = {result["name"]: {row["clip"]: row for row in result["clips"]} for result in found.report["systems"]}

    def player(name: str, key: str) -> dict[str, Any]:
        row = rows[name][key]
        return {"name": name, "heard": row.get("heard"), "mcd": row["mcd"], "url": _url(found.sounds[name][key])}

    keys = next(iter(found.sounds.values()), {})
    texts = found.report["texts"]
    return [{"clip": key, "text": texts[key], "sounds": [player(name, key) for name in found.sounds]} for key in keys]


def _url(waveform: Any) -> str:
    from spiritlm_core.audio.codec import encode_flac

    return data_uri(encode_flac(waveform), "audio/flac")


def write(out: Path, found: Resynthesis) -> None:
    """Put ``resynthesis.json``, ``resynthesis.md`` and ``resynthesis.html`` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "resynthesis.json", found.report)
    (out / "resynthesis.md").write_text(markdown(found.report), encoding="utf-8")
    (out / "resynthesis.html").write_text(page(found), encoding="utf-8")
