"""Draws that depend on what they are for, and on nothing drawn before.

A choice is made by rendezvous hashing (Thaler and Ravishankar 1998, with weights): each option gets a random number out
of its name and what is drawn for, and the one with the lowest wins. So a new option takes its share from all others,
and every draw that it does not win stays what it was: a corpus of synthetic speech that grows keeps what it has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """What is drawn for, as text; `at` names a part of it."""

    key: str

    def at(self, *parts: object) -> Draw:
        """The draw for a part."""
        return Draw("\x1f".join([self.key, *map(str, parts)]))

    @property
    def number(self) -> int:
        """A random whole number below 2^64."""
        return int.from_bytes(hashlib.blake2b(self.key.encode(), digest_size=8).digest(), "little")

    @property
    def unit(self) -> float:
        """A random number from 0 to below 1."""
        return self.number / 2**64

    def between(self, low: float, high: float) -> float:
        """A random number from `low` to `high`."""
        return low + (high - low) * self.unit

    def whole(self, low: int, high: int) -> int:
        """A random whole number from `low` to `high`, both included."""
        return min(high, low + int((high - low + 1) * self.unit))


class Choice(Generic[T]):
    """Options with weights, of which draws pick."""

    def __init__(self, options: Mapping[str, tuple[T, float]]) -> None:
        """`options` are name → what it stands for, and its weight, greater than zero."""
        self._values = [value for value, _ in options.values()]
        self._weights = np.array([weight for _, weight in options.values()])
        self._hashes = np.array([Draw(name).number for name in options], np.uint64)
        self._is_even = len(set(self._weights.tolist())) == 1

    def pick(self, draw: Draw) -> T:
        """The option with the lowest of -log(u) / weight, which is each in proportion to its weight."""
        if len(self._values) == 1:
            return self._values[0]
        mixed = _mixed(self._hashes ^ np.uint64(draw.number))
        if self._is_even:  # the logarithm falls, so the greatest number has the lowest
            return self._values[mixed.argmax()]
        uniform = (mixed.astype(np.float64) + 0.5) / 2**64
        return self._values[(-np.log(uniform) / self._weights).argmin()]


@lru_cache(maxsize=256)
def evenly(names: tuple[str, ...]) -> Choice[str]:
    """Options of the same weight."""
    return Choice({name: (name, 1.0) for name in names})


def shuffled(names: Sequence[str], draw: Draw) -> list[str]:
    """`names` in an order in which a new one takes some place, and the others keep theirs among each other."""
    return sorted(names, key=lambda name: (draw.at(name).number, name))


def rounded(value: float, digits: int = 3) -> float:
    """`value` to so many significant digits, so that it is short to write down."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mixed(words: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of a word moves every bit of the result.

    `words` are overwritten.
    """
    words ^= words >> _SHIFTS[0]
    words *= _FACTORS[0]
    words ^= words >> _SHIFTS[1]
    words *= _FACTORS[1]
    words ^= words >> _SHIFTS[2]
    return words
