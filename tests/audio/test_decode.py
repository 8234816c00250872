"""What an item may be, what decides on its format, how its channels become one."""

from __future__ import annotations

import http.server
import io
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.plane import AudioPlane

from spiritlm_core.audio import resample
from spiritlm_core.audio.codec import read_mono
from spiritlm_core.audio.config import LimitsConfig
from spiritlm_core.audio.decode import TooLong
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.errors import Rejection, SpiritLMError
from tests.audio.files import MUXED, libav_bytes, sound_bytes
from tests.audio.synthetic import voice

WAVE = voice(1.5)
WAV = sound_bytes(WAVE, "WAV", subtype="PCM_16")
FLAC = sound_bytes(WAVE, "FLAC", subtype="PCM_16")


def _mono(data: bytes, name: str = "x.wav", channel: int | None = None, **limits: float) -> np.ndarray:
    return read_mono(io.BytesIO(data), name, channel, LimitsConfig(**limits))


def _with_rate(rate: int) -> bytes:
    return WAV[:24] + struct.pack("<I", rate) + WAV[28:]


@pytest.mark.parametrize("kind", MUXED)
@pytest.mark.parametrize("name", ["x.wav", "x.g722", "x.mp3", "x.txt", "x"])
def test_content_decides_and_not_the_name(kind: str, name: str) -> None:
    rate = 44_100 if MUXED[kind] in ("aac", "mp2", "ac3") else 16_000
    assert abs(len(_mono(libav_bytes(WAVE, kind, MUXED[kind], rate), name)) - len(WAVE)) < 2500


@pytest.mark.parametrize(
    "data",
    [
        b"These are only words.\n" * 300,
        "Auch das ist Text: äöü.\n".encode() * 300,
        b"PK\3\4" + bytes(range(256)) * 20,
        b"%PDF-1.7\n" + bytes(range(256)) * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
        b"RIFF\0\0\0\0WEBP" * 99,
    ],
)
def test_what_is_something_else_is_not_read_as_g722(data: bytes) -> None:
    with pytest.raises(Rejection, match=r"cannot be decoded|no audio stream"):
        _mono(data, "x.g722")


@pytest.mark.parametrize("name", ["sounds/x.G722", "file:///sounds/x.g722", "prompts://en/x"])
def test_headerless_g722_is_known_by_its_name(name: str) -> None:
    assert len(_mono(libav_bytes(WAVE, "g722", "g722"), name)) == len(WAVE)


@pytest.mark.parametrize("rate", [0, 1, 3_999, 768_001, 2_147_483_629, 4_294_967_295])
def test_rates_out_of_bounds_are_rejected_with_the_bound(rate: int) -> None:
    with pytest.raises(Rejection, match=r"4000 to 768000 Hz \(min_rate, max_rate\)|cannot be decoded"):
        _mono(_with_rate(rate))


@pytest.mark.parametrize("rate", [4_000, 44_101, 767_999, 768_000])
def test_rates_within_bounds_are_read(rate: int) -> None:
    for samples in (_mono(_with_rate(rate)), as_waveform(_with_rate(rate))):
        assert abs(len(samples) - len(WAVE) * 16_000 / rate) <= 1


def test_a_length_beyond_the_bounds_is_no_promise() -> None:
    endless = FLAC[:21] + bytes([FLAC[21] | 0xF]) + b"\xff\xff\xff\xff" + FLAC[26:]  # the number of all samples
    hours = FLAC[:21] + bytes([FLAC[21] & 0xF0]) + struct.pack(">I", 10 * 3600 * 16_000) + FLAC[26:]
    assert len(_mono(endless)) == len(WAVE)
    with pytest.raises(Rejection, match="truncated: its header promises 36000"):
        _mono(hours)


def test_lengths_and_channels_out_of_bounds_are_rejected_with_the_bound() -> None:
    with pytest.raises(TooLong, match=r"longer than 1 s \(max_hours\)"):
        _mono(WAV, max_hours=1 / 3600)
    with pytest.raises(Rejection, match=r"3 channels, at most 2 are allowed \(max_channels\)"):
        _mono(sound_bytes(np.stack([WAVE] * 3, 1), "WAV"), max_channels=2)
    with pytest.raises(SpiritLMError, match="3 channels, at most 2"):
        as_waveform(sound_bytes(np.stack([WAVE] * 3, 1), "WAV"))


@pytest.mark.parametrize("channel", [2, 99_999, -1, -2])
def test_a_channel_that_is_not_there_is_rejected(channel: int) -> None:
    with pytest.raises(Rejection, match=f"no channel {channel}: it has 2"):
        _mono(sound_bytes(np.stack([WAVE, WAVE], 1), "WAV"), channel=channel)


@pytest.mark.parametrize("gains", [(1, -1), (-0.5, 0.5), (0.9, -1), (1, -1, 0.01, 0), (1e-3, -1e-3)])
def test_channels_that_cancel_each_other_leave_the_louder_one(gains: tuple[float, ...]) -> None:
    data = sound_bytes(np.stack([gain * WAVE for gain in gains], 1), "WAV", subtype="FLOAT")
    loudest = max(gains, key=abs)
    np.testing.assert_allclose(_mono(data) / 32768, loudest * WAVE, atol=2e-5)
    np.testing.assert_allclose(as_waveform(data) if len(gains) == 2 else loudest * WAVE, loudest * WAVE, atol=2e-5)


@pytest.mark.parametrize("gains", [(1, 0), (0.3, 1), (1, -0.5), (1,), (1, 1, 1, 1, 1, 1)])
def test_other_channels_are_averaged(gains: tuple[float, ...]) -> None:
    data = sound_bytes(np.stack([gain * WAVE for gain in gains], 1), "WAV", subtype="FLOAT")
    np.testing.assert_allclose(_mono(data) / 32768, np.mean(gains) * WAVE, atol=2e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, 3e38])
def test_samples_that_are_no_sound_are_rejected(bad: float) -> None:
    wave = WAVE.copy()
    wave[100] = bad
    for data in (sound_bytes(wave, "WAV", subtype="FLOAT"), sound_bytes(wave, "WAV", 44_100, "DOUBLE")):
        with pytest.raises(Rejection, match=r"no numbers|no sound"):
            _mono(data)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_long_recordings_are_resampled_in_blocks_without_seams(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sound_bytes(voice(3.0, rate=rate), "WAV", rate, "PCM_16")
    whole = as_waveform(data)
    monkeypatch.setattr(resample, "_BLOCK", 9_000)
    np.testing.assert_allclose(as_waveform(data), whole, atol=1e-6)
    assert whole.shape == (48_000,)


def test_a_picture_or_subtitles_are_no_audio() -> None:
    subtitles = b"1\n00:00:00,000 --> 00:00:01,000\nsaid\n\n2\n00:00:01,000 --> 00:00:02,000\nmore\n"
    with pytest.raises(Rejection, match="no audio stream|cannot be decoded"):
        _mono(subtitles)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html><body>404 Not Found</body></html>", "it is text, which begins '<html><body>404 Not"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull` fetches the file itself"),
        (bytes(range(256)), "Invalid data"),
    ],
)
def test_text_under_the_name_of_a_recording_is_quoted(data: bytes, reason: str) -> None:
    with pytest.raises(Rejection, match=f"cannot be decoded: .*{reason}"):
        _mono(data)


def test_a_header_that_points_beyond_what_a_file_can_be_is_a_rejection(tmp_path: Path) -> None:
    nut = libav_bytes(WAVE, "nut", "pcm_s16le")
    (tmp_path / "x").write_bytes(nut[: len(nut) * 6 // 10])
    with (tmp_path / "x").open("rb") as file, pytest.raises(Rejection, match="points far beyond its end"):
        read_mono(file, "x", None, LimitsConfig())


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """The address of a server of this machine, and the paths that were asked for."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


@pytest.mark.parametrize("name", ["x.m3u8", "x.ffconcat", "x.mpd", "x.sdp", "x.wav", "x.pls", "x.ism", "x.g722"])
def test_what_a_playlist_names_is_not_opened(name: str, tmp_path: Path, visits: tuple[str, list[str]]) -> None:
    address, seen = visits
    secret = tmp_path / "secret.wav"
    secret.write_bytes(WAV)
    for target in (f"{address}/clip.wav", secret.as_uri(), str(secret), secret.name, f"concat:{secret}|{secret}"):
        playlists = [
            f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-VERSION:3\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile '{target}'\n",
            f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
            (
                '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet><Representation '
                f'mimeType="audio/mp4"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
            ),
        ]
        for playlist in playlists:
            path = tmp_path / name
            path.write_text(playlist)
            with path.open("rb") as file, pytest.raises(Rejection):
                read_mono(file, name)
    assert seen == []


_CHILD = """
import io, resource, sys
from pathlib import Path
from spiritlm_core.audio.codec import read_mono, store_mono
from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import check_level
from spiritlm_core.errors import Rejection

for path in sys.argv[1:]:
    data = Path(path).read_bytes()
    try:
        check_level(store_mono(io.BytesIO(data), path), AudioConfig())
        read_mono(io.BytesIO(data), path)
    except Rejection:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_every_channel_of_more_than_eight_is_read() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wv") as box:
        stream = box.add_stream("wavpack", rate=16_000, layout="hexadecagonal")
        samples = np.tile(np.arange(16, dtype=np.int16)[:, None] * 1024, 4096)  # the encoder keeps eight bits
        frame = av.AudioFrame(format="s16p", layout="hexadecagonal", samples=4096)
        for index, row in enumerate(samples):
            AudioPlane(frame, index).update(row.tobytes())
        frame.sample_rate = 16_000
        box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    for channel in (0, 8, 15):
        found = read_mono(io.BytesIO(buffer.getvalue()), "x.wv", channel)
        assert np.array_equal(found, np.full(4096, channel * 1024))


def _peak(tmp_path: Path, *files: bytes) -> int:
    """Mebibytes that a process has at its peak that reads `files`."""
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", _CHILD, *map(str, paths)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Mebibytes that a process needs for ordinary files."""
    return _peak(tmp_path_factory.mktemp("usual"), WAV, FLAC, _with_rate(44_100))


def test_memory_does_not_grow_with_what_a_header_says(tmp_path: Path, usual: int) -> None:
    hours = FLAC[:21] + bytes([FLAC[21] | 0xF]) + b"\xff\xff\xff\xff" + FLAC[26:]  # the number of all samples
    rates = [_with_rate(rate) for rate in (1, 3_999, 16_001, 767_999, 768_001, 2_147_483_629, 4_294_967_295)]
    wide = [WAV[:22] + struct.pack("<H", count) + WAV[24:] for count in (64, 65, 512, 65_535)]
    aligned = [WAV[:32] + struct.pack("<HH", 65_535, bits) + WAV[36:] for bits in (8, 16, 64)]
    assert _peak(tmp_path, hours, *rates, *wide, *aligned) < usual + 60


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path: Path, usual: int) -> None:
    silence = sound_bytes(np.zeros(3 * 3600 * 16_000, np.int16), "FLAC", subtype="PCM_16")
    assert len(silence) < 1_000_000
    assert _peak(tmp_path, silence) < usual + 120  # three hours are 346 MB
