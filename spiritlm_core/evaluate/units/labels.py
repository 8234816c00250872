"""Phone labels of speech, and how much units and phones say about each other.

Labels are a forced alignment of the transcript by pocketsphinx. The package (BSD licence) carries a GMM-HMM acoustic
model and a pronunciation dictionary of US English, so nothing is downloaded. Its boundaries have errors of their own,
the same for every tokenizer that is judged by them.

HuBERT (Hsu et al. 2021, arXiv 2106.07447, section V.B), over frames at 25 Hz. ``p(y, z)`` is the share of frames with
phone y and unit z:

- phone purity ``sum_z max_y p(y, z)``: accuracy of guessing the phone from the unit;
- cluster purity ``sum_y max_z p(y, z)``: accuracy of guessing the unit from the phone; falls with more units;
- PNMI ``I(y; z) / H(y)``: share of the uncertainty about the phone that the unit removes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.align.teacher import Pocketsphinx
from spiritlm_core.audio.codec import to_int16
from spiritlm_core.fit.clips import Clip
from spiritlm_core.language import main_code
from spiritlm_core.metrics.bootstrap import CONFIDENCE
from spiritlm_core.speech.grid import CHUNK, FRAME, RECEPTIVE_FIELD, piece_lengths, unit_count
from spiritlm_core.tokens.words import words_of as spelled

SILENCE = "SIL"
RATE = 100  # label frames per second
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
    sounds = [sound for word in alignment for sound in word]
    names = [SILENCE if sound.name.startswith("+") else sound.name for sound in sounds]  # +NSN+ and its like: noises
    return [Phone(name, p.start, p.start + p.duration) for name, p in zip(names, sounds, strict=True)]


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


Floats = NDArray[np.float64]
DRAWS = "draws"  # key of the PNMI of the bootstrap resamples in a result; for comparing tokenizers, not for reading
_BLOCK = 2_000_000
_ROTATIONS = 10


def interval(value: float, draws: Floats) -> tuple[float, float]:
    """95 % interval around `value` with the spread of `draws`.

    A resample holds fewer distinct frames than the sample, which inflates its estimate of information; so the quantiles
    are taken around the mean of the resamples, not around the value.
    """
    quantiles = np.quantile(draws - draws.mean(), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = (value + quantiles).tolist()
    return low, high


def agreement(
    units: Sequence[NDArray[np.integer[Any]]],
    phones: Sequence[NDArray[np.int64]],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the units of clips, int[N] each, with their phones, int64[N] each; a frame with phone -1 does not count.

    Returns figures over all labelled frames, see the module, and the interval of PNMI, as JSON values. `pnmi_chance` is
    that of the same units against labels that were moved to other places: what a small sample pretends. `DRAWS` has the
    PNMI of resamples of the clips; the same seed draws the same clips for every tokenizer.

    Raises ValueError: lengths differ, or no frame has a phone.
    """
    clips, unit, phone = _flat(units, phones)
    counts = _counts(clips, unit, phone, len(units))
    shape = (int(unit.max()) + 1, int(phone.max()) + 1)
    pnmi, phone_purity, cluster_purity = (float(x[0]) for x in scores(counts.sum(axis=0).reshape(1, *shape)))
    rng = np.random.default_rng(seed)
    draws = _bootstrap(counts, shape, samples, rng)
    low, high = interval(pnmi, draws)
    figures = {"pnmi": pnmi, "pnmi_low": low, "pnmi_high": high, "pnmi_chance": _chance(unit, phone, shape, rng)}
    figures |= {"phone_purity": phone_purity, "cluster_purity": cluster_purity}
    rounded = {name: round(value, 5) for name, value in figures.items()}
    return {"frames": len(unit), **rounded, DRAWS: draws.tolist()}


def _flat(
    units: Sequence[NDArray[np.integer[Any]]], phones: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Clip number, unit and phone of every labelled frame."""
    if [len(u) for u in units] != [len(p) for p in phones]:
        raise ValueError("every frame needs one unit and one phone: the lengths of some clips differ")
    clips = np.repeat(np.arange(len(units)), [len(u) for u in units])
    unit, phone = (np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64) for rows in (units, phones))
    known = phone >= 0
    if not known.any():
        raise ValueError("no frame has a phone")
    return clips[known], unit[known], phone[known]


def _counts(clips: NDArray[np.int64], unit: NDArray[np.int64], phone: NDArray[np.int64], rows: int) -> Any:
    """Joint counts as a sparse matrix [clips, units * phones]."""
    from scipy.sparse import csr_array

    width = int(phone.max()) + 1
    columns = (int(unit.max()) + 1) * width
    return csr_array((np.ones(len(unit)), (clips, unit * width + phone)), shape=(rows, columns))


def scores(joint: Floats) -> tuple[Floats, Floats, Floats]:
    """PNMI, phone purity and cluster purity, float64[S] each, of counts float64[S, units, phones].

    Where all frames have one phone nothing can be learnt about it, and PNMI is 0.
    """
    from scipy.stats import entropy

    joint = joint / joint.sum(axis=(1, 2), keepdims=True)
    unit, phone = joint.sum(axis=2), joint.sum(axis=1)
    uncertainty = entropy(phone, axis=1)
    information = entropy(unit, axis=1) + uncertainty - entropy(joint.reshape(len(joint), -1), axis=1)
    pnmi = np.divide(information, uncertainty, out=np.zeros(len(joint)), where=uncertainty > 0)
    return np.clip(pnmi, 0.0, 1.0), joint.max(axis=2).sum(axis=1), joint.max(axis=1).sum(axis=1)


def _bootstrap(counts: Any, shape: tuple[int, int], samples: int, rng: np.random.Generator) -> Floats:
    """PNMI of resamples of the clips (Efron & Tibshirani 1993, chapter 13)."""
    clips = counts.shape[0]
    weights = rng.multinomial(clips, np.full(clips, 1 / clips), size=samples).astype(np.float64)
    step = max(1, _BLOCK // counts.shape[1])
    blocks = [weights[i : i + step] @ counts for i in range(0, samples, step)]
    filled = (block[block.sum(axis=1) > 0] for block in blocks)  # a resample may hold unlabelled clips only
    return np.concatenate([scores(block.reshape(-1, *shape))[0] for block in filled if len(block)])


def _chance(
    unit: NDArray[np.int64], phone: NDArray[np.int64], shape: tuple[int, int], rng: np.random.Generator
) -> float:
    """Mean PNMI with the units moved along by random amounts, all clips end to end, so that runs stay runs."""
    shifts = rng.integers(len(unit) // 4, len(unit) - len(unit) // 4, _ROTATIONS) if len(unit) > 1 else [0]
    pieces = []
    for shift in shifts:
        index = np.roll(unit, int(shift)) * shape[1] + phone
        joint = np.bincount(index, minlength=shape[0] * shape[1]).reshape(1, *shape)
        pieces.append(float(scores(joint.astype(np.float64))[0][0]))
    return float(np.mean(pieces))
