"""What fits of unit models share: reading train speech, and how many units are in use."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE, SYNTHETIC
from spiritlm_core.lake.stage import TableInput
from spiritlm_core.lake.view import TableView

_LISTING = ("utterance_id", "split", "duration", "speaker", "origin", "reject_stage")

_ENOUGH = 60.0  # seconds of recorded speech; with less of it synthetic speech is taken, too
FIT_INPUT = TableInput("audio", (*_LISTING, "audio"))  # what every fit of a unit model reads


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Clip:
    """One utterance."""

    key: str  # its utterance_id
    speaker: str | None  # who speaks; None where nobody says
    language: str | None  # language code, or None where it is not known or does not matter
    text: str | None  # transcript, or None likewise
    waveform: NDArray[np.float32]  # float32[T] at 16 kHz

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.waveform) / SAMPLE_RATE


def head(keys: Sequence[str], seconds: Mapping[str, float], most: float) -> list[str]:
    """The first of `keys` until `most` seconds are full; at least one."""
    before = np.cumsum([0.0, *(seconds[key] for key in keys)])[:-1]
    return [key for key, start in zip(keys, before, strict=True) if start < most]


def train_clips(
    audio: TableView, max_minutes: float, seed: int, *, synthetic: bool = False, people_first: bool = False
) -> list[Clip]:
    """Train utterances, at most `max_minutes` of them, picked and ordered by a hash of seed and id.

    So the choice depends neither on the order of the shards nor on how recordings are spread over them. Synthetic
    speech is among them with `synthetic`, or where there is hardly any other: voices are those of people. With
    `people_first` half of the minutes are kept for people, as far as these have spoken that long. Raises
    SpiritLMError: There is no train speech at all.
    """
    chosen = _choose(audio, max_minutes * 60, seed, synthetic=synthetic, people_first=people_first)
    clips: dict[str, Clip] = {}
    for shard in audio.shards(FIT_INPUT.columns):
        for row in shard.filter(pc.is_in(shard["utterance_id"], pc.cast(list(chosen), "string"))).to_pylist():
            key = row["utterance_id"]
            clips[key] = Clip(key, row["speaker"], None, None, decode_flac(row["audio"]))
    return [clips[utterance_id] for utterance_id in chosen]


def _choose(audio: TableView, max_seconds: float, seed: int, *, synthetic: bool, people_first: bool) -> list[str]:
    rows = [r for r in audio.read(_LISTING).to_pylist() if r["split"] == "train" and r["reject_stage"] is None]
    recorded = [r for r in rows if r["origin"] != SYNTHETIC]
    if not synthetic and sum(r["duration"] for r in recorded) >= _ENOUGH:
        rows = recorded
    usable = {r["utterance_id"]: r["duration"] for r in rows}
    if not usable:
        raise SpiritLMError("the audio table has no usable train rows: unit models cannot be fitted; check the sources")
    order = sorted(usable, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    people = {r["utterance_id"] for r in recorded} if people_first else set()
    first = head([name for name in order if name in people], usable, max_seconds / 2)
    others = list(dict.fromkeys([*first, *order]))[len(first) :]
    return [*first, *head(others, usable, max_seconds - sum(usable[name] for name in first))]


def perplexity(units: NDArray[np.integer[Any]], size: int) -> float:
    """Exponential of the entropy of the unit histogram: how many units are in effective use (1 to `size`)."""
    share = np.bincount(units.astype(np.int64), minlength=size) / max(1, len(units))
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0
