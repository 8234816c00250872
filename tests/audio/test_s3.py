"""Sources on S3: the same rows as from disk."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.recordings import list_items
from spiritlm_core.intake.statcache import StatCache
from tests.audio.files import sound, sound_bytes
from tests.audio.synthetic import voice
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
