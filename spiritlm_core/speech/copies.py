"""The same recording heard otherwise: a part of a frame later, at another speed, in another room.

The same words then have other units, which is more to learn from than the recording alone.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig, Span
from spiritlm_core.speech.grid import FRAME, SAMPLE_RATE
from spiritlm_core.speech.settings import Seed

if TYPE_CHECKING:
    import numpy as np

    from spiritlm_core.audio.samples import Waveform

Speed = Annotated[float, Field(ge=0.5, le=2)]
_COLOURS = (0.0, 2.0)  # of a room's noise, from white to brown


class CopiesConfig(FrozenConfig):
    """How often each train recording is encoded besides as it is; training draws one encoding in each epoch.

    Synthetic speech is not: it is varied where it is made.
    """

    shifts: int = Field(
        default=0, ge=0, le=15, description="Copies that begin a part of a frame later: of n, copy k by k / (n + 1)."
    )
    speeds: tuple[Speed, ...] = Field(
        default=(),
        max_length=8,
        description="Speeds of copies played faster (1.1) or slower (0.9); pitch goes along.",
    )
    rooms: int = Field(default=0, ge=0, le=16, description="Copies heard in a room with noise, drawn for each clip.")
    reverberation: float = Field(
        default=0.5, gt=0, le=3, description="Longest seconds in which sound falls by 60 dB in a room."
    )
    snr: Span = Field(default=(5.0, 30.0), description="Lowest and highest signal-to-noise ratio in a room, in dB.")
    seed: Seed = 0

    @model_validator(mode="after")
    def _changed(self) -> Self:
        if 1.0 in self.speeds or len(set(self.speeds)) < len(self.speeds):
            raise ValueError("speeds must be different from each other and from 1, the recording as it is")
        return self

    def idle(self) -> AbstractSet[str]:
        """What rooms are like, where there are none."""
        return frozenset() if self.rooms else {"reverberation", "snr", "seed"}

    @property
    def changes(self) -> list[Change]:
        """What is done for each copy, in the order in which copies are stored."""
        speeds = [Change(speed=speed) for speed in self.speeds]
        return [*shifts(self.shifts), *speeds, *(Change(room=number) for number in range(1, self.rooms + 1))]


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
        return heard_in_room(changed, config, _generator(config.seed, name, self.room)) if self.room else changed


def shifts(count: int) -> list[Change]:
    """`count` copies, each a part of a frame later: the frame is cut into as many parts as there are encodings."""
    return [Change(start=FRAME * number // (count + 1)) for number in range(1, count + 1)]


def played(waveform: Waveform, speed: float) -> Waveform:
    """`waveform` at `speed`, float32[ceil(T / speed)], resampled: pitch and formants go along."""
    import numpy as np
    from scipy.signal import resample_poly

    ratio = Fraction(speed).limit_denominator(100)
    resampled: Waveform = resample_poly(waveform, ratio.denominator, ratio.numerator).astype(np.float32)
    return resampled


def heard_in_room(waveform: Waveform, config: CopiesConfig, rng: np.random.Generator) -> Waveform:
    """`waveform` with the echo of a simulated room and its noise, float32[T]."""
    from spiritlm_core.audio.resample import add_noise, reverberate

    echoed = reverberate(waveform, config.reverberation * rng.uniform(0.1, 1.0), rng)
    return add_noise(echoed, rng.uniform(*config.snr), rng.uniform(*_COLOURS), rng)


def _generator(seed: int, name: str, room: int) -> np.random.Generator:
    import numpy as np

    from spiritlm_core.tokens.counter import key_of

    return np.random.default_rng(key_of(seed, name, room))
