from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import TextSource
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.pieces import PIECES, Piece, collect, list_pieces
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.intake.text_files import list_files
from spiritlm_core.lake.schema import Row
from spiritlm_core.tokens.text_stage import DOCUMENTS, DocumentsStage


def pieces(path: Path | str, cache: StatCache | None = None, **options: object) -> list[Piece]:
    return collect(list_pieces(TextSource(path=str(path), **options), StatCache() if cache is None else cache))  # type: ignore[arg-type]


def documents(path: Path | str, **options: object) -> list[Row]:
    found = DocumentsStage(FrozenConfig(), {}).process(items_table(pieces(path, **options), PIECES))
    assert found.schema == DOCUMENTS
    return found.to_pylist()


def texts(path: Path | str, **options: object) -> list[object]:
    return [row["text"] for row in documents(path, **options) if row["reject_stage"] is None]


def reasons(path: Path | str, **options: object) -> list[str]:
    return [str(row["reject_reason"]) for row in documents(path, **options) if row["reject_stage"] is not None]


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", encoding="utf-8"
    )
    return path


def test_every_format_is_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    write_jsonl(tmp_path / "deep" / "b.jsonl", [{"text": "three"}, {"text": "vier é"}])
    pq.write_table(pa.table({"id": [1, 2], "text": ["five", "six"]}), tmp_path / "c.parquet")
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"seven") + gzip.compress(b" and more"))
    (tmp_path / "e.ndjson.bz2").write_bytes(bz2.compress(b'{"text": "eight"}'))
    with pa.CompressedOutputStream(str(tmp_path / "f.md.zst"), "zstd") as file:
        file.write(b"nine")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert sorted(map(str, texts(tmp_path))) == sorted(
        ["one\ntwo\n", "three", "vier é", "five", "six", "seven and more", "eight", "nine"]
    )
    assert texts(tmp_path / "**" / "*.jsonl") == ["three", "vier é"]
    assert texts(f"{tmp_path}/*.txt*") == ["one\ntwo\n", "seven and more"]
    assert texts(tmp_path, format="jsonl") == ["three", "vier é", "eight"]
    ids = [row["document_id"] for row in documents(tmp_path)]
    assert len(set(ids)) == len(ids) == 8


def test_paragraphs_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\n\none\r\nmore\r\n\r\n \ntwo\n\n\nthree")
    found = documents(tmp_path / "a.txt", documents="paragraph")
    assert [(row["source_place"], str(row["text"]).split()) for row in found] == [
        (3, ["one", "more"]), (7, ["two"]), (10, ["three"])
    ]  # fmt: skip


LINES = st.lists(st.text('ab é\n"{}', max_size=12), max_size=30)


@settings(deadline=None, max_examples=40)
@given(LINES, st.integers(1, 80))
def test_cutting_a_file_changes_nothing_but_the_ids(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], size: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = write_jsonl(folder / "a.jsonl", [{"text": f"{i} {row}"} for i, row in enumerate(rows)])
    assert texts(path, piece_bytes=size) == [f"{i} {row}" for i, row in enumerate(rows)]
    assert [row["source_place"] for row in documents(path, piece_bytes=size)] == list(range(1, len(rows) + 1))
    cut = pieces(path, piece_bytes=size)
    assert all(piece.size < size + 100 for piece in cut)
    plain = folder / "a.txt"
    plain.write_text("".join(f"{i}\n{' ' * (i % 2)}\n" for i in range(len(rows))))
    found = texts(plain, documents="paragraph", piece_bytes=size)
    assert [str(text).strip() for text in found] == [str(i) for i in range(len(rows))]
    packed = folder / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert documents(packed, piece_bytes=size) == [
        {**row, "source_uri": str(row["source_uri"]) + ".gz"} for row in documents(path, piece_bytes=size)
    ]


def test_row_groups_are_read_in_pieces(tmp_path: Path) -> None:
    wanted = [f"row {i} {'x' * 50}" for i in range(100)]
    pq.write_table(pa.table({"body": wanted, "n": range(100)}), tmp_path / "a.parquet", row_group_size=10)
    cut = pieces(tmp_path, field="body", piece_bytes=1000)
    assert 3 < len(cut) <= 10
    assert texts(tmp_path, field="body", piece_bytes=1000) == wanted
    assert [row["source_place"] for row in documents(tmp_path, field="body", piece_bytes=1000)] == list(range(1, 101))


def test_a_file_that_grows_keeps_its_pieces_and_names_do_not_matter(tmp_path: Path) -> None:
    rows = [{"text": f"document {i}"} for i in range(50)]
    before = pieces(write_jsonl(tmp_path / "a.jsonl", rows), piece_bytes=200)
    after = pieces(write_jsonl(tmp_path / "a.jsonl", [*rows, {"text": "new"}]), piece_bytes=200)
    assert [piece.key for piece in after[: len(before) - 1]] == [piece.key for piece in before[:-1]]
    renamed = pieces((tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl"), piece_bytes=200)
    assert {piece.key for piece in renamed} == {piece.key for piece in after}


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    cache = StatCache()
    os.utime(path, (1, 1))
    first = pieces(path, cache)
    monkeypatch.setattr("spiritlm_core.intake.statcache.RACY_SECONDS", -10.0)
    first = pieces(path, cache)
    monkeypatch.setattr("spiritlm_core.intake.pieces.open_plain", lambda *_: pytest.fail("read again"))
    assert pieces(path, cache) == first


def test_bad_rows_and_files_stay_rejected_rows(tmp_path: Path) -> None:
    bad = [
        "{",
        {"text": 3},
        {"text": None},
        [1],
        {"text": "  "},
        {"text": "\ud800"},
        {"text": "good one"},
        "",
        {"text": "x"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", bad)
    path.write_bytes(path.read_bytes() + b'{"text": "\xff"}\n')
    assert texts(path, min_words=2) == ["good one"]
    found = reasons(path, min_words=2)
    parts = ("not JSON: line 1", "a int at line 2", "nothing at line 3", "not a JSON object: line 4", "empty text")
    for reason, part in zip(found, (*parts, "surrogate", "too short: 1 words", "wrong encoding: line 10"), strict=True):
        assert part in reason
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "c.txt.gz").write_bytes(b"no gzip")
    (tmp_path / "d.txt").write_text("")
    (tmp_path / "e.txt").symlink_to(tmp_path / "gone")
    assert "cannot be read as parquet" in reasons(tmp_path / "b.parquet")[0]
    assert "cannot be read as text" in reasons(tmp_path / "c.txt.gz")[0]
    assert reasons(tmp_path / "d.txt") == ["empty text"]
    assert any("broken symlink" in reason for reason in reasons(tmp_path))


def test_copies_are_kept_once(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("the same")
    assert texts(tmp_path) == ["the same"]
    assert reasons(tmp_path) == ["duplicate of a.txt"] * 2
    ids = [row["document_id"] for row in documents(tmp_path)]
    assert len(set(ids)) == 3


def test_what_a_user_got_wrong_is_said_with_file_and_field(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: there is no column 'text', only body, n; set `field`"):
        pieces(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: column 'n' holds int64, not text"):
        pieces(tmp_path / "a.parquet", field="n")
    write_jsonl(tmp_path / "b.jsonl", [{"body": "x"}, {"title": "y"}])
    with pytest.raises(SourceError, match=r"b\.jsonl: none of its 2 lines has a field 'text', only body, title"):
        documents(tmp_path / "b.jsonl")
    with pytest.raises(SourceError, match="no such file or folder"):
        pieces(tmp_path / "nosuch")
    (tmp_path / "notes").write_text("x")
    with pytest.raises(SourceError, match="set `format`"):
        pieces(tmp_path / "notes")
    assert texts(tmp_path / "notes", format="text") == ["x"]


def test_a_file_that_changed_since_it_was_listed_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    listed = items_table(pieces(tmp_path), PIECES)
    (tmp_path / "a.txt").write_text("two")
    with pytest.raises(SourceError, match="changed while it was read"):
        DocumentsStage(FrozenConfig(), {}).process(listed)


def test_a_document_is_held_out_by_its_text_alone(tmp_path: Path) -> None:
    rows = [{"text": f"document number {i}"} for i in range(400)]
    one = {row["text"]: row["split"] for row in documents(write_jsonl(tmp_path / "a.jsonl", rows), held_out_share=0.25)}
    other = documents(write_jsonl(tmp_path / "a.jsonl", rows[::-3]), held_out_share=0.25, piece_bytes=100)
    assert all(one[row["text"]] == row["split"] for row in other)
    assert 60 < sum(split == "held_out" for split in one.values()) < 140
    again = documents(write_jsonl(tmp_path / "a.jsonl", rows), held_out_share=0.25, split_salt="x")
    assert [row["split"] for row in again] != list(one.values())


def test_patterns_stay_in_their_folder(tmp_path: Path) -> None:
    for name in ("a.txt", "sub/b.txt", "sub/deep/c.txt", "sub/x+y.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    def found(pattern: str) -> list[str]:
        return [file.path for file in list_files(TextSource(path=f"{tmp_path}/{pattern}"))]

    assert found("*.txt") == ["a.txt"]
    assert found("**/*.txt") == ["a.txt", "sub/b.txt", "sub/deep/c.txt", "sub/x+y.txt"]
    assert found("sub/?.txt") == ["b.txt"]
    assert found("sub/x+*") == ["x+y.txt"]
