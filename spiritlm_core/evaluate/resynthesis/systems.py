"""What is compared: the recording itself, plain inversions, and speech tokenizers with their vocoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.clips import Clip
from spiritlm_core.speech.grid import hop_of
from spiritlm_core.speech.types import by_frame

if TYPE_CHECKING:
    from spiritlm_core.evaluate.resynthesis.griffin_lim import MelInverter
    from spiritlm_core.speech.tokenizer import SpeechTokenizer
    from spiritlm_core.speech.types import Units
    from spiritlm_core.speech.vocoder.vocoder import Vocoder

ORIGINAL = "original"
INVERSION = "Griffin-Lim of own mel"


@dataclass(frozen=True)
class System:
    """A way from a recording back to a waveform.

    Attributes:
        name: In the table.
        about: What it is, in a few words.
        timed: Whether it keeps the time of everything; otherwise clips are warped in time before they are compared.
        render: From a clip to a waveform float32[T'] at 16 kHz.
    """

    name: str
    about: str
    timed: bool
    render: Callable[[Clip], Waveform]


def references(inverter: MelInverter) -> list[System]:
    """The recording, and what Griffin-Lim makes of its own log-mel spectrogram: a plain inversion at its best."""

    def inverted(clip: Clip) -> Waveform:
        return inverter.waveform(inverter.log_mel(clip.waveform), len(clip.waveform))

    return [
        System(ORIGINAL, "the recording itself", True, lambda clip: clip.waveform),
        System(INVERSION, "no units: 80 mel bands of the recording, and Griffin-Lim for the phase", True, inverted),
    ]


def tokenizer_systems(
    name: str, tokenizer: SpeechTokenizer, inverter: MelInverter | None = None, train: Iterable[Clip] = ()
) -> Iterator[System]:
    """The systems of one speech tokenizer.

    Args:
        name: In the table.
        tokenizer: With a vocoder there are two systems: timing kept, and by way of collapsed tokens with predicted
            durations, as for the answers of a language model. A clip whose speaker the vocoder knows has that voice,
            others its default.
        inverter: With this and `train` there is a third one without a vocoder.
        train: Clips on which the mean spectrum of each unit is fitted.

    Raises:
        SpiritLMError: There is neither a vocoder nor train speech.
        ModelReferenceError: The vocoder cannot be loaded.
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
    from spiritlm_core.evaluate.resynthesis.griffin_lim import UnitMeans

    means, minutes = UnitMeans(inverter, spoken), sum(len(w) for _, w in spoken) / 960_000
    about = f"mean log-mel of each HuBERT unit over {minutes:.1f} minutes of train speech, Griffin-Lim; timing kept"
    return System(f"{name}, unit means", about, True, lambda clip: means.waveform(_by_frame(encode(clip), clip)))


def _by_frame(units: Units, clip: Clip) -> NDArray[np.int16]:
    samples = len(clip.waveform)
    return by_frame(units.hubert, samples, hop_of(len(units.hubert), samples))


def _vocoded(name: str, tokenizer: SpeechTokenizer, encode: Callable[[Clip], Units]) -> Iterator[System]:
    vocoder = tokenizer.vocoder

    def kept(clip: Clip) -> Waveform:
        return tokenizer.decode(encode(clip), speaker_of(vocoder, clip), predict_durations=False)

    def predicted(clip: Clip) -> Waveform:
        return tokenizer.decode(tokenizer.to_string(encode(clip)), speaker_of(vocoder, clip))

    yield System(f"{name}, timing kept", "units as encoded, 40 ms each, and the vocoder", True, kept)
    yield System(f"{name}, predicted", "collapsed tokens, durations predicted by the vocoder", False, predicted)


def speaker_of(vocoder: Vocoder, clip: Clip) -> int | None:
    """The vocoder's number of a clip's speaker, None if it knows no such name."""
    return vocoder.speaker_id(clip.speaker) if clip.speaker else None


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
