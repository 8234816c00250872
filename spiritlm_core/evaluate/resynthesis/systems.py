"""What is compared: the recording itself, plain inversions (Griffin-Lim), and speech tokenizers with their vocoders."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.transforms import GriffinLim, InverseMelScale, MelSpectrogram

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.fit.clips import Clip
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.grid import FRAME, hop_of
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.speech.types import Units, by_frame

HOP = 160
FRAMES_PER_UNIT = FRAME // HOP
_SIZE, _BANDS, _LOWEST = 1024, 80, 1e-5

LogMel = NDArray[np.float32]


class MelInverter:
    """80 mel bands of 64 ms windows every 10 ms, and back by Griffin & Lim 1984, beginning with zero phase.

    The accelerated form (Perraudin et al. 2013) was tried: no fewer word errors, and a larger mel-cepstral distortion.
    """

    def __init__(self, iterations: int) -> None:
        shared = {"n_mels": _BANDS, "sample_rate": SAMPLE_RATE, "mel_scale": "slaney", "norm": "slaney"}
        self._mel = MelSpectrogram(n_fft=_SIZE, hop_length=HOP, power=1.0, **shared)
        self._linear = InverseMelScale(n_stft=_SIZE // 2 + 1, **shared)
        # a random phase would be drawn from torch's global generator
        self._phase = GriffinLim(_SIZE, iterations, hop_length=HOP, power=1.0, momentum=0.0, rand_init=False)

    def log_mel(self, waveform: Waveform) -> LogMel:
        """Natural logarithm of mel magnitudes, float32[T // 160 + 1, 80], of float32[T]."""
        with torch.inference_mode():
            mel = self._mel(torch.from_numpy(waveform)).clamp(min=_LOWEST)
        return np.asarray(mel.log().T.contiguous().numpy(), np.float32)

    def waveform(self, log_mel: LogMel, samples: int) -> Waveform:
        """The waveform float32[samples] of float32[F, 80]; silence where there are too few frames."""
        with torch.no_grad():
            linear = self._linear(torch.from_numpy(log_mel).T.exp())
            samples_out = self._phase(linear).clamp(-1, 1).numpy()[:samples]
        return np.pad(samples_out, (0, samples - len(samples_out))).astype(np.float32)


class UnitMeans:
    """A vocoder that is not trained: every frame of a unit sounds like the mean log-mel spectrum of that unit."""

    def __init__(self, inverter: MelInverter, spoken: Iterable[tuple[NDArray[np.integer], Waveform]]) -> None:
        """Fit the means to units int[N] at 25 Hz and the waveform of each train clip, at least one."""
        self._inverter = inverter
        sums: dict[int, NDArray[np.float64]] = {}
        counts: dict[int, int] = {}
        for units, waveform in spoken:
            frames = inverter.log_mel(waveform)
            repeated = np.repeat(units, FRAMES_PER_UNIT)[: len(frames)]
            for unit in np.unique(repeated).tolist():
                chosen = frames[: len(repeated)][repeated == unit]
                sums[unit] = sums.get(unit, np.zeros(_BANDS)) + chosen.sum(axis=0, dtype=np.float64)
                counts[unit] = counts.get(unit, 0) + len(chosen)
        self.means = {unit: (sums[unit] / counts[unit]).astype(np.float32) for unit in sorted(sums)}
        overall = sum(sums.values()) / sum(counts.values())
        self._unknown = np.asarray(overall, np.float32)
        """The spectrum of a unit that no train clip has."""

    def waveform(self, units: NDArray[np.integer]) -> Waveform:
        """float32[640 * N] of int[N] units, not collapsed."""
        rows = [self.means.get(unit, self._unknown) for unit in np.asarray(units).tolist()]
        log_mel = np.repeat(np.stack(rows), FRAMES_PER_UNIT, axis=0)
        return self._inverter.waveform(np.concatenate([log_mel, log_mel[-1:]]), FRAME * len(rows))


ORIGINAL = "original"
INVERSION = "Griffin-Lim of own mel"


@dataclass(frozen=True)
class System:
    """A way from a recording back to a waveform."""

    name: str  # in the table
    about: str  # what it is, in a few words
    timed: bool  # whether it keeps the time of everything; otherwise clips are warped in time before they are compared
    render: Callable[[Clip], Waveform]  # from a clip to a waveform float32[T'] at 16 kHz


def references(inverter: MelInverter) -> list[System]:
    """The recording, and what Griffin-Lim makes of its own log-mel spectrogram: a plain inversion at its best."""

    def inverted(clip: Clip) -> Waveform:
        return inverter.waveform(inverter.log_mel(clip.waveform), len(clip.waveform))

    return [
        System(ORIGINAL, "the recording itself", True, lambda clip: clip.waveform),
        System(INVERSION, "no units: 80 mel bands of the recording, and Griffin-Lim for the phase", True, inverted),
    ]


def systems_of(
    tokenizers: Iterable[tuple[str, SpeechTokenizer]], iterations: int, train: Sequence[Clip]
) -> Iterator[System]:
    """The :func:`references`, and the systems of speech tokenizers by name; `iterations` are those of Griffin-Lim."""
    inverter = MelInverter(iterations)
    yield from references(inverter)
    for name, tokenizer in tokenizers:
        yield from tokenizer_systems(name, tokenizer, inverter, train)


def tokenizer_systems(
    name: str, tokenizer: SpeechTokenizer, inverter: MelInverter | None = None, train: Iterable[Clip] = ()
) -> Iterator[System]:
    """The systems of one speech tokenizer, called `name` in the table.

    With a vocoder there are two: timing kept, and by way of collapsed tokens with predicted durations, as for the
    answers of a language model. A clip whose speaker the vocoder knows has that voice, others its default. With an
    `inverter` and `train`, clips on which the mean spectrum of each unit is fitted, there is a third one without a
    vocoder.

    Raises SpiritLMError: there is neither a vocoder nor train speech; ModelReferenceError: the vocoder cannot be
    loaded.
    """
    encode = _remembered(tokenizer)
    spoken = [(_by_frame(_encoded(tokenizer, clip), clip), clip.waveform) for clip in train]
    if not (tokenizer.has_vocoder or spoken):
        raise SpiritLMError(
            f"{name} has no vocoder, and there is no train speech to stand in for one: nothing to judge"
        )
    if inverter is not None and spoken:
        yield _means(name, inverter, spoken, encode)
    if tokenizer.has_vocoder:
        yield from _vocoded(name, tokenizer, encode)


def _means(
    name: str, inverter: MelInverter, spoken: list[tuple[NDArray[np.int16], Waveform]], encode: Callable[[Clip], Units]
) -> System:

    means, minutes = UnitMeans(inverter, spoken), sum(len(w) for _, w in spoken) / 960_000
    about = f"mean log-mel of each HuBERT unit over {minutes:.1f} minutes of train speech, Griffin-Lim; timing kept"
    return System(f"{name}, unit means", about, True, lambda clip: means.waveform(_by_frame(encode(clip), clip)))


def _by_frame(units: Units, clip: Clip) -> NDArray[np.int16]:
    samples = len(clip.waveform)
    return by_frame(units.hubert, samples, hop_of(len(units.hubert), samples))


def _vocoded(name: str, tokenizer: SpeechTokenizer, encode: Callable[[Clip], Units]) -> Iterator[System]:
    vocoder = tokenizer.vocoder

    def kept(clip: Clip) -> Waveform:
        return tokenizer.decode(encode(clip), vocoder.speaker_id(clip.speaker), predict_durations=False)

    def predicted(clip: Clip) -> Waveform:
        return tokenizer.decode(tokenizer.to_string(encode(clip)), vocoder.speaker_id(clip.speaker))

    yield System(f"{name}, timing kept", "units as encoded, 40 ms each, and the vocoder", True, kept)
    yield System(f"{name}, predicted", "collapsed tokens, durations predicted by the vocoder", False, predicted)


def _encoded(tokenizer: SpeechTokenizer, clip: Clip) -> Units:
    return tokenizer.encode(clip.waveform, speaker=clip.speaker)


def _remembered(tokenizer: SpeechTokenizer) -> Callable[[Clip], Units]:
    """Each clip is encoded once for all systems, and alone, so that its units do not depend on the others."""
    known: dict[str, Units] = {}

    def encode(clip: Clip) -> Units:
        if clip.key not in known:
            known[clip.key] = _encoded(tokenizer, clip)
        return known[clip.key]

    return encode
