"""The same recording heard otherwise: a part of a frame later, at another speed, in another room.

The same words then have other units, which is more to learn from than the recording alone.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from spiritlm_core.audio.resample import add_noise, reverberate
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.speech.config import CopiesConfig
from spiritlm_core.speech.grid import FRAME, SAMPLE_RATE
from spiritlm_core.tokens.counter import key_of

_COLOURS = (0.0, 2.0)  # of a room's noise, from white to brown


@dataclass(frozen=True)
class Change:
    """What makes a copy: second t of it was second ``start / 16 000 + speed t`` of the recording."""

    start: int = 0  # samples left out at the beginning
    speed: float = 1.0  # how many times faster it is played
    room: int = 0  # number of the room that it is heard in; 0: none

    @property
    def seconds(self) -> float:
        """Where it begins in the recording."""
        return self.start / SAMPLE_RATE

    def __call__(self, waveform: Waveform, config: CopiesConfig, name: str) -> Waveform:
        """The copy, float32[about T / speed] of float32[T]; what a room is like depends on `name` and the seed."""
        changed = waveform[self.start :]
        if self.speed != 1.0:
            changed = played(changed, self.speed)
        rng = np.random.default_rng(key_of(config.seed, name, self.room))
        return heard_in_room(changed, config, rng) if self.room else changed


def changes_of(config: CopiesConfig) -> list[Change]:
    """What is done for each copy, in the order in which copies are stored."""
    speeds = [Change(speed=speed) for speed in config.speeds]
    rooms = [Change(room=number) for number in range(1, config.rooms + 1)]
    return [*shifts(config.shifts), *speeds, *rooms]


def shifts(count: int) -> list[Change]:
    """`count` copies, each a part of a frame later: the frame is cut into as many parts as there are encodings."""
    return [Change(start=FRAME * number // (count + 1)) for number in range(1, count + 1)]


def played(waveform: Waveform, speed: float) -> Waveform:
    """`waveform` at `speed`, float32[ceil(T / speed)], resampled: pitch and formants go along."""
    from scipy.signal import resample_poly

    ratio = Fraction(speed).limit_denominator(100)
    return resample_poly(waveform, ratio.denominator, ratio.numerator).astype(np.float32)


def heard_in_room(waveform: Waveform, config: CopiesConfig, rng: np.random.Generator) -> Waveform:
    """`waveform` with the echo of a simulated room and its noise, float32[T]."""
    echoed = reverberate(waveform, config.reverberation * rng.uniform(0.1, 1.0), rng)
    return add_noise(echoed, rng.uniform(*config.snr), rng.uniform(*_COLOURS), rng)
