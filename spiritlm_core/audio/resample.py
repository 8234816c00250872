"""Samples of any rate to 16 kHz, piece by piece, so that memory does not grow with the recording.

And what happens to speech on its way: a room, noise, a telephone, a distance. Each takes and gives float32[T] at
16 kHz, and draws what it draws from the generator it is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.audio.decode import Pieces
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.lake.schema import SAMPLE_RATE

if TYPE_CHECKING:
    import av


# 256 taps per phase: flat to 7.5 kHz, aliases below -94 dB above 8.2 kHz (libswresample's default lets -15 dB through)
_SETTINGS = f"{SAMPLE_RATE}:filter_size=128:cutoff=0.97"
_PIECE = 1 << 16  # samples handed to libav at once
_BLOCK = 1 << 22  # samples handed to torchaudio at once
_FINEST = 4000  # largest terms of torchaudio's ratio: its filter grows with them, 44 101 Hz would take gigabytes


def by_libav(pieces: Pieces) -> Iterator[np.ndarray]:
    """float32[n] pieces at 16 kHz of those of any rate; what is at 16 kHz already passes untouched."""
    graph, at = None, 0
    for piece, rate in pieces:
        if rate == SAMPLE_RATE:
            yield piece
            continue
        graph = graph or _graph(rate)
        for first in range(0, len(piece), _PIECE):
            part = piece[first : first + _PIECE]
            graph.push(_frame(part, rate, at))
            at += len(part)
            yield from _pull(graph)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph)


def by_torchaudio(pieces: Pieces) -> Iterator[np.ndarray]:
    """The same with `torchaudio.functional.resample` and its default filter; rates of odd ratios go through libav."""
    first = next(pieces, None)
    if first is None:
        return
    pieces, rate = chain([first], pieces), first[1]
    if rate == SAMPLE_RATE or max(SAMPLE_RATE, rate) // math.gcd(rate, SAMPLE_RATE) > _FINEST:
        yield from by_libav(pieces)
        return
    yield from _blockwise((piece for piece, _ in pieces), rate)


def _blockwise(pieces: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Each block is resampled with as much around it as the filter sees; a short recording is one block."""
    import torch

    resampler = _torch_resampler(rate)
    old, new = (n // math.gcd(rate, SAMPLE_RATE) for n in (rate, SAMPLE_RATE))
    around = -(-resampler.width // old)  # in periods of the two rates
    block = max(1, _BLOCK // old)
    before, held, count = 0, [], 0  # of `held`, the first `before` periods are done
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count >= (before + block + around) * old:
            joined = np.concatenate(held)
            made = resampler(torch.from_numpy(joined)).numpy()
            done = len(joined) // old - around
            yield made[before * new : done * new]
            joined = joined[(done - around) * old :].copy()
            before, held, count = around, [joined], len(joined)
    yield resampler(torch.from_numpy(np.concatenate(held))).numpy()[before * new :]


@lru_cache(maxsize=8)
def _torch_resampler(rate: int) -> Any:
    """`torchaudio.functional.resample` with its filter kept: making that takes longer than a short recording does."""
    import torch
    from torchaudio.transforms import Resample

    return Resample(rate, SAMPLE_RATE, dtype=torch.float32)


def _graph(rate: int) -> av.filter.Graph:
    import av.filter

    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono")
    resample, sink = graph.add("aresample", _SETTINGS), graph.add("abuffersink")
    source.link_to(resample)
    resample.link_to(sink)
    graph.configure()
    return graph


def _frame(samples: np.ndarray, rate: int, at: int) -> av.AudioFrame:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate, frame.pts = rate, at
    return frame


def _pull(graph: av.filter.Graph) -> Iterator[np.ndarray]:
    import av

    while True:
        try:
            yield graph.pull().to_ndarray()[0]
        except (av.BlockingIOError, av.EOFError):
            return


_SILENCE = 1e-8  # least mean power against which noise is measured
_PEAK = 0.98  # of full scale


def reverberate(waveform: Waveform, seconds: float, rng: np.random.Generator) -> Waveform:
    """A room whose sound falls by 60 dB in `seconds`: noise that decays exponentially, 0 to 12 dB below the voice."""
    from scipy.signal import fftconvolve

    time = np.arange(1, round(seconds * SAMPLE_RATE) + 1) / SAMPLE_RATE
    tail = rng.normal(size=len(time)) * 10.0 ** (-3 * time / seconds)
    tail *= 10 ** (-rng.uniform(0, 12) / 20) / np.sqrt((tail**2).sum())
    echo = fftconvolve(waveform, np.concatenate([[0.0], tail]))[: len(waveform)]
    return (waveform + echo).astype(np.float32)


def add_noise(waveform: Waveform, snr: float, colour: float, rng: np.random.Generator) -> Waveform:
    """Noise with power 1 / frequency ** `colour` (0 white, 1 pink, 2 brown), `snr` decibels below the mean power."""
    spectrum = np.fft.rfft(rng.normal(size=len(waveform)))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1 + 50 * len(waveform) // SAMPLE_RATE) ** (-colour / 2)
    noise = np.fft.irfft(spectrum, len(waveform))
    power = max(float(np.mean(waveform.astype(np.float64) ** 2)), _SILENCE) / 10 ** (snr / 10)
    return (waveform + noise * np.sqrt(power / np.mean(noise**2))).astype(np.float32)


def limit_band(waveform: Waveform, rate: int) -> Waveform:
    """Down to `rate` hertz and back to 16 kHz: nothing above half of it is left of float32[T]."""
    from scipy.signal import resample_poly

    shared = math.gcd(rate, SAMPLE_RATE)
    low, high = rate // shared, SAMPLE_RATE // shared
    return resample_poly(resample_poly(waveform, low, high), high, low)[: len(waveform)].astype(np.float32)


def at_loudness(waveform: Waveform, dbfs: float) -> Waveform:
    """float32[T] at a mean level of `dbfs` decibels of full scale, or as near to it as the peak allows."""
    level, peak = math.sqrt(float(np.mean(waveform.astype(np.float64) ** 2))), float(np.max(np.abs(waveform)))
    if not peak:
        return waveform
    return waveform * np.float32(min(10 ** (dbfs / 20) / level, _PEAK / peak))
