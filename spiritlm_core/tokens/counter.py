"""Random numbers by counting: a pure function of a 64-bit key, the same on every machine and NumPy version.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). NumPy's own
generators may change their streams between versions, and one of them per document costs more than the document.
"""

import hashlib

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ALL = 2**64 - 1
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


def key_of(*parts: str | int) -> int:
    """A 64-bit key from names and numbers; different parts give unrelated keys."""
    text = "".join(f"{len(str(part))}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def mix(keys: np.ndarray) -> np.ndarray:
    """SplitMix64's output function, elementwise and one to one. uint64[N] to uint64[N]."""
    z = (keys ^ (keys >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


def combine(keys: np.ndarray, salt: int) -> np.ndarray:
    """New keys, uint64[N], unrelated to those made with another 64-bit `salt`."""
    return mix(mix(keys + _GAMMA) ^ np.uint64(salt))


def uniform(key: int, number: int) -> float:
    """Draw `number` of the stream of `key`, even over [0, 1)."""
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & _ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53
