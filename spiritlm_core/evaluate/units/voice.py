"""What units tell of a voice (F0, voicing, who speaks), and how far they move when the recording changes.

Robustness is the unit edit distance of Gat et al. 2023 (arXiv 2209.15483, section 3.1): Levenshtein distance between
the collapsed units of a clip and of its changed copy. Here the sum over clips is divided by the number of collapsed
units of the originals (theirs by the number of frames), so that 1 means as many edits as there are units. Collapsing
takes the durations out, so a faster copy needs no other rescaling of time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.resample import limit_band
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.fit.clips import Clip
from spiritlm_core.metrics.distances import collapse, errors
from spiritlm_core.speech.copies import played
from spiritlm_core.speech.grid import RATES_HZ
from spiritlm_core.speech.pitch.f0 import LOWEST, Melody, melody
from spiritlm_core.speech.types import Units, chunks

if TYPE_CHECKING:
    from spiritlm_core.speech.pitch.coder import PitchCoder


Floats = NDArray[np.float64]
_REFERENCE = 200.0  # hertz, of models that work on octaves
_UNKNOWN_VOICING = "this model's voicing output is no probability"


def tracks(waveforms: Iterable[NDArray[np.float32]], device: str = "cpu") -> list[tuple[Melody, int]]:
    """F0 of each piece of the waveforms, beside its number of samples."""
    return [(melody(piece, device), len(piece)) for waveform in waveforms for piece in chunks(waveform)]


def f0_figures(coder: PitchCoder, melodies: Iterable[tuple[Melody, int]]) -> dict[str, Any]:
    """Errors of F0 and voicing after encoding and decoding, as JSON values; `melodies` are those of :func:`tracks`.

    `f0_rmse_cents` is over the frames (200 Hz) that are voiced in the recording; `f0_spread_cents` is the same for
    a decoder that always says the mean of the piece, so an error above it means that nothing was learnt.
    `voicing_error` is the share of all frames whose voicing is wrong. Where a model works on F0 relative to the mean
    of the piece, it is given that mean back.
    """
    parts = [part for track, samples in melodies for part in _piece(coder, track, samples)]
    if not parts:
        return {"missing": "no speech long enough for a pitch unit"}
    error, spread, wrong = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return {
        "voiced_frames": len(error),
        "f0_rmse_cents": _rms(error),
        "f0_spread_cents": _rms(spread),
        "voicing_error": round(float(wrong.mean()), 5) if coder.config.scale == "octaves" else None,
        **({} if coder.config.scale == "octaves" else {"voicing_missing": _UNKNOWN_VOICING}),
    }


def _rms(cents: Floats) -> float | None:
    return round(float(np.sqrt((cents**2).mean())), 2) if len(cents) else None


def _piece(coder: PitchCoder, track: Melody, samples: int) -> Iterator[tuple[Floats, Floats, NDArray[np.bool_]]]:
    """Error and spread of voiced frames in cents, and whether voicing is wrong, of one piece; nothing if too short."""
    given = coder.contour(track, samples)
    if not given.shape[1]:
        return
    level, voicing = coder.reconstruct(coder.encode(given))
    f0, voiced = (values[: len(level)] for values in track.stretched(samples))
    error = spread = np.zeros(0)
    if voiced.any():
        octaves = np.log2(f0[voiced].astype(np.float64))
        spread = 1200 * (octaves - octaves.mean())
        error = 1200 * (_octaves(level[voiced], track, samples, coder) - octaves)
    yield error, spread, (voicing > 0.5) != voiced


def _octaves(level: NDArray[np.float32], track: Melody, samples: int, coder: PitchCoder) -> Floats:
    """Decoded F0 in octaves above 1 Hz; below the lowest F0 that can be voiced it counts as that."""
    f0, voiced = track.stretched(samples)  # the mean is over all of it, the units leave out an incomplete last hop
    in_octaves = coder.config.scale == "octaves"
    known = np.log2(f0[voiced]) if in_octaves else f0[voiced]
    base = np.log2(_REFERENCE) if in_octaves else 0.0
    decoded = level.astype(np.float64) + (known.mean() if coder.config.relative else base)
    return np.asarray(decoded if in_octaves else np.log2(np.maximum(decoded, LOWEST)))


_STRENGTH = 1.0


def windows(
    units: Mapping[str, NDArray[np.integer[Any]]], rates: Mapping[str, float], seconds: float
) -> list[dict[str, NDArray[np.integer[Any]]]]:
    """Cut the streams of a clip, of `rates` a second, into pieces of equal time; one that is not full is left out."""
    full = min(int(len(stream) / (rates[name] * seconds)) for name, stream in units.items())
    edges = {name: np.round(np.arange(full + 1) * rates[name] * seconds).astype(int) for name in units}
    return [{name: stream[edges[name][i] : edges[name][i + 1]] for name, stream in units.items()} for i in range(full)]


def histograms(units: Sequence[NDArray[np.integer[Any]]], size: int) -> NDArray[np.float64]:
    """Share of each unit in each piece, float64[pieces, size]; a piece without units is a row of zeros."""
    counts = np.array([np.bincount(piece.astype(np.int64), minlength=size) for piece in units]).reshape(-1, size)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def speaker_probe(
    features: NDArray[np.float64], speakers: Sequence[str | None], clips: Sequence[str], *, folds: int, seed: int
) -> dict[str, Any]:
    """Balanced accuracy of logistic regression from features to speakers, cross-validated over clips.

    Every piece, float64[pieces, D], is judged by a probe that was fitted on other clips, features standardised on
    these; the accuracy is the mean over speakers of the share of their pieces that are recognised, so chance is one
    over their number. Speakers with fewer clips than folds take no part. Returns ``accuracy``, ``chance``,
    ``speakers``, ``pieces``; or ``missing``, why there is no figure.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    usable = _speakers_with(folds, speakers, clips)
    if len(usable) < 2:
        return {"missing": f"fewer than two speakers with {folds} clips"}
    kept = [i for i, name in enumerate(speakers) if name in usable]
    names, groups = np.array([str(speakers[i]) for i in kept]), np.array([clips[i] for i in kept])
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=2000, class_weight="balanced", random_state=seed)
    )
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    guessed = cross_val_predict(probe, features[kept], names, groups=groups, cv=splits)
    accuracy = float(balanced_accuracy_score(names, guessed))
    counts = {"speakers": len(usable), "pieces": len(kept)}
    return {"accuracy": round(accuracy, 4), "chance": round(1 / len(usable), 4), **counts}


def _speakers_with(count: int, speakers: Sequence[str | None], clips: Sequence[str]) -> set[str]:
    """Speakers of at least `count` clips."""
    pieces_of: dict[str, set[str]] = defaultdict(set)
    for speaker, clip in zip(speakers, clips, strict=True):
        if speaker:
            pieces_of[speaker].add(clip)
    return {speaker for speaker, theirs in pieces_of.items() if len(theirs) >= count}


Change = Callable[[Clip], Waveform]


def changes(snrs: Sequence[float], speeds: Sequence[float], seed: int) -> dict[str, Change]:
    """The conditions by name, such as ``noise 10 dB``, ``8 kHz`` and ``speed 0.9``."""
    noises = {f"noise {snr:g} dB": partial(_noisy, snr=snr, seed=seed) for snr in snrs}
    tempos = {f"speed {speed:g}": lambda clip, speed=speed: played(clip.waveform, speed) for speed in speeds}
    return {**noises, "8 kHz": lambda clip: limit_band(clip.waveform, 8000), **tempos}


def _noisy(clip: Clip, snr: float, seed: int) -> Waveform:
    """With randomness that depends on seed and clip alone."""
    key = int.from_bytes(hashlib.sha256(clip.key.encode()).digest()[:8])
    return add_noise(clip.waveform, snr, np.random.default_rng([seed, key]))


def add_noise(waveform: Waveform, snr: float, rng: np.random.Generator) -> Waveform:
    """White Gaussian noise `snr` decibels below the mean power of float32[T]."""
    power = float(np.mean(waveform.astype(np.float64) ** 2)) / 10 ** (snr / 10)
    return (waveform + rng.normal(0.0, np.sqrt(power), len(waveform))).astype(np.float32)


def distances(clean: Sequence[Units], changed: Sequence[Units]) -> dict[str, float | None]:
    """Unit edit distance of each stream that there is; None where the originals have no unit."""
    rates: dict[str, float | None] = {}
    for stream in RATES_HZ:
        before, after = ([getattr(units, stream) for units in side] for side in (clean, changed))
        if any(units is None for units in before):
            continue
        found = errors(before, after, partial(as_sent, stream))
        rates[stream] = round(found.rate, 5) if sum(found.length) else None
    return rates


def as_sent(stream: str, units: NDArray[np.integer]) -> list[int]:
    """A stream as the language model gets it: runs collapsed, but for style."""
    return units.tolist() if stream == "style" else collapse(units.tolist())


def robustness(
    encode: Callable[[Sequence[Waveform], Sequence[str | None]], list[Units]],
    clips: Sequence[Clip],
    clean: Mapping[str, Units],
    conditions: Mapping[str, Change],
) -> dict[str, dict[str, float | None]]:
    """Condition → stream → unit edit distance of the changed clips from `clean`, the units of the originals by id."""
    speakers = [clip.speaker for clip in clips]
    originals = [clean[clip.key] for clip in clips]
    return {
        name: distances(originals, encode([change(clip) for clip in clips], speakers))
        for name, change in conditions.items()
    }
