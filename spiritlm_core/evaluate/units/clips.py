"""The held-out utterances that tokenizers are judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.heldout.corpus import rank, rows_of
from spiritlm_core.lake.stage import TableInput
from spiritlm_core.lake.view import TableView

_LISTING = ("utterance_id", "split", "duration", "speaker", "reject_stage")
AUDIO_INPUT = TableInput("audio", (*_LISTING, "language", "text", "audio"))
"""What the evaluation reads."""


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Clip:
    """One held-out utterance.

    Attributes:
        key: Its utterance_id.
        speaker: Who speaks; None where nobody says.
        language: Language code, or None.
        text: Transcript, or None.
        waveform: float32[T] at 16 kHz.
    """

    key: str
    speaker: str | None
    language: str | None
    text: str | None
    waveform: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.waveform) / 16_000


def held_out_clips(audio: TableView, max_minutes: float, seed: int) -> list[Clip]:
    """Good held-out rows of the `audio` table, at most `max_minutes`, picked and ordered by a hash of seed and id.

    Raises:
        SpiritLMError: Nothing is held out.
    """
    from spiritlm_core.audio.codec import decode_flac

    keys = _choose(audio, max_minutes * 60, seed)
    rows = rows_of(audio, set(keys), ["speaker", "language", "text", "audio"])
    return [
        Clip(key, row["speaker"], row["language"], row["text"], decode_flac(row["audio"]))
        for key, row in ((key, rows[key]) for key in keys)
    ]


def _choose(audio: TableView, max_seconds: float, seed: int) -> list[str]:
    usable = {row["utterance_id"]: row["duration"] for row in _rows(audio, "held_out")}
    if not usable:
        raise SpiritLMError(
            "no utterance is held out, so units cannot be judged: raise audio.held_out_share "
            "(and set audio.held_out_by=speaker to hold out whole speakers)"
        )
    return head(sorted(usable, key=lambda key: rank(seed, key)), usable, max_seconds)


def head(keys: Sequence[str], seconds: dict[str, float], most: float) -> list[str]:
    """The first of `keys` until `most` seconds are full; at least one."""
    before = np.cumsum([0.0, *(seconds[key] for key in keys)])[:-1]
    return [key for key, start in zip(keys, before, strict=True) if start < most]


def _rows(audio: TableView, split: str) -> list[dict[str, Any]]:
    table = audio.read(_LISTING)
    good = pc.and_(pc.is_null(table["reject_stage"]), pc.fill_null(pc.equal(table["split"], split), fill_value=False))
    rows: list[dict[str, Any]] = table.filter(good).to_pylist()
    return rows


def describe(audio: TableView, clips: Sequence[Clip]) -> dict[str, Any]:
    """Speakers and minutes of the clips scored, and which of these speakers are in the train split too."""
    train = _rows(audio, "train")
    speakers = {clip.speaker for clip in clips if clip.speaker}
    return {
        "clips": len(clips),
        "minutes": round(sum(clip.seconds for clip in clips) / 60, 2),
        "speakers": sorted(speakers),
        "speakers_also_in_train": sorted(speakers & {row["speaker"] for row in train}),
        "train_minutes": round(sum(row["duration"] or 0.0 for row in train) / 60, 2),
        "train_speakers": len({row["speaker"] for row in train if row["speaker"]}),
    }
