"""Files of every format with damaged headers: a sound or a rejection, and nothing else."""

from __future__ import annotations

import contextlib
import io
import random

import pytest

from spiritlm_core.audio.codec import read_mono
from spiritlm_core.errors import Rejection
from tests.audio.files import MUXED, libav_bytes, sound_bytes
from tests.audio.synthetic import voice

WAVE = voice(0.5)
SOUNDFILE = ["NIST", "CAF", "RF64", "W64", "WAVEX", "IRCAM", "SVX", "HTK", "PAF"]
NUMBERS = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]


def _whole(kind: str) -> bytes:
    if kind in SOUNDFILE:
        return sound_bytes(WAVE, kind, subtype="PCM_16")
    return libav_bytes(WAVE, kind, MUXED[kind], 44_100 if MUXED[kind] in ("aac", "mp2", "ac3") else 16_000)


def _damaged(data: bytes, source: random.Random) -> bytes:
    """A few bits, bytes, numbers or gaps somewhere in the first bytes."""
    found = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 4])):
        at = source.randrange(min(len(found), source.choice([64, 128, 400, 2000])))
        how = source.choice(["bit", "byte", "number", "gap"])
        if how == "bit":
            found[at] ^= 1 << source.randrange(8)
        elif how == "byte":
            found[at] = source.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif how == "number":
            value = source.choice([*NUMBERS, source.getrandbits(32)])
            found[at : at + 4] = value.to_bytes(4, source.choice(["little", "big"]))
        else:
            del found[at : at + source.randrange(1, 9)]
    return bytes(found)


def _try_all(kind: str, seed: int, count: int) -> None:
    source, data = random.Random(f"{kind} {seed}"), _whole(kind)  # noqa: S311
    for _ in range(count):
        with contextlib.suppress(Rejection):
            assert read_mono(io.BytesIO(_damaged(data, source)), f"x.{kind}").size


@pytest.mark.parametrize("kind", [*MUXED, *SOUNDFILE])
def test_a_damaged_header_gives_a_sound_or_a_rejection(kind: str) -> None:
    _try_all(kind, 0, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*MUXED, *SOUNDFILE])
def test_many_damaged_headers_give_a_sound_or_a_rejection(kind: str) -> None:
    _try_all(kind, 1, 300)


def test_what_libav_says_of_damage_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    import av.logging

    data = bytearray(_whole("flac"))
    data[len(data) // 2 :: 50] = bytes(len(data[len(data) // 2 :: 50]))
    av.logging.set_level(av.logging.ERROR)  # as a library that is loaded with a model does
    with pytest.raises(Rejection, match="cannot be decoded"):
        read_mono(io.BytesIO(bytes(data)), "x.flac")
    assert [record.message for record in caplog.records if record.name.startswith("libav")] == []
