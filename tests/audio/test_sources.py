"""Listing: every layout, and everything that can be wrong with a file or its transcript."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import KINDS, parse_source
from spiritlm_core.intake.files import local_path
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.opening import open_uri
from spiritlm_core.intake.sources.folder import FolderSource
from spiritlm_core.intake.sources.lhotse import LhotseSource
from spiritlm_core.intake.sources.ljspeech import LJSpeechSource
from spiritlm_core.intake.sources.manifest import ManifestSource
from spiritlm_core.intake.statcache import StatCache
from tests.audio.files import sound
from tests.examples.source import SpeechCommandsSource
from tests.support.items import Item, collect, list_items


def _clip(path: Path, seed: int = 0) -> Path:
    return sound(path, 0.1 * np.random.default_rng(seed).standard_normal(4000), subtype="PCM_16")


def _list(source: object) -> dict[str, Item]:
    chosen = parse_source(source) if isinstance(source, str) else source
    items = list_items(chosen, "en", StatCache())
    assert len({item.key for item in items}) == len(items)
    assert len({item.recording_id for item in items}) == len(items)
    assert items_table(items, RECORDINGS).schema == RECORDINGS
    return {item.name: item for item in items}


def _errors(items: dict[str, Item]) -> dict[str, str]:
    return {name: item.error for name, item in items.items() if item.error}


def test_folder_with_sidecars(tmp_path: Path) -> None:
    for number, name in enumerate(["a/one.wav", "a/two.FLAC", "three.wav"]):
        _clip(tmp_path / name.replace("FLAC", "flac"), number)
    (tmp_path / "a/two.flac").rename(tmp_path / "a/two.FLAC")
    (tmp_path / "a/one.txt").write_text("\ufeffOne  clip.\n")
    (tmp_path / "a/two.lab").write_text("Two")
    (tmp_path / "README.md").write_text("no audio")
    (tmp_path / "LICENSE.txt").write_text("no transcript")
    items = _list(FolderSource(path=str(tmp_path), speaker_from_folder=True))
    assert {name: (item.text, item.speaker) for name, item in items.items()} == {
        "a/one.wav": ("One clip.", "a"),
        "a/two.FLAC": ("Two", "a"),
        "three.wav": (None, None),
    }
    assert not _errors(items)
    assert all(item.language == "en" and len(item.sha256) == 64 for item in items.values())


def test_folder_says_what_is_wrong(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    _clip(outside / "secret.wav", 1)
    _clip(root / "good.wav", 2)
    _clip(root / "latin.wav", 3)
    (root / "latin.txt").write_bytes("café".encode("latin-1"))
    (root / "ghost.txt").write_text("There is no recording of this.")
    (root / "link.wav").symlink_to(outside / "secret.wav")
    (root / "folder_link").symlink_to(outside)
    (root / "broken.wav").symlink_to(root / "nowhere.wav")
    (root / "loop.wav").symlink_to(root / "loop.wav")
    (root / "inside.wav").symlink_to(root / "good.wav")
    os.mkfifo(root / "pipe.wav")
    errors = _errors(_list(str(root)))
    links = {"link.wav", "folder_link", "broken.wav", "loop.wav", "inside.wav"}
    assert set(errors) == {"latin.wav", "ghost.txt", "pipe.wav"} | links
    assert "not utf-8 (byte 3)" in errors["latin.wav"]
    assert errors["ghost.txt"] == "transcript ghost.txt has no recording"
    assert "symlink leaves the source folder" in errors["link.wav"]
    assert "symlink leaves the source folder" in errors["folder_link"]
    assert errors["broken.wav"].startswith("broken symlink to ")
    assert errors["loop.wav"].startswith("broken symlink to ")
    assert errors["inside.wav"] == "duplicate of good.wav"
    assert errors["pipe.wav"] == "not a regular file"


def test_links_are_followed_on_demand_and_loops_end(tmp_path: Path) -> None:
    _clip(tmp_path / "outside/one.wav", 1)
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/sub/up").symlink_to(tmp_path / "root")
    items = _list(FolderSource(path=str(tmp_path / "root"), follow_symlinks=True))
    assert not items["link/one.wav"].error


def test_encoding_can_be_set(tmp_path: Path) -> None:
    _clip(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    assert _list(FolderSource(path=str(tmp_path), encoding="latin-1"))["a.wav"].text == "café"
    (tmp_path / "a.txt").write_bytes("café".encode("utf-16"))
    assert _list(str(tmp_path))["a.wav"].text == "café"
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SourceError, match="encoding 'klingon'"):
        _list(FolderSource(path=str(tmp_path), encoding="klingon"))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 %41.wav")
    _clip(tmp_path / "x.wav").rename(tmp_path / name)
    (item,) = _list(str(tmp_path)).values()
    assert item.name == "caf\\xe9 %41.wav"
    assert item.source_uri.endswith("caf%E9%20%2541.wav")
    assert local_path(item.source_uri) == str(tmp_path / name)
    with open_uri(item.source_uri) as file:
        assert file.read(4) == b"RIFF"
    items_table([item], RECORDINGS).column("source_uri").to_pylist()


def test_duplicates_keep_the_first_with_a_transcript(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav", "d.wav"):
        _clip(tmp_path / name)
    (tmp_path / "b.txt").write_text("Hello.")
    (tmp_path / "d.txt").write_text("Goodbye.")
    assert _errors(_list(str(tmp_path))) == {
        "a.wav": "same audio as, but with other particulars than, b.wav",
        "c.wav": "same audio as, but with other particulars than, b.wav",
        "d.wav": "same audio as, but with other particulars than, b.wav",
    }


def test_keys_know_content_not_places(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        _clip(tmp_path / folder / f"{folder}.wav", 1)
        (tmp_path / folder / f"{folder}.txt").write_text("Hello.")
    (one,), (two,) = _list(str(tmp_path / "x")).values(), _list(str(tmp_path / "y")).values()
    assert (one.key, one.recording_id) == (two.key, two.recording_id)
    (tmp_path / "y/y.txt").write_text("Good day.")
    (three,) = _list(str(tmp_path / "y")).values()
    assert three.key != two.key
    assert three.recording_id == two.recording_id
    both = collect([parse_source(str(tmp_path / "x")), parse_source(str(tmp_path / "y"))], "en", StatCache())
    assert [bool(item.error) for item in both] == [False, True]


def test_missing_and_empty_folders_are_source_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder; --source PATH names another"):
        _list(FolderSource(path=str(tmp_path / "no")))
    with pytest.raises(SourceError, match="no files"):
        _list(FolderSource(path=str(tmp_path)))
    (tmp_path / "clip.wav").write_bytes(b"")
    with pytest.raises(SourceError, match="it is a file, not a folder"):
        _list(FolderSource(path=str(tmp_path / "clip.wav")))
    with pytest.raises(SourceError, match="a web address cannot be listed: .*unpack an archive"):
        _list("librispeech:https://host/speech.tar.gz")


def test_librispeech(tmp_path: Path) -> None:
    for number in range(3):
        _clip(tmp_path / f"84/121/84-121-000{number}.flac", number)
    lines = b"84-121-0000 HELLO WORLD\n84-121-0001 CAF\xc9\n84-121-0009 GHOST\n\n"
    (tmp_path / "84/121/84-121.trans.txt").write_bytes(lines)
    source = parse_source(str(tmp_path))
    assert source.kind == "librispeech"
    items = _list(source)
    assert items["84/121/84-121-0000.flac"].text == "HELLO WORLD"
    assert items["84/121/84-121-0000.flac"].speaker == "84"
    assert items["84/121/84-121-0002.flac"].text is None
    errors = _errors(items)
    assert set(errors) == {"84/121/84-121-0001.flac", "84/121/84-121-0009"}
    assert "line 2 of 84/121/84-121.trans.txt is not utf-8" in errors["84/121/84-121-0001.flac"]
    assert "recording not found" in errors["84/121/84-121-0009"]


def test_ljspeech(tmp_path: Path) -> None:
    for number in range(3):
        _clip(tmp_path / f"wavs/LJ00{number}.wav", number)
    (tmp_path / "metadata.csv").write_text(
        'LJ000|In 1999, "yes"|In nineteen ninety nine, "yes"\nLJ001|Plain\nLJ777|Ghost|Ghost\n'
    )
    source = parse_source(str(tmp_path))
    assert source.kind == "ljspeech"
    items = _list(source)
    assert items["wavs/LJ000.wav"].text == 'In nineteen ninety nine, "yes"'
    assert items["wavs/LJ001.wav"].text == "Plain"
    assert items["wavs/LJ002.wav"].text is None
    assert _errors(items) == {"LJ777": "recording not found; it is named in metadata.csv"}
    raw = _list(LJSpeechSource(path=str(tmp_path), normalized=False, speaker="LJ"))
    assert (raw["wavs/LJ000.wav"].text, raw["wavs/LJ000.wav"].speaker) == ('In 1999, "yes"', "LJ")


ROWS = [
    {"path": "clips/a.wav", "text": "Hello, you.", "speaker": "s1", "language": "fr"},
    {"path": "clips/b.wav", "text": "First.", "start": 0.05, "end": 0.1},
    {"path": "clips/b.wav", "text": "Second.", "start": 0.1, "duration": 0.1},
    {"path": "clips/none.wav", "text": "Ghost."},
    {"path": "clips/b.wav", "text": "Wrong.", "start": 0.2, "end": 0.1},
]


def _manifest(path: Path) -> Path:
    columns = ["path", "text", "speaker", "language", "start", "end", "duration"]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in ROWS]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        mark, quote = ("\t", "") if path.suffix == ".tsv" else (",", '"')
        lines = [
            mark.join(columns),
            *(mark.join(f"{quote}{row.get(name, '')}{quote}" for name in columns) for row in ROWS),
        ]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_manifest(tmp_path: Path, suffix: str) -> None:
    _clip(tmp_path / "clips/a.wav", 1)
    _clip(tmp_path / "clips/b.wav", 2)
    source = parse_source(str(_manifest(tmp_path / f"list.{suffix}")))
    assert source.kind == "manifest"
    items = list_items(source, "en", StatCache())
    good = [
        (item.name, item.text, item.speaker, item.language, item.start, item.end) for item in items if not item.error
    ]
    assert good == [
        ("clips/a.wav", "Hello, you.", "s1", "fr", None, None),
        ("clips/b.wav", "First.", None, "en", 0.05, 0.1),
        ("clips/b.wav", "Second.", None, "en", 0.1, 0.2),
    ]
    errors = [item.error for item in items if item.error]
    assert errors == ["file not found", "the stretch ends at 0.1 s, before it starts at 0.2 s"]


def test_manifest_with_bad_lines_and_other_names(tmp_path: Path) -> None:
    _clip(tmp_path / "audio/a.wav")
    (tmp_path / "list.jsonl").write_bytes(
        b'{"audio_filepath": "a.wav", "sentence": "Hi.", "client_id": 7, "duration": 0.25}\n'
        b'{oops\n[1]\n{"text": "x"}\n\xff\n'
    )
    source = ManifestSource(path=str(tmp_path / "list.jsonl"), audio_root=str(tmp_path / "audio"), language="de")
    items = _list(source)
    assert (items["a.wav"].text, items["a.wav"].speaker, items["a.wav"].language) == ("Hi.", "7", "de")
    errors = _errors(items)
    assert "line 2 is not JSON" in errors["list.jsonl:2"]
    assert "not a JSON object" in errors["list.jsonl:3"]
    assert "no path to the audio" in errors["list.jsonl:4"]
    assert "line 5 of list.jsonl is not utf-8" in errors["list.jsonl:5"]


def test_manifest_that_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_text("not Parquet")
    with pytest.raises(SourceError, match="not Parquet"):
        _list(str(tmp_path / "list.parquet"))
    with pytest.raises(SourceError, match="file not found"):
        _list(str(tmp_path / "none.jsonl"))


def test_lhotse_recordings_supervisions_and_cuts(tmp_path: Path) -> None:
    from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    mono = Recording.from_file(_clip(tmp_path / "mono.wav", 1))
    stereo_path = sound(
        tmp_path / "st.wav", 0.1 * np.random.default_rng(2).standard_normal((8000, 2)), subtype="PCM_16"
    )
    stereo, alone = Recording.from_file(stereo_path), Recording.from_file(_clip(tmp_path / "alone.wav", 3))
    spoken = [
        SupervisionSegment("m1", "mono", 0.0, mono.duration, text="All of it.", speaker="ann", language="de"),
        SupervisionSegment("s1", "st", 0.1, 0.2, channel=0, text="Left."),
        SupervisionSegment("s2", "st", 0.1, 0.2, channel=1, text="Right."),
        SupervisionSegment("x1", "gone", 0.1, 0.2, text="Ghost."),
    ]
    folder = tmp_path / "manifests"
    folder.mkdir()
    recordings, supervisions = RecordingSet.from_recordings([mono, stereo, alone]), SupervisionSet.from_segments(spoken)
    recordings.to_file(folder / "mini_recordings_train.jsonl.gz")
    supervisions.to_file(folder / "mini_supervisions_train.jsonl.gz")
    items = _list(parse_source(f"lhotse:{folder}"))
    facts = {
        name: (i.text, i.speaker, i.language, i.start, i.end, i.channel) for name, i in items.items() if not i.error
    }
    assert facts == {
        "m1": ("All of it.", "ann", "de", None, None, None),
        "s1": ("Left.", None, "en", 0.1, pytest.approx(0.3), 0),
        "s2": ("Right.", None, "en", 0.1, pytest.approx(0.3), 1),
        "alone": (None, None, "en", None, None, None),
    }
    assert _errors(items) == {"x1": "recording gone is not in the manifest"}
    cuts = CutSet.from_manifests(RecordingSet.from_recordings([mono]), SupervisionSet.from_segments(spoken[:1]))
    cuts = cuts + cuts.perturb_speed(0.9)
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    by_cut = _list(LhotseSource(path=str(tmp_path / "cuts.jsonl.gz")))
    assert sorted(str(item.text) for item in by_cut.values() if not item.error) == ["All of it."]
    assert ["transforms" in error for error in _errors(by_cut).values()] == [True]
    with pytest.raises(SourceError, match=r"no \*recordings\*"):
        _list(LhotseSource(path=str(tmp_path / "none")))


CUT = '{"id":"c","start":0,"duration":1,"channel":0,"type":"MonoCut"}\n'
RECORDING = {"id": "r", "sampling_rate": 16000, "num_samples": 4000, "duration": 0.25}


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (CUT + "\n", 2),
        (CUT + CUT + "{oops\n", 3),
        (CUT + '{"id":"d","type":"MonoCut"}\n', 2),
        (CUT + CUT + '{"id":"d","type":"NoCut"}\n', 3),
        (CUT + "7\n", 2),
    ],
)
def test_a_damaged_line_of_lhotse_is_named(tmp_path: Path, lines: str, line: int) -> None:
    (tmp_path / "cuts.jsonl").write_text(lines)
    with pytest.raises(SourceError, match=rf"cuts.jsonl, line {line}, cannot be read"):
        _list(LhotseSource(path=str(tmp_path / "cuts.jsonl")))


@pytest.mark.parametrize(
    ("source", "said", "reason"),
    [
        ("a.wav", {"text": ["x"]}, "text is a list"),
        ("a.wav", {"start": "x"}, "wrong type|not a number"),
        ("a.wav", {"speaker": True}, "speaker is a boolean"),
        ("a\0.wav", {}, "no file can be called"),
        ("nowhere.wav", {}, "file not found"),
    ],
)
def test_a_bad_value_in_lhotse_costs_one_row(tmp_path: Path, source: str, said: dict[str, Any], reason: str) -> None:
    _clip(tmp_path / "a.wav")
    sources = [[{"type": "file", "channels": [0], "source": name}] for name in (source, "a.wav")]
    recordings = [RECORDING | {"id": f"r{n}", "sources": one} for n, one in enumerate(sources)]
    spoken = [{"id": f"s{n}", "recording_id": f"r{n}", "start": 0, "duration": 0.25, "channel": 0} for n in range(2)]
    spoken[0] |= said
    for name, rows in (("recordings", recordings), ("supervisions", spoken)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = _list(LhotseSource(path=str(tmp_path)))
    assert [name for name, item in items.items() if not item.error] == ["s1"]
    assert re.search(reason, str(items["s0"].error))


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("prompts:en", "prompts", None),
        ("prompts:FR", "prompts", None),
        ("prompts:xx", None, "there are prompts in en, es"),
        ("prompts:", None, "there are prompts in en, es"),
        ("s3://bucket/voices", "folder", None),
        ("s3://bucket/list.parquet", "manifest", None),
        ("librispeech:s3://bucket/x", "librispeech", None),
        ("manifest:/x/list.jsonl", "manifest", None),
        ("lhotse:/x", "lhotse", None),
        ("https://host/list.jsonl.gz?token=x", "manifest", None),
        ("https://host/list.csv#text=raw_text", "manifest", None),
        ("manifest:/x/list.csv#colour=x", None, "colour"),
        ("folder:/x#text=x", None, "Extra inputs are not permitted"),
        ("https://host/voices", None, "a web address cannot be listed: give a manifest"),
        ("gs://bucket/voices", None, "a web address cannot be listed"),
        ("tape:/x", None, "'tape' is not one of folder, librispeech"),
        ("/no/such/folder", None, "there is no such folder"),
        ("folder:", None, "at least 1 character"),
    ],
)
def test_parse_source(text: str, kind: str | None, reason: str | None) -> None:
    if kind is None:
        with pytest.raises(SourceError, match=reason):
            parse_source(text)
    else:
        source = parse_source(text)
        assert source.kind == kind
        assert getattr(source, "path", "").startswith("s3://") == ("s3://" in text)
        assert getattr(source, "path", "").startswith("https://") == ("https://" in text)


def test_a_channel_that_no_recording_has_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 512"):
        FolderSource(path="x", channel=99_999_999_999)


def test_columns_can_be_named_on_the_command_line(tmp_path: Path) -> None:
    source = parse_source("clips.jsonl#text=Raw Text&path=clip")
    assert source == ManifestSource(path="clips.jsonl", columns={"text": "Raw Text", "path": "clip"})
    (tmp_path / "a#text=b.csv").write_text("path\n")
    assert parse_source(str(tmp_path / "a#text=b.csv")) == ManifestSource(path=str(tmp_path / "a#text=b.csv"))


def test_parse_source_reads_a_local_path_with_a_colon(tmp_path: Path) -> None:
    _clip(tmp_path / "12:30/a.wav")
    assert parse_source(str(tmp_path / "12:30")) == FolderSource(path=str(tmp_path / "12:30"))


@pytest.mark.parametrize(
    "wrong", [{"recording_id": ["r"]}, {"id": "\ud800", "text": 1.5}, {"id": [1], "start": "x"}, {"duration": 1e400}]
)
def test_a_supervision_with_a_wrong_value_is_a_row_and_the_next_one_is_read(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    sound(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000))
    source = {"type": "file", "channels": [0], "source": "a.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    said = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 0.5, "channel": 0, "text": "hello"}
    (tmp_path / "recordings.jsonl").write_text(json.dumps(recording) + "\n")
    (tmp_path / "supervisions.jsonl").write_text(json.dumps(said | wrong) + "\n" + json.dumps(said) + "\n")
    items = list_items(parse_source(f"lhotse:{tmp_path}"), "en", StatCache())
    assert "hello" in [item.text for item in items if not item.error]
    assert len(items) == 2


def test_a_source_of_ones_own_is_one_class_and_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "yes/0a7c2a8d_nohash_0.wav", 0.1 * np.random.default_rng(1).standard_normal(4000))
    monkeypatch.setitem(KINDS, "speech_commands", SpeechCommandsSource)
    (item,) = list_items(parse_source(f"speech_commands:{tmp_path}"), "en", StatCache())
    assert (item.text, item.speaker, item.language, item.error) == ("yes", "0a7c2a8d", "en", None)
