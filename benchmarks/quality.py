"""How well noise is estimated and copies of recordings are found.

    python benchmarks/quality.py SPEECH… --noise FOLDER [--clips 280]

SPEECH are files or folders of speech, in which nothing comes twice; FOLDER holds recordings of noise. Sixteen clips of
speech are mixed with each noise, and with white and brown noise, at known ratios, and the columns `snr` told are
compared with these. Every tenth clip is then made anew: as MP3 or Opus, 3 to 12 dB softer, without its first 0.3 s.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer
from machine import recordings
from numpy.typing import NDArray

from spiritlm_core.audio.codec import read_mono, to_float32
from spiritlm_core.audio.encode import AudioFormat, encode
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.quality.duplicates import duplicates
from spiritlm_core.quality.fingerprint import fingerprint, spectra
from spiritlm_core.quality.signal import measure, wada_snr

Waveform = NDArray[np.float32]
LEVELS = (0, 5, 10, 15, 20)


def noises(folder: Path) -> Iterator[tuple[str, Waveform]]:
    """White and brown noise of 30 s, and every recording of the folder."""
    white = np.random.default_rng(0).standard_normal(30 * SAMPLE_RATE).astype(np.float32)
    brown = np.cumsum(white)
    yield from (("white", white), ("brown", brown - np.convolve(brown, np.full(4000, 1 / 4000), "same")))
    yield from ((path.stem, np.trim_zeros(as_waveform(path))) for path in recordings(folder))


def mixed(speech: Waveform, noise: Waveform, level: float) -> Waveform:
    """Speech with noise that is `level` dB softer in the mean of its squares."""
    noise = np.resize(noise, len(speech))
    gain = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-level / 20)
    return np.asarray(0.5 * (speech + gain * noise), np.float32)


def snr_of(waveform: Waveform) -> float:
    return cast("float", measure(waveform)["snr"])


def show_snr(clips: list[Waveform], folder: Path) -> None:
    """Mean error in dB by noise and level, of the column `snr` and of WADA alone."""
    print("noise".ljust(26) + "".join(f"{level:>5} dB" for level in LEVELS) + "   and WADA alone")
    for name, noise in noises(folder):
        told, wada = [], []
        for level in LEVELS:
            mixtures = [mixed(clip, noise, level) for clip in clips]
            told.append(np.mean([abs(snr_of(each) - level) for each in mixtures]))
            wada.append(np.mean([abs(wada_snr(each) - level) for each in mixtures]))
        print(name.ljust(26) + "".join(f"{error:8.1f}" for error in (*told, *wada)), flush=True)


def copy(clip: Waveform, number: int) -> Waveform:
    """The clip as MP3 or Opus, softer and cut."""
    kind: AudioFormat = "mp3" if number % 2 else "opus"
    softer = clip[int(0.3 * SAMPLE_RATE) :] * np.float32(10 ** (-(3 + number % 10) / 20))
    return to_float32(read_mono(io.BytesIO(encode(softer, kind)), f"copy.{kind}"))


def show_copies(clips: list[Waveform], folder: Path) -> None:
    """Precision and recall of copies among all clips and noises."""
    copies = [copy(clip, number) for number, clip in enumerate(clips[::10])]
    others = [as_waveform(path) for path in recordings(folder)]
    found = duplicates([fingerprint(spectra(each)[0]) for each in (*clips, *others, *copies)])
    first = len(clips) + len(others)
    right = sum(place >= first and kept == 10 * (place - first) for place, (kept, _) in found.items())
    worst = max((match.errors for _, match in found.values()), default=0.0)
    print(
        f"{len(clips)} clips, {len(others)} noises, {len(copies)} copies: {len(found)} found, {right} of them rightly"
    )
    print(f"precision {right / max(1, len(found)):.3f}, recall {right / len(copies):.3f}, bits that differ {worst:.0%}")


def main(
    speech: list[Path], noise: Annotated[Path, typer.Option()], clips: Annotated[int, typer.Option(min=1)] = 280
) -> None:
    """Measure with so many clips of speech, of each folder as many as it takes."""
    share = -(-clips // len(speech))
    paths = [path for each in speech for path in recordings(each)[:share]]
    waveforms = [as_waveform(path)[: 30 * SAMPLE_RATE] for path in paths[:clips]]
    show_copies(waveforms, noise)
    show_snr(waveforms[:: max(1, len(waveforms) // 16)][:16], noise)


if __name__ == "__main__":
    typer.run(main)
