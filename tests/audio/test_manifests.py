"""Rows of manifests: each is checked for its width, its quotes and its types, and a bad one costs itself alone."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.notes import notes
from spiritlm_core.intake.opening import read_uri
from spiritlm_core.intake.sources.manifest import ManifestSource
from spiritlm_core.intake.statcache import StatCache, hash_files
from tests.audio.files import sound, sound_bytes
from tests.audio.synthetic import voice
from tests.support.items import Item, list_items


def _clips(folder: Path) -> None:
    for number, name in enumerate("abc"):
        sound(folder / f"{name}.wav", 0.1 * np.random.default_rng(number).standard_normal(4000), subtype="PCM_16")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def _parquet(names: list[str], *row: str | bytes) -> bytes:
    table = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([value]) for value in row], names), table)
    return table.getvalue()


def _read(folder: Path, name: str, content: str | bytes, **settings: Any) -> list[Draft]:
    _clips(folder)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(ManifestSource(path=str(folder / name), **settings).drafts())


def _told(found: list[Draft]) -> list[tuple[str, str | None]]:
    """Name and text of the good rows, place and reason of the others."""
    return [(draft.name, draft.problem or draft.text) for draft in found]


@pytest.mark.parametrize(
    "content",
    [
        "a|hello\nb|there\n",
        "/gone/b.wav|1|there\nDUMMY/a.wav|0|hello\n",
        "a.wav hello\nb.wav there\n",
        "a:hello\nb:there\n",
    ],
)
def test_a_list_without_a_header_is_a_manifest_too(tmp_path: Path, content: str) -> None:
    assert parse_source(str(tmp_path / "train.txt")).kind == "manifest"
    found = _read(tmp_path, "train.txt", content)
    assert sorted(draft.text for draft in found if draft.file and draft.text) == ["hello", "there"]


def test_a_quote_does_not_swallow_the_rows_below_it(tmp_path: Path) -> None:
    found = _read(tmp_path, "m.csv", 'path,text\na.wav,"hello\nb.wav,there\nc.wav,"good, ""you"""\n')
    assert [draft.text for draft in found] == [None, "there", 'good, "you"']
    found = _read(tmp_path, "m.csv", 'path,text\na.wav,"one\nb.wav,two\nc.wav,three"\n')
    assert "swallows the rows below" in (found[0].problem or "")
    assert found[1].text == "two"


GOOD = [("a.wav", "hello"), ("b.wav", "there")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "path,text\ra.wav,hello\rb.wav,there\r"),
        ("m.csv", "path,text\r\na.wav,hello\r\n\r\nb.wav,there"),
        ("m.csv", "path, text, speaker\na.wav, hello, anna\nb.wav, there, bob\n"),
        ("m.csv", "\ufeffPath;Text\na.wav;hello\nb.wav;there\n"),
        ("m.csv", "audio_file|text|speaker_name\na.wav|hello|anna\nb.wav|there|bob\n"),
        ("m.csv", "path,text,\na.wav,hello,\nb.wav,there,,,\n,,\n"),
        ("m.tsv", '"path"\t"text"\n"a.wav"\t"hello"\nb.wav\tthere\n'),
        ("m.csv", "path,text\na.wav,hello\nb.wav,there\n".encode("utf-16")),
        ("m.csv", "path,text\na.wav,hello\nb.wav,there\n".encode("utf-32")),
        ("m.json", '{\n "data": [\n {"path": "a.wav", "text": "hello"},\n {"path": "b.wav", "text": "there"}]}\n'),
        ("m.json", '{"PATH": "a.wav", "Text": "hello"}\n{"path": "b.wav", "text": "there", "words": [{"w": 1}]}'),
        (
            "m.jsonl.gz",
            gzip.compress(b'{"path": "a.wav", "text": "hello"}\n{"path": "b.wav", "text": "there"}\n', mtime=0),
        ),
        ("m.csv.gz", gzip.compress(b"path,text\na.wav,hello\nb.wav,there\n", mtime=0)),
    ],
)
def test_tables_are_read_however_they_are_written(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert _told(_read(tmp_path, name, content)) == GOOD


@pytest.mark.parametrize(
    ("name", "content", "reasons"),
    [
        ("m.csv", "path,text\na.wav,good, morning\nb.wav,there\n", ["line 2 has 3 fields, the header has 2", None]),
        ("m.csv", "path,text,speaker\na.wav,hello\nb.wav,there,x\n", ["line 2 has 2 fields, the header has 3", None]),
        ("m.csv", 'path,text\na.wav,"hello\nb.wav,there\n', ["line 2: a quote is not closed", None]),
        ("m.csv", 'path,text\na.wav,"hello\nb.wav,"there"\n', ["line 2: a quote is not closed", None]),
        ("m.csv", 'path,text\na.wav,"say "yes" now"\nb.wav,there\n', ["line 2: a quote is not closed", None]),
        ("m.csv", 'path,text\na.wav,"hello\nb.wav,there\n', ["line 2: a quote", None]),
        ("m.csv", "path,text\na.wav,NaN\nb.wav,there\n", ["text is NaN", None]),
        ("m.csv", "path,text\na.wav,he\0llo\nb.wav,there\n", ["line 2 of m.csv holds NUL", None]),
        ("m.jsonl", '{"path":"a.wav","text":"a\\u0000"}\n{"path":"b.wav","text":"there"}', ["text holds a NUL", None]),
        ("m.csv", b"path,text\na.wav,caf\xe9\nb.wav,there\n", ["line 2 of m.csv is not utf-8", None]),
        ("m.jsonl", '{"path":"a.wav","text":["a"]}\n{"path":"b.wav","text":"there"}', ["text is a list", None]),
        ("m.jsonl", '{"path":"a.wav","text":{"en":"a"}}\n{"path":"b.wav","text":"there"}', ["text is an object", None]),
        ("m.jsonl", '{"path":"a.wav","text":true}\n{"path":"b.wav","text":"there"}', ["text is a boolean", None]),
        ("m.jsonl", '{"path":"a.wav","text":NaN}\n{"path":"b.wav","text":"there"}', ["text is NaN", None]),
        ("m.jsonl", '{"path":"a.wav","text":1.5}\n{"path":"b.wav","text":"there"}', ["text is a number with a", None]),
        ("m.jsonl", '{"path":"a.wav","text":"\\ud800"}\n{"path":"b.wav","text":"there"}', ["text holds half", None]),
        ("m.jsonl", '{"path":"a.wav","speaker":[1]}\n{"path":"b.wav","text":"there"}', ["speaker is a list", None]),
        ("m.jsonl", '{"path":"a\\u0000.wav"}\n{"path":"b.wav","text":"there"}', ["no file can be called", None]),
        ("m.jsonl", '{"path":"\\ud800.wav"}\n{"path":"b.wav","text":"there"}', ["no file can be called", None]),
        ("m.jsonl", '{"path":"a.wav","channel":99999999999}\n{"path":"b.wav","text":"there"}', ["channel: 9999", None]),
        ("m.jsonl", '{"path":"a.wav","channel":0.5}\n{"path":"b.wav","text":"there"}', ["channel: 0.5 must be", None]),
        ("m.jsonl", '{"path":"a.wav","start":true}\n{"path":"b.wav","text":"there"}', ["start: True must be", None]),
        ("m.jsonl", "[" * 100_000 + '\n{"path":"b.wav","text":"there"}', ["line 1 is not JSON", None]),
        ("m.jsonl", '{"path":"ftp://x/a.wav"}\n{"path":"b.wav","text":"there"}', ["ftp:// cannot be read", None]),
        ("m.jsonl", f'{{"path":"{"x" * 5000}"}}\n{{"path":"b.wav","text":"there"}}', ["name too long", None]),
        ("m.jsonl", '{"path":"a.wav","licence":["MIT"]}\n{"path":"b.wav","text":"there"}', ["must be one value", None]),
    ],
)
def test_a_bad_row_is_rejected_and_the_next_one_read(
    tmp_path: Path, name: str, content: str | bytes, reasons: list[str | None]
) -> None:
    found = _read(tmp_path, name, content)
    assert [draft.text for draft in found if not draft.problem] == ["there"]
    for draft, reason in zip(found, reasons, strict=True):
        assert (reason or "").lower() in (draft.problem or "").lower()
        assert bool(reason) == bool(draft.problem)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.jsonl", '{"path":"a.wav","text":"a","text":"b"}\nGOOD', "line 1 names 'text' twice"),
        ("m.jsonl", '{"path":"a.wav","text":"a","Text":"b"}\nGOOD', "line 1 names 'text' twice"),
        ("m.json", '[{"path":"a.wav","text":"a","text":"a"}, GOOD]', "row 1 names 'text' twice"),
        ("m.json", '[{"audio":{"path":"a.wav","path":"b.wav"}}, GOOD]', "path names 'path' twice"),
        ("m.json", '{"rows": [{"path":"a.wav","path":"b.wav"}, GOOD]}', "row 1 names 'path' twice"),
        ("m.json", '{"rows": [GOOD], "rows": [GOOD]}', "row 1 names 'rows' twice"),
    ],
)
def test_of_two_values_of_one_name_none_is_taken(tmp_path: Path, name: str, content: str, reason: str) -> None:
    good = '{"path":"b.wav","text":"there","id":1,"ID":2}'
    first, *others = _read(tmp_path, name, content.replace("GOOD", good))
    assert (first.text, first.problem) == (None, reason)
    assert [draft.text for draft in others] == ["there"] * ("rows" not in reason)


def test_quotes_are_what_they_are_in_each_kind_of_table(tmp_path: Path) -> None:
    csv = 'path,text\na.wav,"one, ""two""\nthree"\nb.wav,5" wide\n'
    assert _told(_read(tmp_path, "m.csv", csv)) == [("a.wav", 'one, "two" three'), ("b.wav", '5" wide')]
    tsv = 'path\ttext\na.wav\t"Hello," he said\nb.wav\t"open\nc.wav\t"all ""of"" it"\n'
    texts = ['"Hello," he said', '"open', 'all "of" it']
    assert [draft.text for draft in _read(tmp_path, "m.tsv", tsv)] == texts


def test_a_text_may_be_long(tmp_path: Path) -> None:
    (row,) = _read(tmp_path, "m.csv", "path,text\na.wav," + "word " * 32_000 + "\n")
    assert len((row.text or "").split()) == 32_000


def test_a_label_is_a_name_or_a_number_and_nothing_else(tmp_path: Path) -> None:
    rows = [{"path": "a.wav", "label": label} for label in ("yes", 3, 0.5, ["a"], True, None)]
    found = _read(tmp_path, "m.jsonl", "\n".join(map(json.dumps, rows)))
    assert [(draft.label, draft.problem) for draft in found] == [("yes", None), ("3", None), *[(None, None)] * 4]
    (named,) = _read(tmp_path, "n.csv", "path,intent\na.wav,greet\n", columns={"label": "intent"})
    assert named.label == "greet"


def test_numbers_that_are_whole_are_names_and_texts(tmp_path: Path) -> None:
    (row,) = _read(tmp_path, "m.jsonl", '{"path": "a.wav", "text": 7, "speaker": 3.0, "channel": 0.0}')
    assert (row.text, row.speaker, row.channel) == ("7", "3", 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", '{\n "data": [\n  {"path": "a.wav"\n', "neither JSON nor JSON lines"),
        ("m.jsonl", "hello\nworld\n", "neither JSON nor JSON lines"),
        ("m.json", '{"a": [{"x": 1}], "b": [{"y": 1}]}', "rows are in a and in b"),
        ("m.csv", "a.wav,hello\nb.wav,there\n", "names no column with a path to the audio, only a.wav,hello"),
        ("m.csv", "path,text,text\na.wav,hello,x\n", "two columns 'text'"),
        ("m.csv", "", "m.csv: it is empty"),
        ("m.csv", LFS, "only version https://git-lfs"),
        ("m.parquet", LFS, "it is text, which begins 'version https://git-lfs.*`git lfs pull` fetches the file itself"),
        ("m.parquet", _parquet(["path", "text", "Text", "id", "ID"], *"axyzz"), "two columns 'text'"),
        ("m.jsonl.gz", b"no gzip", "cannot be decompressed"),
    ],
)
def test_a_file_that_is_no_manifest_is_one_error(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        _read(tmp_path, name, content)


def test_the_beginning_has_one_key(tmp_path: Path) -> None:
    rows = _read(tmp_path, "m.csv", "path,start,end\na.wav,-0.0,0.1\na.wav,0,0.1\n")
    assert [str(row.start) for row in rows] == ["0.0", "0.0"]


def test_text_that_parquet_holds_as_bytes_is_said_to_be_none(tmp_path: Path) -> None:
    (row,) = _read(tmp_path, "m.parquet", _parquet(["path", "text"], "a.wav", b"hello"))
    assert row.problem == "text is bytes, not text: b'hello'"


def test_columns_can_be_named(tmp_path: Path) -> None:
    lines = '{"clip": "a.wav", "raw_text": "Hello.", "who": "anna"}\n'
    (row,) = _read(tmp_path, "m.jsonl", lines, columns={"path": "clip", "text": "raw_text", "speaker": "who"})
    assert (row.name, row.text, row.speaker) == ("a.wav", "Hello.", "anna")
    (row,) = _read(tmp_path, "m.csv", "clip,Raw Text\na.wav,Hello.\n", columns={"path": "clip", "text": "raw text"})
    assert row.text == "Hello."
    with pytest.raises(SourceError, match=r"no column 'nowhere' \(columns.text\), only path, text"):
        _read(tmp_path, "m.csv", "path,text\na.wav,hello\n", columns={"text": "nowhere"})
    with pytest.raises(ValueError, match="colour"):
        ManifestSource(path="x.csv", columns={"colour": "x"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({"path": "a.wav", "raw_text": "Hello."}, "no text column was recognised among 'raw_text'"),
        ({"path": "a.wav", "words_said": "good morning"}, "no text column was recognised among 'words_said'"),
        (
            {"path": "a.wav", "text": "Hello.", "normalized_text": "hello"},
            "taken from 'text', not from 'normalized_text'",
        ),
        ({"path": "a.wav", "text": "Hello.", "speaker": "Anna Smith", "duration": 0.25}, None),
        (
            {"path": "a.wav", "text": "Hello.", "start_ms": 500, "end_ms": 900, "gender": "f"},
            "whole files are taken: `start` and `end` in seconds would part them, not 'start_ms', 'end_ms'",
        ),
        ({"path": "a.wav", "text": "Hello.", "start": 0.5, "end": 0.9, "end_frame": 90, "end_of_turn": True}, None),
    ],
)
def test_what_is_seen_and_not_used_is_named(tmp_path: Path, content: dict[str, Any], note: str | None) -> None:
    with notes() as heard:
        _read(tmp_path, "m.jsonl", json.dumps(content))
    assert (note is None and heard == []) or (note or "") in heard[0]


def test_names_are_found_in_either_spelling_of_accents(tmp_path: Path) -> None:
    sound(tmp_path / "cafe\u0301" / "e\u0301.wav", np.zeros(100))
    found = _read(tmp_path, "m.jsonl", '{"path": "caf\u00e9/\u00e9.wav"}\n{"path": "caf\u00e9/\u00e8.wav"}')
    assert [draft.problem for draft in found] == [None, "file not found"]


def _wav(seed: int) -> bytes:
    return sound_bytes(0.1 * np.random.default_rng(seed).standard_normal(4000), "WAV", subtype="PCM_16")


def _items(path: Path) -> dict[str, Item]:
    return {item.name: item for item in list_items(ManifestSource(path=str(path)), "en", StatCache())}


@pytest.mark.parametrize("row_group_size", [2, 100])
@pytest.mark.parametrize("form", ["structs", "bytes"])
def test_recordings_inside_parquet(tmp_path: Path, form: str, row_group_size: int) -> None:
    data = [_wav(seed) for seed in range(5)]
    sounds = data if form == "bytes" else [{"bytes": clip, "path": f"{n}.wav"} for n, clip in enumerate(data)]
    columns = {"audio": sounds, "text": list("uvwxy"), "path": ["nowhere.wav"] * 5}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet", row_group_size=row_group_size)
    items = _items(tmp_path / "m.parquet")
    assert [item.error for item in items.values()] == [None] * 5
    assert [item.text for item in items.values()] == list("uvwxy")
    assert [read_uri(item.source_uri) for item in items.values()] == data


def test_parquet_with_rows_without_a_recording(tmp_path: Path) -> None:
    rows = [{"bytes": _wav(1), "path": "in.wav"}, {"bytes": None, "path": "a.wav"}]
    pq.write_table(pa.table({"audio": rows, "text": ["x", "y"]}), tmp_path / "m.parquet")
    assert [item.error for item in _items(tmp_path / "m.parquet").values()] == [
        "cannot be read: row 2 holds no bytes in column 'audio'",
        None,
    ]
    _clips(tmp_path)
    pq.write_table(pa.table({"audio": rows[1:], "text": ["y"]}), tmp_path / "m.parquet")
    (item,) = _items(tmp_path / "m.parquet").values()
    assert (item.name, item.text, item.error) == ("a.wav", "y", None)


def test_parquet_that_changed_is_read_again(tmp_path: Path) -> None:
    for seed in (1, 2):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"audio": [_wav(seed)]}), buffer)
        (tmp_path / "m.parquet").write_bytes(buffer.getvalue())
        (item,) = _items(tmp_path / "m.parquet").values()
        assert read_uri(item.source_uri) == _wav(seed)
        (draft,) = ManifestSource(path=str(tmp_path / "m.parquet")).drafts()
        assert draft.file is not None
        assert hash_files([draft.file], StatCache())[draft.uri] == item.sha256


def test_recordings_inside_parquet_become_segments(tmp_path: Path) -> None:
    data = [sound_bytes(voice(2.0, seed), "WAV", subtype="PCM_16") for seed in range(2)]
    pq.write_table(pa.table({"audio": data, "text": ["x", "y"]}), tmp_path / "m.parquet")
    stage = AudioStage(AudioConfig(), {})
    stage.setup()
    rows = stage.process(items_table(list(_items(tmp_path / "m.parquet").values()), RECORDINGS)).to_pylist()
    assert [(row["text"], row["reject_reason"]) for row in rows] == [("x", None), ("y", None)]


@pytest.mark.parametrize(
    "names", [("start", "end"), ("start_time", "end_time"), ("Begin", "Stop"), ("begin_time", "duration")]
)
def test_where_a_stretch_lies_may_be_called_as_data_sets_do(tmp_path: Path, names: tuple[str, str]) -> None:
    (row,) = _read(tmp_path, "m.csv", f"path,{','.join(names)},text\na.wav,0,0.125,one\n")
    assert (row.start, row.end, row.text) == (0, 0.125, "one")


def test_flipped_bits_in_parquet_give_rows_or_a_source_error(tmp_path: Path) -> None:
    _clips(tmp_path)
    table = pa.table({"audio": [{"bytes": b"x" * 50, "path": "q.wav"}], "path": ["a.wav"], "text": ["one"]})
    pq.write_table(table, tmp_path / "m.parquet")
    whole = (tmp_path / "m.parquet").read_bytes()
    for bit in range(len(whole) * 4, len(whole) * 8, 7):  # its metadata, at the end
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(SourceError):
            _read(tmp_path, "m.parquet", bytes(data))
