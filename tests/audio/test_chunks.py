"""Headers that tell a wrong length: all the sound comes out, or a rejection says what is missing."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from spiritlm_core.audio.codec import read_mono
from spiritlm_core.errors import Rejection
from tests.audio.files import libav_bytes, sound_bytes
from tests.audio.synthetic import voice

WAVE = voice(1.0)
COUNT = len(WAVE)


def _big_endian() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, WAVE, 16_000, format="WAV", subtype="PCM_16", endian="BIG")
    return buffer.getvalue()


# a file with a second of sound, the name in front of the length of its samples, that length's format
KINDS = {
    "wav": (sound_bytes(WAVE, "WAV", subtype="PCM_16"), b"data", "<I"),
    "wav of floats": (sound_bytes(WAVE, "WAV", subtype="FLOAT"), b"data", "<I"),
    "wavex": (sound_bytes(np.stack([WAVE, WAVE], 1), "WAVEX", subtype="PCM_24"), b"data", "<I"),
    "rifx": (_big_endian(), b"data", ">I"),
    "8svx": (sound_bytes(WAVE, "SVX", subtype="PCM_16"), b"BODY", ">I"),
    "rf64": (sound_bytes(WAVE, "RF64", subtype="PCM_16"), b"ds64\x1c\0\0\0" + struct.pack("<Q", 32096), "<Q"),
    "w64": (sound_bytes(WAVE, "W64", subtype="PCM_16"), bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"), "<Q"),
    "aiff": (sound_bytes(WAVE, "AIFF", subtype="PCM_16"), b"SSND", ">I"),
    "caf": (sound_bytes(WAVE, "CAF", subtype="PCM_16"), b"data", ">Q"),
    "au": (sound_bytes(WAVE, "AU", subtype="PCM_16"), b".snd\0\0\0\x18", ">I"),
}
UNKNOWN = [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x7FFFFF00, 0x80000000, 0xFFFFF000, 0xFFFFFFFF - 44, 0xFFFFFFFF]


def _promising(kind: str, length: int) -> bytes:
    """The file with another length of its samples."""
    data, name, form = KINDS[kind]
    at = data.index(name) + len(name)
    return data[:at] + struct.pack(form, length) + data[at + struct.calcsize(form) :]


def _length(kind: str) -> int:
    data, name, form = KINDS[kind]
    return int(struct.unpack_from(form, data, data.index(name) + len(name))[0])


def _mono(data: bytes, name: str = "x.wav") -> np.ndarray:
    return read_mono(io.BytesIO(data), name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_length_is_kept(kind: str) -> None:
    assert len(_mono(KINDS[kind][0])) == COUNT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", UNKNOWN)
def test_a_recorder_that_cannot_seek_leaves_the_whole_sound(kind: str, length: int) -> None:
    np.testing.assert_array_equal(_mono(_promising(kind, length)), _mono(KINDS[kind][0]))


@pytest.mark.parametrize("kind", ["rf64", "w64", "caf"])
def test_so_it_is_with_64_bits(kind: str) -> None:
    assert len(_mono(_promising(kind, (1 << 64) - 1))) == COUNT


@pytest.mark.parametrize("length", [0x40000000, 0x7F000000, 0x90000000, 0xC0000024, 0xFFFF0000])
def test_no_recording_is_a_small_part_of_gibibytes(length: int) -> None:
    assert len(_mono(_promising("wav", length))) == COUNT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_recorder_that_died_leaves_the_whole_sound(kind: str, share: float) -> None:
    few = int(_length(kind) * share) & ~31
    np.testing.assert_array_equal(_mono(_promising(kind, few)), _mono(KINDS[kind][0]))


@pytest.mark.parametrize("kind", KINDS)
def test_joined_files_give_the_sound_of_all(kind: str) -> None:
    one = _mono(KINDS[kind][0])
    np.testing.assert_array_equal(_mono(KINDS[kind][0] * 3), np.concatenate([one] * 3))


def test_joined_files_of_other_kinds_and_odd_lengths_give_the_sound_of_both() -> None:
    eight_bit = sound_bytes(WAVE[:-1], "WAV", subtype="PCM_U8")
    for data in (KINDS["wav"][0] + KINDS["aiff"][0], eight_bit + KINDS["wav"][0], eight_bit[:-1] + KINDS["wav"][0]):
        assert abs(len(_mono(data)) - 2 * COUNT) <= 1


def test_joined_files_of_different_rates_are_rejected() -> None:
    with pytest.raises(Rejection, match="changes on the way"):
        _mono(KINDS["wav"][0] + sound_bytes(WAVE, "WAV", 8_000, "PCM_16"))


def test_of_joined_files_the_last_may_be_cut() -> None:
    with pytest.raises(Rejection, match="truncated"):
        _mono(KINDS["wav"][0] + KINDS["wav"][0][:-100])


def test_too_many_joined_files_are_rejected() -> None:
    with pytest.raises(Rejection, match="more than 1000 files"):
        _mono(sound_bytes(WAVE[:8], "WAV", subtype="PCM_16") * 1001)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [100, 20_000])
def test_a_file_that_was_cut_is_rejected(kind: str, missing: int) -> None:
    with pytest.raises(Rejection, match=r"truncated: its header promises \d+ bytes of samples, it has \d+"):
        _mono(KINDS[kind][0][:-missing])


@pytest.mark.parametrize(
    "tail",
    [
        b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0e\0\0\0Lavf60.1.100\0\0",
        b"LIST" + struct.pack("<I", 500) + b"INFO cut",
        b"id3 " + struct.pack("<I", 3) + b"abc\0" + b"JUNK" + struct.pack("<I", 4) + bytes(4),
        b"ID3\4\0\0\0\0\0\x40" + bytes(64),
        b"TAG" + bytes(125),
        bytes(4096),
        b"\0",
    ],
)
def test_metadata_behind_the_sound_is_no_sound(tail: bytes) -> None:
    assert len(_mono(KINDS["wav"][0] + tail)) == COUNT


def test_silence_that_a_header_left_out_is_kept() -> None:
    silence = np.zeros(COUNT, "<i2").tobytes()
    data = _promising("wav", 2 * COUNT) + silence + KINDS["wav"][0][44:]
    assert len(_mono(data)) == 3 * COUNT


@pytest.mark.parametrize(
    ("container", "codec"),
    [("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame"), ("adts", "aac"), ("webm", "libopus")],
)
def test_other_joined_files_give_the_sound_of_both(container: str, codec: str) -> None:
    data = libav_bytes(WAVE, container, codec, 44_100 if codec == "aac" else 16_000)
    assert len(_mono(data + data)) >= 2 * COUNT


def test_joined_mp4_files_are_rejected() -> None:
    data = libav_bytes(WAVE, "mp4", "aac", 44_100)
    with pytest.raises(Rejection, match="several MP4 files joined"):
        _mono(data + data)


@pytest.mark.parametrize(
    ("container", "codec"), [("avi", "pcm_s16le"), ("mp4", "aac"), ("mov", "pcm_s16le"), ("matroska", "libopus")]
)
def test_other_files_that_were_cut_are_rejected(container: str, codec: str) -> None:
    data = libav_bytes(WAVE, container, codec, 44_100 if codec == "aac" else 16_000)
    with pytest.raises(Rejection, match="truncated: its header promises"):
        _mono(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("frames", [0, 100, 0x7FFFFFFF])
def test_the_number_of_frames_in_an_aiff_counts_for_nothing(frames: int) -> None:
    data = _promising("aiff", 0)
    at = data.index(b"COMM") + 10
    assert len(_mono(data[:at] + struct.pack(">I", frames) + data[at + 4 :])) == COUNT


def test_another_kind_of_riff_is_no_damaged_wav() -> None:
    assert len(_mono(libav_bytes(WAVE, "avi", "pcm_s16le"), "x.wav")) == COUNT
    with pytest.raises(Rejection) as caught:
        _mono(b"RIFF" + struct.pack("<I", 200) + b"RMID" + bytes(196))
    assert "WAV" not in str(caught.value)


@pytest.mark.parametrize(("bits", "channels", "align"), [(0, 1, 2), (16, 0, 2), (0, 0, 0), (65535, 1, 2)])
def test_impossible_formats_are_rejected(bits: int, channels: int, align: int) -> None:
    body = struct.pack("<HHIIHH", 1, channels, 16_000, 32_000, align, bits)
    data = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", 16) + body + b"data" + struct.pack("<I", 32_000)
    with pytest.raises(Rejection, match=r"cannot be decoded|no channels|no samples"):
        _mono(data + bytes(32_000))


@pytest.mark.parametrize("number", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
@pytest.mark.parametrize("places", [(4,), (22,), (4, 22)])
def test_the_length_of_an_aiff_and_its_number_of_frames_may_be_anything(number: int, places: tuple[int, ...]) -> None:
    data = bytearray(libav_bytes(WAVE, "aiff", "pcm_s16be", 16_000))
    assert data[12:16] == b"COMM"
    for place in places:
        data[place : place + 4] = struct.pack(">I", number)
    assert len(_mono(bytes(data))) == COUNT


CONTAINERS = {"mpegts": "mp2", "asf": "adpcm_ms", "voc": "pcm_u8", "flv": "mp3", "tta": "tta", "nut": "pcm_s16le"}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_file_that_ends_too_early_or_begins_again_loses_no_sound_without_a_word(kind: str) -> None:
    data = libav_bytes(WAVE, kind, CONTAINERS[kind], 44_100)
    assert len(_mono(data)) >= COUNT - 800
    if kind != "nut":
        with pytest.raises(Rejection, match="truncated|cannot be decoded"):
            _mono(data[: len(data) * 3 // 5 - 5])
    if kind == "mpegts":
        assert len(_mono(data + data)) >= 2 * COUNT - 1600
    else:
        with pytest.raises(Rejection, match="several files joined into one"):
            _mono(data + data)


@pytest.mark.parametrize("kind", ["wav", "aiff", "w64", "caf"])
def test_samples_in_two_places_are_rejected(kind: str) -> None:
    data, name, _ = KINDS[kind]
    with pytest.raises(Rejection, match="two places"):
        _mono(data + data[data.index(name) :])


def test_a_box_of_an_mp4_may_tell_any_length() -> None:
    data = libav_bytes(WAVE, "mp4", "aac", 44_100)
    huge = data + b"\0\0\0\1free" + b"\xff" * 8
    assert len(_mono(huge)) >= COUNT
