"""The whole of ingest: a folder of good and bad files to rows of the audio table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AUDIO, AudioStage
from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import ShardingConfig, parse_source
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.sources.folder import FolderSource
from spiritlm_core.intake.statcache import StatCache, sha256_of
from tests.audio.files import libav_bytes, sound, sound_bytes
from tests.audio.synthetic import talk, voice
from tests.support.items import Item, group_items, identified, list_items

LONG_SECONDS = 360.0


def _ingest(items: list[Item], config: AudioConfig | None = None) -> list[dict]:
    stage = AudioStage(config or AudioConfig(), {})
    stage.setup()
    table = stage.process(items_table(items, RECORDINGS))
    assert table.schema == AUDIO
    return table.to_pylist()


def _list(root: Path, **options: object) -> list[Item]:
    return list_items(FolderSource(path=str(root), **options), "en", StatCache())


def _spoken(seed: int) -> np.ndarray:
    """3 s: half a second of faint noise, 2 s of voice, half a second of noise."""
    wave = (1e-3 * np.random.default_rng(seed).standard_normal(48_000)).astype(np.float32)
    wave[8_000:40_000] += voice(2.0)
    return wave


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad") / "root"
    sound(root / "good.wav", _spoken(0), subtype="PCM_16")
    (root / "good.txt").write_text("Good.")
    (root / "empty.wav").touch()
    flac = sound_bytes(_spoken(1), "FLAC", subtype="PCM_16")
    (root / "cut.flac").write_bytes(flac[: len(flac) * 2 // 3])
    sound(root / "short.wav", voice(0.05), subtype="PCM_16")
    sound(root / "noise.wav", 0.1 * np.random.default_rng(2).standard_normal(48_000), subtype="PCM_16")
    sound(root / "silent.wav", 1e-5 * np.random.default_rng(2).standard_normal(48_000), subtype="PCM_16")
    sound(root / "clipped.wav", np.clip(40 * _spoken(9), -1, 1), subtype="PCM_16")
    (root / "text.wav").write_text("I am no recording.\n" * 100)
    fine = np.repeat(_spoken(3), 6)  # 96 kHz
    sound(root / "fine.wav", np.stack([fine, 0.5 * fine], 1), 96_000, "PCM_24")
    sound(root / "coarse.wav", _spoken(4), subtype="PCM_U8")
    sound(root / "x.wav", _spoken(5), subtype="PCM_16").rename(root / os.fsdecode(b"n\xe4me.wav"))
    sound(root.parent / "outside.wav", _spoken(6), subtype="PCM_16")
    (root / "link.wav").symlink_to(root.parent / "outside.wav")
    (root / "ghost.txt").write_text("No recording.")
    (root / "copy.wav").write_bytes((root / "good.wav").read_bytes())
    (root / "long.opus").write_bytes(libav_bytes(talk(LONG_SECONDS, 7), "ogg", "libopus", 48_000))
    (root / "long.txt").write_text("A long story.")
    (root / "README.md").write_text("These are recordings.")
    return root


@pytest.fixture(scope="module")
def bad_rows(bad_folder: Path) -> list[dict]:
    groups = group_items(_list(bad_folder), (), ShardingConfig(shard_items=5))
    return [row for group in groups for row in _ingest(group)]


def _named(rows: list[dict], name: str) -> list[dict]:
    return [row for row in rows if row["source_uri"].endswith("/" + name)]


def test_every_item_of_a_bad_folder_is_a_row_or_a_rejected_row(bad_folder: Path, bad_rows: list[dict]) -> None:
    items = _list(bad_folder)
    assert len(items) == 15
    assert {row["source_uri"] for row in bad_rows} == {item.source_uri for item in items}
    good = {row["source_uri"].rpartition("/")[2] for row in bad_rows if not row["reject_reason"]}
    assert good == {"good.wav", "fine.wav", "coarse.wav", "n%E4me.wav", "long.opus"}
    assert len({row["utterance_id"] for row in bad_rows}) == len(bad_rows)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.wav", "empty file"),
        ("cut.flac", r"cannot be decoded|truncated"),
        ("short.wav", r"too short: 0\.050 s"),
        ("noise.wav", "no speech found"),
        ("silent.wav", "silent: it peaks at"),
        ("clipped.wav", r"clipped: \d+% of its samples"),
        ("text.wav", "cannot be decoded"),
        ("link.wav", "symlink leaves the source folder"),
        ("ghost.txt", "transcript ghost.txt has no recording"),
        ("copy.wav", "same audio as, but with other particulars than, good.wav"),
    ],
)
def test_reasons(bad_rows: list[dict], name: str, reason: str) -> None:
    (row,) = _named(bad_rows, name)
    assert row["reject_stage"] == "audio"
    assert row["audio"] is None
    assert re.search(reason, row["reject_reason"]), row["reject_reason"]


@pytest.mark.parametrize("name", ["good.wav", "fine.wav", "coarse.wav", "n%E4me.wav"])
def test_good_recordings_are_cut_to_their_speech(bad_rows: list[dict], name: str) -> None:
    (row,) = _named(bad_rows, name)
    assert abs(row["start"] - 0.2) < 0.15  # 0.5 s less the padding
    assert abs(row["end"] - 2.8) < 0.15
    wave = decode_flac(row["audio"])
    assert len(wave) == round(row["duration"] * 16_000)
    milliseconds = f"{round(row['start'] * 1000):08d}-{round(row['end'] * 1000):08d}"
    assert row["utterance_id"] == f"{row['recording_id']}-{milliseconds}"


def test_transcripts_of_one_and_of_many_segments(bad_rows: list[dict]) -> None:
    (good,) = _named(bad_rows, "good.wav")
    assert (good["text"], good["recording_text"]) == ("Good.", None)
    long = _named(bad_rows, "long.opus")
    assert len(long) > LONG_SECONDS / 31
    assert {row["text"] for row in long} == {None}
    assert [row["recording_text"] for row in long] == ["A long story."] + [None] * (len(long) - 1)
    assert all(row["duration"] <= 30.0 for row in long)
    assert [row["start"] for row in long] == sorted(row["start"] for row in long)
    assert sum(row["duration"] for row in long) > 0.5 * LONG_SECONDS
    assert len({row["split"] for row in long}) == 1


def test_rows_do_not_depend_on_their_shard(bad_folder: Path, bad_rows: list[dict]) -> None:
    alone = [row for item in _list(bad_folder) if item.name != "long.opus" for row in _ingest([item])]
    by_id = {row["utterance_id"]: row for row in bad_rows}
    assert all(row == by_id[row["utterance_id"]] for row in alone)


def _clips(root: Path, **texts: str | None) -> list[Item]:
    for number, (name, text) in enumerate(texts.items()):
        wave = np.zeros(16_000, np.float32)
        wave[4_000:8_000] = 0.2 * np.random.default_rng(number).standard_normal(4_000)  # no speech, says the detector
        sound(root / f"{name}.wav", wave, subtype="PCM_16")
        if text:
            (root / f"{name}.txt").write_text(text)
    return _list(root)


def test_a_transcript_outweighs_the_detector(tmp_path: Path) -> None:
    rows = _ingest(_clips(tmp_path, told="Shh!", untold=None))
    reasons = {row["source_uri"].rpartition("/")[2]: row["reject_reason"] for row in rows}
    assert reasons == {"told.wav": None, "untold.wav": "no speech found"}
    told = next(row for row in rows if row["text"])
    assert told["start"] == 0.0
    assert abs(told["end"] - 0.8) < 0.04


def test_stretches_of_a_file_are_recordings_of_their_own(tmp_path: Path) -> None:
    path = sound(tmp_path / "two.wav", np.concatenate([_spoken(1), _spoken(2)]), subtype="PCM_16")
    (tmp_path / "list.csv").write_text(
        "path,text,start,end\ntwo.wav,One.,0,3\ntwo.wav,Two.,3,6\ntwo.wav,Late.,7,8\ntwo.wav,Past.,5,9\n"
    )
    items = list_items(parse_source(str(tmp_path / "list.csv")), "en", StatCache())
    assert {item.sha256 for item in items} == {sha256_of(f"file://{path}")}
    rows = _ingest(items)
    assert sorted(row["text"] for row in rows if row["text"]) == ["One.", "Two."]
    assert all(abs(row["start"] - 0.2) < 0.15 for row in rows if row["text"])
    reasons = sorted(row["reject_reason"] for row in rows if row["reject_reason"])
    assert reasons == [
        "the stretch ends at 9 s, the recording at 6.00 s",
        "the stretch starts at 7 s, the recording ends at 6.00 s",
    ]


def test_one_channel_can_be_taken(tmp_path: Path) -> None:
    silent = 1e-3 * np.random.default_rng(0).standard_normal(48_000)
    sound(tmp_path / "calls.wav", np.stack([silent, _spoken(1)], 1), subtype="PCM_16")
    assert [row["reject_reason"] for row in _ingest(_list(tmp_path, channel=1))] == [None]
    assert [row["reject_reason"] for row in _ingest(_list(tmp_path, channel=0))] == ["no speech found"]
    assert [row["reject_reason"] for row in _ingest(_list(tmp_path, channel=2))] == ["no channel 2: it has 2"]


def test_split_depends_on_the_recording_or_speaker_alone() -> None:
    def item(number: int, speaker: str) -> Item:
        sha = f"{number:064x}"
        return identified(Item(name=str(number), source_uri="x", language="en", sha256=sha, speaker=speaker, error="e"))

    items = [item(number, f"s{number % 40}") for number in range(400)]
    by_recording = [row["split"] for row in _ingest(items, AudioConfig(held_out_share=0.25))]
    assert 60 < by_recording.count("held_out") < 140
    assert _ingest(items[7:9], AudioConfig(held_out_share=0.25))[0]["split"] == by_recording[7]
    by_speaker = [row["split"] for row in _ingest(items, AudioConfig(held_out_share=0.25, held_out_by="speaker"))]
    assert all(len({by_speaker[i] for i in range(speaker, 400, 40)}) == 1 for speaker in range(40))
    assert 0 < by_speaker.count("held_out") < 400
    salted = [row["split"] for row in _ingest(items, AudioConfig(held_out_share=0.25, split_salt="x"))]
    assert salted != by_recording
    assert {row["split"] for row in _ingest(items, AudioConfig(held_out_share=0.0))} == {"train"}


def test_synthetic_speech_is_never_held_out(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", _spoken(0), subtype="PCM_16")
    config = AudioConfig(held_out_share=0.99)
    rows = [row for origin in ("recorded", "synthetic") for row in _ingest(_list(tmp_path, origin=origin), config)]
    assert [(row["origin"], row["split"]) for row in rows] == [("recorded", "held_out"), ("synthetic", "train")]


def test_a_file_that_changed_or_vanished_stops_the_shard(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", _spoken(0), subtype="PCM_16")
    items = _list(tmp_path)
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(SourceError, match=r"a\.wav changed while it was read"):
        _ingest(items)
    path.unlink()
    with pytest.raises(SourceError, match="could be read when it was listed"):
        _ingest(items)


def test_no_items_give_an_empty_table() -> None:
    assert AudioStage(AudioConfig(), {}).process(items_table([], RECORDINGS)).equals(pa.Table.from_pylist([], AUDIO))


def test_importing_the_stage_loads_no_heavy_library() -> None:
    code = (
        "import sys, spiritlm_core.audio.stage, spiritlm_core.intake.sources;"
        "print([m for m in ('torch','lhotse','av','onnxruntime','faster_whisper','prefect','ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import sys, spiritlm_core.audio.config; print([m for m in ('numpy','pyarrow','av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        ({"channel": 99_999_999_999}, "no channel 99999999999"),
        ({"channel": -1}, "no channel -1"),
        ({"channel": 7}, "no channel 7: it has 1"),
        ({"start": float("nan")}, "none of a recording"),
        ({"start": 0.0, "end": float("inf")}, "none of a recording"),
        ({"start": -1.0, "end": 1.0}, "none of a recording"),
        ({"start": 1e300}, "the recording ends at"),
    ],
)
def test_an_impossible_channel_or_stretch_is_a_rejected_row(tmp_path: Path, window: dict, reason: str) -> None:
    path = sound(tmp_path / "a.wav", _spoken(0), subtype="PCM_16")
    given = {"name": "a.wav", "source_uri": path.as_uri(), "language": "en", "sha256": sha256_of(path.as_uri())}
    items = [identified(Item(**given, **window))]
    (group,) = group_items(items, (), ShardingConfig())
    (row,) = _ingest(group)
    assert reason in row["reject_reason"]


def test_limits_of_the_recipe_reject_with_the_bound(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", _spoken(0), subtype="PCM_16")
    config = AudioConfig.model_validate({"limits": {"min_rate": 22_050}})
    assert [row["reject_reason"] for row in _ingest(_list(tmp_path), config)] == [
        "its rate of 16000 Hz is out of bounds: 22050 to 768000 Hz (min_rate, max_rate)"
    ]


def test_a_constant_is_silent_however_large(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", np.full(32_000, 0.5), subtype="PCM_16")
    (tmp_path / "a.txt").write_text("Words.")
    (row,) = _ingest(_list(tmp_path))
    assert row["reject_reason"].startswith("silent")
