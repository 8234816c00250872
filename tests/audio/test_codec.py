"""Decoding: every format, every way of being broken."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spiritlm_core.audio.codec import decode_flac, encode_flac, read_mono
from spiritlm_core.audio.encode import encode
from spiritlm_core.errors import Rejection
from tests.audio.files import libav_bytes, sound_bytes
from tests.audio.synthetic import voice

WAVE = voice(1.5)


def _formats() -> dict[str, bytes]:
    return {
        "a.wav": sound_bytes(WAVE, "WAV", subtype="PCM_16"),
        "b.wav": sound_bytes(WAVE, "WAV", subtype="PCM_U8"),
        "c.wav": sound_bytes(WAVE, "WAV", subtype="PCM_24"),
        "d.wav": sound_bytes(WAVE, "WAV", subtype="PCM_32"),
        "e.wav": sound_bytes(WAVE, "WAV", subtype="FLOAT"),
        "f.wav": sound_bytes(WAVE, "WAV", subtype="DOUBLE"),
        "g.flac": sound_bytes(WAVE, "FLAC", subtype="PCM_24"),
        "h.ogg": sound_bytes(WAVE, "OGG", subtype="VORBIS"),
        "i.mp3": libav_bytes(WAVE, "mp3", "libmp3lame"),
        "j.opus": libav_bytes(WAVE, "ogg", "libopus", 48_000),
        "k.m4a": libav_bytes(WAVE, "ipod", "aac", 44_100),
        "l.aac": libav_bytes(WAVE, "adts", "aac", 44_100),
        "m.g722": libav_bytes(WAVE, "g722", "g722"),
        "n.aiff": sound_bytes(WAVE, "AIFF", subtype="PCM_16"),
    }


FORMATS = _formats()
# an .aac stream has no header that says how long it is, nor has raw G.722
TELLING = [name for name in FORMATS if not name.endswith((".aac", ".g722"))]


def _mono(data: bytes, name: str = "x.wav", channel: int | None = None) -> np.ndarray:
    return read_mono(io.BytesIO(data), name, channel)


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Greatest correlation over the delays that encoders add."""
    size = 1 << 17
    spectrum = np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size))
    return float(np.fft.irfft(spectrum, size)[:3000].max() / np.sqrt((a**2).sum() * (b**2).sum()))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_to_the_same_sound(name: str) -> None:
    decoded = _mono(FORMATS[name], name)
    assert decoded.dtype == np.int16
    assert abs(len(decoded) - len(WAVE)) < 2500  # AAC pads both ends
    assert _similarity(decoded.astype(float), WAVE.astype(float)) > 0.9  # a fraction of a sample of delay costs some


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_truncated_file_is_rejected(name: str, share: float) -> None:
    data = FORMATS[name]
    with pytest.raises(Rejection, match=r"truncated|cannot be decoded"):
        _mono(data[: int(len(data) * share)], name)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is no audio at all, only some text\n" * 50, "cannot be decoded"),
        (bytes(5000), "cannot be decoded"),
        (sound_bytes(np.array([0.1, np.nan, 0.2] * 400, np.float32), "WAV", subtype="FLOAT"), "no numbers"),
        (sound_bytes(np.array([0.1, np.inf, 0.2] * 400, np.float32), "WAV", subtype="FLOAT"), "no numbers"),
        (sound_bytes(np.zeros(0, np.float32), "WAV", subtype="PCM_16"), "no samples in the file"),
    ],
)  # fmt: skip
def test_what_is_no_audio_is_rejected_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Rejection, match=reason):
        _mono(data)


def test_a_video_without_sound_has_no_audio_stream() -> None:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as box:
        stream = box.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    with pytest.raises(Rejection, match="no audio stream"):
        _mono(buffer.getvalue(), "x.mp4")


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_keeps_length_and_pitch(rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate)
    decoded = _mono(sound_bytes(tone, "WAV", rate, "PCM_24")).astype(float) / 32768
    assert len(decoded) == 32_000
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)
    assert np.abs(decoded - expected)[500:-500].max() < 0.005


def test_resampling_lets_no_alias_through() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 9000 * np.arange(96_000) / 48_000)
    assert np.abs(_mono(sound_bytes(tone, "WAV", 48_000, "PCM_24"))[1000:-1000]).max() < 5


def test_channels_are_averaged_or_picked() -> None:
    left, right = 0.5 * WAVE, -0.25 * WAVE
    data = sound_bytes(np.stack([left, right], 1), "WAV", subtype="PCM_24")
    np.testing.assert_allclose(_mono(data) / 32768, 0.125 * WAVE, atol=1e-4)
    np.testing.assert_allclose(_mono(data, channel=1) / 32768, right, atol=1e-4)
    with pytest.raises(Rejection, match="no channel 2: it has 2"):
        _mono(data, channel=2)


def test_streamed_wav_header_is_no_truncation() -> None:
    data = bytearray(sound_bytes(WAVE, "WAV", subtype="PCM_16"))
    at = data.index(b"data")
    data[at + 4 : at + 8] = data[4:8] = b"\xff\xff\xff\xff"  # what a writer into a pipe leaves
    assert len(_mono(bytes(data))) == len(WAVE)


@given(arrays(np.int16, st.integers(1, 3000)))
def test_flac_is_lossless_for_16_bit(samples: np.ndarray) -> None:
    waveform = decode_flac(encode_flac(samples))
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(np.rint(waveform * 32768).astype(np.int32), samples)


def test_flac_is_16_khz_mono_16_bit_and_clips() -> None:
    data = encode_flac(np.array([0.0, 1.5, -1.5], np.float32))
    info = soundfile.info(io.BytesIO(data))
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    np.testing.assert_allclose(decode_flac(data), [0.0, 32767 / 32768, -1.0])


def test_decode_flac_refuses_another_rate() -> None:
    with pytest.raises(Rejection, match="16000 Hz mono"):
        decode_flac(sound_bytes(WAVE, "FLAC", 8_000, "PCM_16"))


def test_a_whole_wav_says_how_long_it_is() -> None:
    with wave.open(io.BytesIO(encode(np.zeros(1234, np.float32), "wav"))) as file:
        assert file.getnframes() == 1234
