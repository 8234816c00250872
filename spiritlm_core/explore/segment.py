"""One utterance with all that the tables of a recipe say of it: sound, words, units, and what else there is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.errors import LakeError
from spiritlm_core.evaluate import plots
from spiritlm_core.explore.rows import Place, Rows
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.folder import TokenizerFolder
from spiritlm_core.speech.grid import rates_hz
from spiritlm_core.tokens.speech import Streams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spiritlm_core.speech.vocoder.vocoder import Vocoder

_STREAMS = ("hubert", "pitch", "style")


@dataclass(frozen=True)
class Segment:
    """One utterance."""

    utterance_id: str
    rows: Mapping[str, Mapping[str, Any]]  # table → its row there; tables without it are left out
    waveform: NDArray[np.float32] | None  # float32[T] at 16 kHz, or None where there is none

    @classmethod
    def read(cls, tables: Mapping[str, Rows], table: str, place: Place) -> Segment:
        """What `tables` say of the row at `place` of one of them. Raises LakeError."""
        first = tables[table].read(place)
        if not first:
            raise LakeError("this row is not shown any more: its recording was forgotten")
        key = first.get("utterance_id")
        if key is None:
            return cls(str(next(iter(first.values()), "")), {table: first}, None)
        others = {name: _row(rows, place, key) for name, rows in tables.items() if name != table}
        found = {table: first, **{name: row for name, row in others.items() if row}}
        flac = found.get("audio", {}).get("audio")
        return cls(key, found, None if flac is None else decode_flac(flac))

    @property
    def words(self) -> list[Mapping[str, Any]]:
        """Rows of the words table: word, start and end in seconds."""
        return list(self.rows.get("words", {}).get("words") or [])

    @property
    def units(self) -> dict[str, list[int]]:
        """The unit streams that there are, not collapsed."""
        row = self.rows.get("units", {})
        return {name: row[name] for name in _STREAMS if row.get(name)}

    @property
    def speaker(self) -> str | None:
        """Who speaks, where that is known."""
        return self.rows.get("audio", {}).get("speaker")

    def facts(self) -> list[tuple[str, str, str]]:
        """Table, column and value of what else is known; lists and sound are left out."""
        seen: dict[str, Any] = {}
        facts = []
        for table, row in self.rows.items():
            for name, value in row.items():
                if value is None or isinstance(value, bytes | list) or seen.get(name) == value:
                    continue
                seen[name] = value
                facts.append((table, name, f"{value:.4g}" if isinstance(value, float) else str(value)))
        return facts

    def figure(self) -> Figure | None:
        """The waveform with its words, the units below it, and F0; None without a waveform."""
        if self.waveform is None or not len(self.waveform):
            return None
        rates = rates_hz(len(self.units.get("hubert", ())), len(self.waveform))
        units = {name: (stream, rates[name]) for name, stream in self.units.items()}
        return plots.utterance(self.waveform, self.words, units, SAMPLE_RATE, _melody(self.waveform))

    def resynthesis(self, vocoder: Vocoder) -> NDArray[np.float32] | None:
        """The units through the vocoder, each as long as it was, float32[T] at 16 kHz; None without units."""
        if "hubert" not in self.units:
            return None
        hubert, pitch, style = (np.array(self.units[n]) if n in self.units else None for n in _STREAMS)
        speaker = vocoder.speaker_id(self.speaker) if self.speaker else None
        return vocoder.decode(Streams(hubert, pitch, style), speaker=speaker, predict_durations=False)  # type: ignore[arg-type]


def load_vocoder(folders: Mapping[str, Path | None]) -> Vocoder | None:
    """The vocoder of the artifact ``vocoder``, else the one in the published folder; None if there is neither."""
    from spiritlm_core.speech.vocoder.vocoder import Vocoder

    fitted, published = folders.get("vocoder"), folders.get("published")
    folder = fitted or (TokenizerFolder.read(published).vocoder if published else None)
    return None if folder is None else Vocoder.load(folder)


def _row(rows: Rows, place: Place, key: str) -> dict[str, Any]:
    """The row of an utterance in another table: at the same place if both are of one run, else looked for."""
    if "utterance_id" not in rows.columns:
        return {}
    if place.shard < len(rows.keys):
        row = rows.read(place)
        if row.get("utterance_id") == key:
            return row
    found = rows.find(key)
    return {} if found is None else rows.read(found)


def _melody(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """F0 in hertz at 200 Hz, not a number where nothing is voiced: DIO (Morise et al. 2009), which needs no PyTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its use of pkg_resources is no concern of the user
        import pyworld

    f0, _ = pyworld.dio(waveform.astype(np.float64), SAMPLE_RATE)
    return np.where(f0 > 0, f0, np.nan).astype(np.float32)
