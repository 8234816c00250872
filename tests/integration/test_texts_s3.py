"""Text documents on a real S3 server."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.config import FrozenConfig
from spiritlm_core.intake.config import TextSource
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.pieces import PIECES, collect, list_pieces
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.store.uri import open_store
from spiritlm_core.tokens.text_stage import DocumentsStage

pytestmark = pytest.mark.integration


def documents(path: str) -> list[dict]:
    pieces = collect(list_pieces(TextSource(path=path, piece_bytes=300), StatCache()))
    rows = DocumentsStage(FrozenConfig(), {}).process(items_table(pieces, PIECES)).to_pylist()
    return [{key: value for key, value in row.items() if key != "source_uri"} for row in rows]


def test_texts_on_s3_give_the_rows_of_those_on_disk(seaweedfs, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    lines = "".join(f'{{"text": "document {i}"}}\n' for i in range(100))
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "sub/b.jsonl.gz").write_bytes(gzip.compress(lines.replace("document", "other").encode()))
    (tmp_path / "sub/c.txt").write_text("one\ntwo")
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(50)]}), tmp_path / "d.parquet", row_group_size=10)
    with pa.CompressedOutputStream(str(tmp_path / "e.txt.zst"), "zstd") as file:
        file.write(b"packed")
    store = open_store(f"{seaweedfs.uri}/texts")
    for path in tmp_path.rglob("*.*"):
        store.write(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    local = documents(str(tmp_path))
    assert len(local) == 252
    assert documents(store.uri) == local
    assert documents(f"{store.uri}/**/*.gz") == documents(f"{tmp_path}/**/*.gz")
    assert documents(f"{store.uri}/a.jsonl") == documents(f"{tmp_path}/a.jsonl")
