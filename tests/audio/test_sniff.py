"""Which files may be recordings, told from their first bytes."""

from __future__ import annotations

import numpy as np
import pytest

from spiritlm_core.intake.sniff import HEAD, looks_like_audio
from tests.audio.files import MUXED, libav_bytes, sound_bytes
from tests.audio.synthetic import voice

WAVE = voice(1.5)


@pytest.mark.parametrize("kind", MUXED)
@pytest.mark.parametrize("name", ["recording", "recording.ts", "recording.bin"])
def test_what_libav_reads_looks_like_audio_whatever_its_name(kind: str, name: str) -> None:
    rate = 44_100 if MUXED[kind] in ("aac", "mp2", "ac3") else 16_000
    assert looks_like_audio(libav_bytes(WAVE, kind, MUXED[kind], rate)[:HEAD], name)


def test_a_sphere_header_looks_like_audio() -> None:
    assert looks_like_audio(sound_bytes(WAVE, "NIST")[:HEAD], "utterance")


@pytest.mark.parametrize("name", ["empty.wav", "clip.FLAC", "call.g722", "film.mkv"])
def test_a_name_that_claims_sound_is_taken_seriously(name: str) -> None:
    assert looks_like_audio(b"", name)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Hello, these are my recordings.\n" * 100,
        b"export const answer: number = 42;\n" * 100,
        b"1\n00:00:00,000 --> 00:00:01,000\nsubtitles\n\n2\n00:00:01,000 --> 00:00:02,000\nmore\n",
        b"WEBVTT\n\n00:00.000 --> 00:01.000\nsubtitles\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile other.wav\n",
        b"RIFF\x24\x00\x00\x00WEBPVP8 ",
        b"\0\0\0\x1cftypheic\0\0\0\0",
        b"\0\0\0\x1cftypavif\0\0\0\0",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(200),
        b"GIF89a" + bytes(200),
        b"%PDF-1.7\n" + bytes(200),
        b"PK\x03\x04" + bytes(200),
        b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk",
        bytes(HEAD),
        b"\0\1\0\0" + b"text \xff\xfb in the middle" * 100,
    ],
)
def test_texts_pictures_subtitles_and_playlists_do_not_look_like_audio(head: bytes) -> None:
    assert not looks_like_audio(head, "file.ts")


def test_noise_seldom_looks_like_audio() -> None:
    source = np.random.default_rng(0)
    assert sum(looks_like_audio(source.bytes(HEAD), "weights.bin") for _ in range(300)) <= 3


def test_a_long_cover_picture_hides_nothing() -> None:
    assert looks_like_audio(b"ID3\4\0\0\0\7\x7f\x7f" + bytes(HEAD), "song")  # the frames begin 128 kB further on
