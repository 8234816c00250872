"""The streams of speech units merged into one: ``[St81][Pi13][Hu78][Hu42]…``.

Runs of equal HuBERT and of equal pitch units collapse, style units do not (arXiv 2402.05755, section 3). The
streams merge by start time. HuBERT units count as 24.99 Hz rather than 25, so that on what would be a tie style
comes first, then pitch, then HuBERT.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spiritlm_core.tokens.vocabulary import PREFIXES, Vocabulary

STYLE, PITCH, HUBERT = range(3)
_RATES = (1.0, 12.5)  # units per second of style and pitch

_LATER = 0.01  # by how much the rate of HuBERT units is lowered for merging

_TOKEN = re.compile(r"\[(Hu|Pi|St)([0-9]{1,4})\]")


@dataclass(frozen=True)
class Streams:
    """Units of one segment: as they were extracted, or read from a string with one entry per HuBERT token."""

    hubert: np.ndarray  # int16[N], at 25 or 12.5 Hz where they were extracted
    pitch: np.ndarray | None = None  # int8 or int16[M], at 12.5 Hz; None in the Base variant
    style: np.ndarray | None = None  # int8 or int16[K], at 1 Hz; None in the Base variant


@dataclass(frozen=True)
class Merged:
    """Merged speech tokens in the order of their start times."""

    kinds: np.ndarray  # int8[N], index into ``vocabulary.PREFIXES``
    units: np.ndarray  # int16[N]
    times: np.ndarray  # float64[N], start in seconds

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.units)

    def __iter__(self) -> Iterator[tuple[str, int, float]]:
        """Yield ``("Hu", 78, 0.04)`` and so on."""
        for kind, unit, time in zip(self.kinds.tolist(), self.units.tolist(), self.times.tolist(), strict=True):
            yield PREFIXES[kind], unit, time

    def ids(self, vocabulary: Vocabulary) -> np.ndarray:
        """Token ids, int32[N]; SpiritLMError if `vocabulary` lacks one of the units."""
        return vocabulary.speech_ids(self.kinds, self.units)


def merge_streams(
    units: Streams, collapse: tuple[bool, bool, bool] = (False, True, True), rate: float = 25.0
) -> Merged:
    """Collapse (style, pitch, HuBERT) and merge the streams of one segment; `rate` is of HuBERT units, per second."""
    names, rates = ("style", "pitch", "hubert"), (*_RATES, rate - _LATER)
    streams = [_stream(kind, getattr(units, names[kind]), collapse[kind], rates[kind]) for kind in range(3)]
    kinds, values, times = (np.concatenate(parts) for parts in zip(*streams, strict=True))
    order = np.argsort(times, kind="stable")
    return Merged(kinds[order], values[order], times[order])


def _stream(
    kind: int, units: ArrayLike | None, collapse: bool, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds, units and start times of one stream; the first token of a run keeps its time."""
    values = np.asarray([] if units is None else units, dtype=np.int16)
    keep = np.ones(len(values), dtype=bool)
    if collapse:
        keep[1:] = values[1:] != values[:-1]
    places = np.flatnonzero(keep)
    return np.full(len(places), kind, np.int8), values[places], places / rate


def to_string(merged: Merged) -> str:
    """The tokens as text, ``[St81][Pi13][Hu78]…``, nothing between them."""
    return "".join([f"[{PREFIXES[k]}{u}]" for k, u in zip(merged.kinds.tolist(), merged.units.tolist(), strict=True)])


def from_string(string: str, *, duplicate_pitch: bool = False) -> Streams:
    """Read speech tokens back; everything else in `string` is skipped.

    Each HuBERT token makes one entry with the latest pitch and style. Entries before the first pitch or style
    take the first one that follows.

    Args:
        string: Tokens such as ``[St81][Pi13][Hu78]``.
        duplicate_pitch: A pitch token with no HuBERT token between it and the one before makes an entry, too: the
            HuBERT unit before it (or else the first one) once more, with the new pitch.
    """
    kinds_units = [(PREFIXES.index(name), int(unit)) for name, unit in _TOKEN.findall(string)]
    kinds = np.array([kind for kind, _ in kinds_units], dtype=np.int8)
    units = np.array([unit for _, unit in kinds_units], dtype=np.int16)
    places = np.flatnonzero(kinds == HUBERT)
    if duplicate_pitch and len(places):
        places = np.sort(np.concatenate([places, _repeated_pitch(kinds)]))
    hubert = _latest(kinds, units, HUBERT, places)
    pitch, style = _latest(kinds, units, PITCH, places), _latest(kinds, units, STYLE, places)
    return Streams(units[:0] if hubert is None else hubert, pitch, style)


def _repeated_pitch(kinds: np.ndarray) -> np.ndarray:
    """Places of the pitch tokens that follow a pitch token, style tokens not counted."""
    others = np.flatnonzero(kinds != STYLE)
    pitch = kinds[others] == PITCH
    return others[1:][pitch[1:] & pitch[:-1]]


def _latest(kinds: np.ndarray, units: np.ndarray, kind: int, places: np.ndarray) -> np.ndarray | None:
    """The last unit of `kind` at or in front of each of `places`."""
    at = np.flatnonzero(kinds == kind)
    if not len(at):
        return None
    return units[at[np.maximum(np.searchsorted(at, places, side="right") - 1, 0)]]
