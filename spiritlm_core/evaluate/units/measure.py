"""All figures of one tokenizer on the held-out clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.cores import pick_device
from spiritlm_core.evaluate.config import UnitEvaluationConfig
from spiritlm_core.evaluate.units.abx import Task, angular, error_rates, make_task, unequal
from spiritlm_core.evaluate.units.candidates import Candidate
from spiritlm_core.evaluate.units.labels import DRAWS, Labels, agreement, classes_of, interval, phones_of_units
from spiritlm_core.evaluate.units.voice import (
    as_sent,
    changes,
    f0_figures,
    histograms,
    robustness,
    speaker_probe,
    tracks,
    windows,
)
from spiritlm_core.fit.clips import Clip, head, perplexity
from spiritlm_core.speech.grid import RATES_HZ, SAMPLE_RATE
from spiritlm_core.speech.pitch.f0 import Melody
from spiritlm_core.speech.types import Units, by_frame


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The clips with everything about them that no tokenizer has a part in."""

    clips: Sequence[Clip]
    labels: Labels
    config: UnitEvaluationConfig

    @cached_property
    def phones(self) -> dict[str, NDArray[np.int64]]:
        """Phone class of each 25 Hz frame, by utterance id, of the clips that have labels."""
        classes, labelled = classes_of(self.labels), self.labels.phones
        return {
            clip.key: phones_of_units(labelled[clip.key], len(clip.waveform), classes)
            for clip in self.clips
            if clip.key in labelled
        }

    @cached_property
    def abx(self) -> Task:
        """Minimal pairs of triphones."""
        config = self.config
        return make_task(
            self.clips, self.labels, most_cells=config.abx_cells, most_tokens=config.abx_tokens, seed=config.seed
        )

    @cached_property
    def changed(self) -> list[Clip]:
        """The clips that are changed and encoded again."""
        seconds = {clip.key: clip.seconds for clip in self.clips}
        return list(self.clips[: len(head([*seconds], seconds, self.config.robustness_minutes * 60))])

    @cached_property
    def melodies(self) -> list[tuple[Melody, int]]:
        """F0 of every piece."""
        return tracks((clip.waveform for clip in self.clips), pick_device())


def measure(candidate: Candidate, data: HeldOut) -> dict[str, Any]:
    """Every figure of a tokenizer, JSON values; what cannot be had is ``{"missing": why}``."""
    config = data.config
    waveforms, speakers = [clip.waveform for clip in data.clips], [clip.speaker for clip in data.clips]
    keys = [clip.key for clip in data.clips]
    units = dict(zip(keys, candidate.encode(waveforms, speakers), strict=True))
    streams = {name: [getattr(units[key], name) for key in keys] for name in candidate.sizes}
    seconds = sum(clip.seconds for clip in data.clips)
    figures = {name: stream_figures(name, streams[name], size, seconds) for name, size in candidate.sizes.items()}
    frames = {clip.key: by_frame(units[clip.key].hubert, len(clip.waveform), candidate.hop) for clip in data.clips}
    conditions = changes(config.snrs, config.speeds, config.seed)
    return {
        "name": candidate.name,
        "about": candidate.about,
        "units_per_second": round(sum(figure["units_per_second"] for figure in figures.values()), 4),
        "bitrate": round(sum(figure["bitrate"] for figure in figures.values()), 4),
        "streams": figures,
        "phones": _phones(frames, data),
        "abx": _abx(candidate, frames, data),
        "pitch": f0_figures(candidate.pitch, data.melodies) if candidate.pitch else {"missing": "no pitch units"},
        "robustness": robustness(candidate.encode, data.changed, units, conditions),
        "speaker": _speaker(units, candidate, data),
    }


def _phones(units: Mapping[str, NDArray[np.int16]], data: HeldOut) -> dict[str, Any]:
    if data.labels.why_none or not any((phones >= 0).any() for phones in data.phones.values()):
        return {"missing": data.labels.why_none or "no labelled frame"}
    keys, config = list(data.phones), data.config
    streams = [units[key] for key in keys], [data.phones[key] for key in keys]
    return agreement(*streams, samples=config.bootstrap_samples, seed=config.seed)


_NO_CELLS = {
    "within": "no speaker says two phones in the same surroundings",
    "across": "no two held-out speakers say two phones in the same surroundings",
}


def _abx(candidate: Candidate, units: Mapping[str, NDArray[np.int16]], data: HeldOut) -> dict[str, Any]:
    """Error rates on units (0 if equal, else 1) and on the features below them (angle)."""
    if data.labels.why_none or not any(data.abx.cells.values()):
        return {"missing": data.labels.why_none or "no minimal pair of triphones"}
    clips = [clip for clip in data.clips if clip.key in data.phones]
    features = candidate.features([clip.waveform for clip in clips])
    vectors = {clip.key: _unit_length(frames) for clip, frames in zip(clips, features, strict=True)}
    figures = {
        "units": error_rates(data.abx, {key: units[key] for key in data.phones}, unequal),
        "features": error_rates(data.abx, vectors, angular),
    }
    cells = {name: len(cells) for name, cells in data.abx.cells.items()}
    absent = {name: _NO_CELLS[name] for name, count in cells.items() if not count}
    return {"cells": cells, "absent": absent, **{name: _rounded(rates) for name, rates in figures.items()}}


def _unit_length(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(frames, axis=1, keepdims=True)
    return np.asarray(frames / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def _rounded(rates: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if rate is None else round(rate, 5) for name, rate in rates.items()}


def _speaker(units: Mapping[str, Units], candidate: Candidate, data: HeldOut) -> dict[str, Any]:
    """The probe on each stream, and on all of them together where there are several."""
    config, sizes, pieces = data.config, candidate.sizes, []
    rates = RATES_HZ | {"hubert": SAMPLE_RATE / candidate.hop}
    for clip in data.clips:
        streams = {name: getattr(units[clip.key], name) for name in sizes}
        pieces += [(clip, window) for window in windows(streams, rates, config.probe_seconds)]
    features = {name: histograms([window[name] for _, window in pieces], size) for name, size in sizes.items()}
    if len(features) > 1:
        features["all"] = np.concatenate(list(features.values()), axis=1)
    speakers, keys = [clip.speaker for clip, _ in pieces], [clip.key for clip, _ in pieces]
    return {
        name: speaker_probe(values, speakers, keys, folds=config.probe_folds, seed=config.seed)
        for name, values in features.items()
    }


def differences(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """PNMI of each later tokenizer minus that of each earlier one, with intervals over the same resamples."""
    measured = [result for result in results if DRAWS in result["phones"]]
    return [_difference(first, second) for first, second in combinations(measured, 2)]


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    gain = second["phones"]["pnmi"] - first["phones"]["pnmi"]
    low, high = interval(gain, np.array(second["phones"][DRAWS]) - np.array(first["phones"][DRAWS]))
    figures = {"pnmi": gain, "pnmi_low": low, "pnmi_high": high}
    named = {name: round(value, 5) for name, value in figures.items()}
    return {"of": second["name"], "over": first["name"], **named, "verdict": _verdict(low, high)}


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no difference shown"


def stream_figures(stream: str, units: Sequence[NDArray[np.integer[Any]]], size: int, seconds: float) -> dict[str, Any]:
    """Rates, bits and codebook use of one stream over all clips, int[N] each, as JSON values.

    `bitrate` is that of the stream as the language model gets it (runs collapsed, but for style): units per second
    times the entropy of their frequencies, in bits; `bitrate_flat` counts log2(`size`) bits for each of them.
    `perplexity` is of the frames.
    """
    sent = np.array([unit for clip in units for unit in as_sent(stream, clip)], np.int64)
    frames = np.concatenate([np.zeros(0, np.int64), *units]).astype(np.int64)
    rate = len(sent) / seconds
    bits = np.log2(perplexity(sent, size)) if len(sent) else 0.0
    figures = {
        "frames_per_second": len(frames) / seconds,
        "units_per_second": rate,
        "bitrate": rate * bits,
        "bitrate_flat": rate * np.log2(size),
        "perplexity": perplexity(frames, size),
    }
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    return {"size": size, "used": len(np.unique(frames)), "frames": len(frames), **rounded}
