"""How much units and phones say about each other: purity and phone-normalised mutual information.

HuBERT (Hsu et al. 2021, arXiv 2106.07447, section V.B), over frames at 25 Hz. ``p(y, z)`` is the share of frames with
phone y and unit z:

- phone purity ``sum_z max_y p(y, z)``: accuracy of guessing the phone from the unit;
- cluster purity ``sum_y max_z p(y, z)``: accuracy of guessing the unit from the phone; falls with more units;
- PNMI ``I(y; z) / H(y)``: share of the uncertainty about the phone that the unit removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.metrics.bootstrap import CONFIDENCE

Floats = NDArray[np.float64]
_BLOCK = 2_000_000
_ROTATIONS = 10


@dataclass(frozen=True, eq=False)
class Agreement:
    """Figures over all frames, and the PNMI of each bootstrap resample.

    Attributes:
        frames: Number of labelled frames.
        pnmi: See the module.
        phone_purity: See the module.
        cluster_purity: See the module.
        chance: PNMI of the same units against labels that were moved to other places: what a small sample
            pretends.
        draws: PNMI of resamples of the clips, float64[S]; the same seed draws the same clips for every tokenizer.
    """

    frames: int
    pnmi: float
    phone_purity: float
    cluster_purity: float
    chance: float
    draws: Floats

    def to_dict(self) -> dict[str, Any]:
        """Figures with the interval of PNMI, as JSON values."""
        low, high = interval(self.pnmi, self.draws)
        figures = {"pnmi": self.pnmi, "pnmi_low": low, "pnmi_high": high, "pnmi_chance": self.chance}
        purities = {"phone_purity": self.phone_purity, "cluster_purity": self.cluster_purity}
        return {"frames": self.frames, **{name: round(value, 5) for name, value in {**figures, **purities}.items()}}


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
) -> Agreement:
    """Compare the units of clips with their phones.

    Args:
        units: int[N] each, one unit per frame.
        phones: int64[N] each, one phone class per frame; a frame with -1 does not count.
        samples: Bootstrap resamples of the clips.
        seed: Seed of resampling and rotating.

    Raises:
        ValueError: Lengths differ, or no frame has a phone.
    """
    clips, unit, phone = _flat(units, phones)
    counts = _counts(clips, unit, phone, len(units))
    shape = (int(unit.max()) + 1, int(phone.max()) + 1)
    pnmi, phone_purity, cluster_purity = (float(x[0]) for x in scores(counts.sum(axis=0).reshape(1, *shape)))
    rng = np.random.default_rng(seed)
    return Agreement(
        frames=len(unit),
        pnmi=pnmi,
        phone_purity=phone_purity,
        cluster_purity=cluster_purity,
        draws=_bootstrap(counts, shape, samples, rng),
        chance=_chance(unit, phone, shape, rng),
    )


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
    joint = joint / joint.sum(axis=(1, 2), keepdims=True)
    unit, phone = joint.sum(axis=2), joint.sum(axis=1)
    uncertainty = _entropy(phone)
    information = _entropy(unit) + uncertainty - _entropy(joint.reshape(len(joint), -1))
    pnmi = np.divide(information, uncertainty, out=np.zeros(len(joint)), where=uncertainty > 0)
    return np.clip(pnmi, 0.0, 1.0), joint.max(axis=2).sum(axis=1), joint.max(axis=1).sum(axis=1)


def _entropy(shares: Floats) -> Floats:
    """Nats of each row."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: Floats = -(shares * logs).sum(axis=1)
    return entropy


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
