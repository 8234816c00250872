"""Sources on S3: the same rows as from disk."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.finetune.config import DataConfig
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.template import find_template
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.files import bucket_of
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.statcache import StatCache
from tests.audio.files import sound, sound_bytes
from tests.audio.synthetic import voice
from tests.support.items import list_items
from tests.support.server_fixtures import Bucket

pytestmark = pytest.mark.integration


def _upload(folder: Path, target: str) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).put(f"{folder}/", f"{target}/", recursive=True)


def test_a_folder_on_s3_gives_the_rows_of_the_folder_on_disk(tmp_path: Path, seaweedfs: Bucket) -> None:
    for seed in (0, 2):
        sound(tmp_path / "src/sub dir" / f"clip é {seed}.flac", voice(1.2, seed), subtype="PCM_16")
    (tmp_path / "src/sub dir/clip é 0.txt").write_text("Hello.")
    (tmp_path / "src/bad.wav").write_text("no audio")
    manifest = [{"path": "src/sub dir/clip é 2.flac", "text": "Two."}, {"path": "src/none.wav", "text": "Ghost."}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in manifest))
    sounds = [sound_bytes(voice(1.2, seed), "FLAC", subtype="PCM_16") for seed in (3, 4)]
    (tmp_path / "hf").mkdir()
    pq.write_table(pa.table({"audio": sounds, "text": ["Three.", "Four."]}), tmp_path / "hf/train.parquet")
    _upload(tmp_path, f"{seaweedfs.uri}/data")
    for name in ("src", "list.jsonl", "hf/train.parquet", "hf"):
        here, there = (_rows(f"{root}/{name}") for root in (str(tmp_path), f"{seaweedfs.uri}/data"))
        assert [row | {"source_uri": ""} for row in there] == [row | {"source_uri": ""} for row in here]
        assert all(f"{seaweedfs.uri}/data/" in row["source_uri"] for row in there)


def _rows(source: str) -> list[dict]:
    cache = StatCache()
    items = list_items(parse_source(source), "en", cache)
    assert [item.key for item in list_items(parse_source(source), "en", cache)] == [item.key for item in items]
    return AudioStage(AudioConfig(), {}).process(items_table(items, RECORDINGS)).to_pylist()


def test_the_rows_of_a_manifest_take_one_listing_for_each_folder(
    tmp_path: Path, seaweedfs: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.flac", "a/2.flac", "a/3.flac", "b/1.flac"):
        sound(tmp_path / "src" / name, voice(1.2, 1), subtype="PCM_16")
    _upload(tmp_path / "src", f"{seaweedfs.uri}/data")
    manifest = tmp_path / "list.jsonl"
    names = ("a/1.flac", "a/2.flac", "a/none.flac", "a/1.flac", "b/1.flac", "c/1.flac")
    rows = [{"path": f"{seaweedfs.uri}/data/{name}", "text": str(place)} for place, name in enumerate(names)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store, asked = bucket_of(f"{seaweedfs.uri}/data")[0], []
    real = store.filesystem.call_s3
    monkeypatch.setattr(store.filesystem, "call_s3", lambda *a, **k: (asked.append(k["Prefix"]), real(*a, **k))[1])
    files = [draft.file for draft in parse_source(str(manifest)).drafts()]
    assert [file and file.error for file in files] == [None, None, "file not found", None, None, "file not found"]
    assert sorted(asked) == ["data/a/", "data/b/1.flac", "data/c/1.flac"]
    asked.clear()
    columns = {"audio": "path"}
    tuned = read_rows(DataConfig(path=str(manifest), columns=columns), find_template("asr"), StatCache())
    assert [row.error for row in tuned] == [
        None if name != "a/none.flac" and name[0] != "c" else f"audio: {seaweedfs.uri}/data/{name}: file not found"
        for name in names
    ]
    assert sorted(asked) == ["data/a/", "data/b/1.flac", "data/c/1.flac"]
