"""What fits of unit models share: reading train speech, and how many units are in use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.stage import TableInput
from spiritlm_core.lake.view import TableView

_LISTING = ("utterance_id", "split", "duration", "speaker", "origin", "reject_stage")

_ENOUGH = 60.0  # seconds of recorded speech; with less of it synthetic speech is taken, too
FIT_INPUT = TableInput("audio", (*_LISTING, "audio"))  # what every fit of a unit model reads


@dataclass(frozen=True)
class Clip:
    """One train utterance."""

    utterance_id: str
    speaker: str | None
    waveform: NDArray[np.float32]  # [T] at 16 kHz


def train_clips(audio: TableView, max_minutes: float, seed: int, *, synthetic: bool = False) -> list[Clip]:
    """Train utterances, at most `max_minutes` of them, picked and ordered by a hash of seed and id.

    So the choice depends neither on the order of the shards nor on how recordings are spread over them. Synthetic
    speech is among them with `synthetic`, or where there is hardly any other: voices are those of people. Raises
    SpiritLMError: There is no train speech at all.
    """
    chosen = _choose(audio, max_minutes * 60, seed, synthetic)
    clips: dict[str, Clip] = {}
    for shard in audio.shards(FIT_INPUT.columns):
        for row in shard.filter(pc.is_in(shard["utterance_id"], pc.cast(list(chosen), "string"))).to_pylist():
            waveform = decode_flac(row["audio"])
            clips[row["utterance_id"]] = Clip(row["utterance_id"], row["speaker"], waveform)
    return [clips[utterance_id] for utterance_id in chosen]


def _choose(audio: TableView, max_seconds: float, seed: int, synthetic: bool) -> list[str]:
    rows = [r for r in audio.read(_LISTING).to_pylist() if r["split"] == "train" and r["reject_stage"] is None]
    recorded = [r for r in rows if r["origin"] != "synthetic"]
    if not synthetic and sum(r["duration"] for r in recorded) >= _ENOUGH:
        rows = recorded
    usable = {r["utterance_id"]: r["duration"] for r in rows}
    if not usable:
        raise SpiritLMError("the audio table has no usable train rows: unit models cannot be fitted; check the sources")
    order = sorted(usable, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    before = np.cumsum([0.0, *(usable[name] for name in order)])[:-1]
    return [name for name, start in zip(order, before, strict=True) if start < max_seconds]


def perplexity(units: NDArray[np.integer[Any]], size: int) -> float:
    """Exponential of the entropy of the unit histogram: how many units are in effective use (1 to `size`)."""
    share = np.bincount(units.astype(np.int64), minlength=size) / max(1, len(units))
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0
