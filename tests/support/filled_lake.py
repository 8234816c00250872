"""A lake with a few recordings, their words and units, rejected rows, an earlier snapshot, and a published model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.align.stage import WORDS
from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.config import FrozenConfig
from spiritlm_core.lake.artifact import Artifact, store_files
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.schema import Row, rejected, table_of
from spiritlm_core.lake.shard import ShardFooter, count_rows
from spiritlm_core.lake.snapshot import ShardEntry, Snapshot
from spiritlm_core.speech.stage import UNITS
from tests.support.small_model import sound

RECIPE, ROWS = "small", 12
SAME = "the same speech: it is a copy of"


def name_of(number: int) -> str:
    return f"{number:020x}-00000000-00000600"


def commit(lake: Lake, table: str, shards: list[pa.Table], *, used: bool = True) -> Snapshot:
    """A snapshot of these shards, which the recipe uses."""
    entries = []
    for rows in shards:
        key = hashlib.sha256(repr((table, rows.to_pylist())).encode()).hexdigest()
        stats = count_rows(rows, table, 1.0)
        about = {"stage_version": 1, "identity": "0" * 64, "config": {}, "models": {}, "parents": []}
        lake.write_shard(rows, ShardFooter(key, table, table, members=[], code_version="", stats=stats, **about))
        entries.append(ShardEntry(key, stats))
    snapshot = Snapshot(table, "0" * 64, tuple(entries))
    lake.write_snapshot(snapshot)
    if used:
        lake.write_ref(RECIPE, table, "table", snapshot.fingerprint, "0" * 64)
    return snapshot


def commit_artifact(lake: Lake, name: str, key: str, folder: Path, config: FrozenConfig | None = None) -> None:
    """Let the lake hold the files of `folder` as an artifact of a stage with this configuration."""
    files, sizes = store_files(lake.store, folder)
    lake.commit_artifact(Artifact(key, name, 1, "0" * 64, config_json(config), {}, {}, files, sizes))


def audio_row(number: int) -> Row:
    wave = sound(("low", "middle", "high")[number % 3], number, 0.6 + number / 20)
    speech = {"duration": len(wave) / 16_000, "text": f"word {number} <b>bold</b>", "audio": encode_flac(wave)}
    row: Row = {"utterance_id": name_of(number), "recording_id": f"{number:020x}", "speaker": f"s{number % 2}"}
    return {**row, **speech, "start": 0.0, "language": "en", "split": "train", "source_uri": f"file:///{number}.wav"}


@pytest.fixture(scope="session")
def filled_lake(speaking: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """`ROWS` recordings in two shards. Row 3 is rejected as a copy of row 1, row 4 is one of row 2, row 8 is empty."""
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

    lake = Lake(tmp_path_factory.mktemp("explored") / "lake")
    audio = [audio_row(number) for number in range(ROWS)]
    units = SpeechTokenizer.from_pretrained(speaking).encode_batch([sound("low", n) for n in range(ROWS)])
    words, streams = [], []
    for number, row in enumerate(audio):
        said = [{"word": "word", "start": 0.1, "end": 0.4, "score": 1.0, "interpolated": False}]
        words.append({"utterance_id": row["utterance_id"], "words": said, "text": "word", "text_origin": "given"})
        streams.append({"utterance_id": row["utterance_id"], "hubert": units[number].hubert.tolist()})
    words[3] = rejected({"utterance_id": name_of(3)}, "words", f"{SAME} {name_of(1)}")
    streams[3] = rejected({"utterance_id": name_of(3)}, "words", f"{SAME} {name_of(1)}")
    changed = [*audio[5:8], {**audio_row(8), "text": "it was good"}, {**audio[9], "text": "other"}]
    commit(lake, "audio", [table_of(audio[:5], AUDIO), table_of(changed, AUDIO)], used=False)
    broken = {name: audio[8][name] for name in ("utterance_id", "recording_id", "source_uri")}
    audio[8] = rejected(broken, "audio", "too short: 0.01 s")
    for table, schema, rows in (("audio", AUDIO, audio), ("words", WORDS, words), ("units", UNITS, streams)):
        commit(lake, table, [table_of(rows[:5], schema), table_of(rows[5:], schema)])
    copies = tmp_path_factory.mktemp("duplicates")
    pq.write_table(pa.table({"utterance_id": [name_of(4)], "kept": [name_of(2)]}), copies / "duplicates.parquet")
    for name, folder in (("published", speaking), ("duplicates", copies)):
        key = hashlib.sha256(name.encode()).hexdigest()
        commit_artifact(lake, name, key, folder)
        lake.write_ref(RECIPE, name, "artifact", key, "0" * 64)
    return lake
