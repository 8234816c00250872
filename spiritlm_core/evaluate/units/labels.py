"""Phone labels of speech: a forced alignment of its transcript by pocketsphinx.

The package (BSD licence) carries a GMM-HMM acoustic model and a pronunciation dictionary of US English, so nothing is
downloaded. Its boundaries have errors of their own, the same for every tokenizer that is judged by them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.align.teacher import Pocketsphinx
from spiritlm_core.audio.codec import to_int16
from spiritlm_core.evaluate.clips import Clip
from spiritlm_core.language import main_code
from spiritlm_core.speech.grid import CHUNK, FRAME, RECEPTIVE_FIELD, piece_lengths, unit_count
from spiritlm_core.tokens.words import words_of as spelled

SILENCE = "SIL"
RATE = 100
"""Label frames per second."""

_SHORTEST = 0.2  # seconds; the decoder wants a few frames


@dataclass(frozen=True)
class Phone:
    """One phone: its name, without stress, and the 10 ms frames ``start <= t < end``."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Labels:
    """Phones of the clips that could be aligned, by utterance id, and why the others could not."""

    phones: dict[str, list[Phone]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def why_none(self) -> str | None:
        """The most frequent reason when no clip at all has labels."""
        if self.phones:
            return None
        return max(self.skipped, key=lambda reason: self.skipped[reason]) if self.skipped else "no clips"

    def to_dict(self) -> dict[str, Any]:
        """Counts as JSON values."""
        names = {phone.name for phones in self.phones.values() for phone in phones}
        return {"clips": len(self.phones), "classes": len(names), "skipped": self.skipped, "missing": self.why_none}


def align_phones(clips: Sequence[Clip]) -> Labels:
    """Align every clip whose transcript can be pronounced; the others are counted by reason."""
    labels, skipped = {}, Counter[str]()
    decoder = Pocketsphinx(cmn="batch")  # normalises each clip by itself, so that labels depend on no other
    for clip in clips:
        phones = _unfit(clip) or _phones(decoder, clip)
        if isinstance(phones, str):
            skipped[phones] += 1
        else:
            labels[clip.key] = phones
    return Labels(labels, dict(sorted(skipped.items())))


def _unfit(clip: Clip) -> str | None:
    """Why a clip cannot be aligned, as far as can be told without a decoder."""
    if main_code(clip.language) != "en":
        return f"no pronunciation dictionary for language {clip.language}"
    if not (clip.text or "").strip():
        return "no transcript"
    if not words_of(clip.text or ""):
        return "transcript with letters beyond a to z"
    return "too short" if clip.seconds < _SHORTEST else None


def words_of(text: str) -> list[str]:
    """Lower-case words of an English transcript, numbers and symbols spelled out; none if it has letters beyond a-z."""
    plain = " ".join(part for word in spelled(text, "en") for part in word.spoken)
    if re.search(r"[^a-z'\s\-]", plain):
        return []
    return [word for word in (raw.strip("'") for raw in re.sub(r"[^a-z']", " ", plain).split()) if word]


def _phones(decoder: Pocketsphinx, clip: Clip) -> list[Phone] | str:
    """Phones of a clip, or why there are none."""
    words = words_of(clip.text or "")
    if not decoder.knows(words):
        return "word not in the dictionary"
    if (alignment := decoder.sounds(to_int16(clip.waveform), words)) is None:
        return "not aligned"
    return [Phone(_class(p.name), p.start, p.start + p.duration) for word in alignment for p in word]


def _class(name: str) -> str:
    """Noises, which pocketsphinx writes ``+NSN+``, count as silence."""
    return SILENCE if name.startswith("+") else name


def unit_centres(samples: int) -> NDArray[np.float64]:
    """Centre of what each 40 ms frame of a waveform sees, in label frames, float64[N]."""
    begins = [CHUNK * i + FRAME * np.arange(unit_count(length)) for i, length in enumerate(piece_lengths(samples))]
    return (np.concatenate([np.zeros(0), *begins]) + RECEPTIVE_FIELD / 2) * RATE / 16_000


def phones_of_units(phones: Sequence[Phone], samples: int, classes: dict[str, int]) -> NDArray[np.int64]:
    """Class of the phone at the centre of each unit, int64[N]; -1 where there is none."""
    centres = unit_centres(samples)
    labels = np.full(len(centres), -1, np.int64)
    for phone in phones:
        labels[(centres >= phone.start) & (centres < phone.end)] = classes[phone.name]
    return labels


def classes_of(labels: Labels) -> dict[str, int]:
    """Phone names numbered in alphabetical order."""
    names = sorted({phone.name for phones in labels.phones.values() for phone in phones})
    return {name: index for index, name in enumerate(names)}
