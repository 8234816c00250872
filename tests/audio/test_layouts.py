"""Folders as the usual corpora are laid out: where their transcripts are is found by looking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.notes import notes
from spiritlm_core.intake.sources.folder import FolderSource
from spiritlm_core.intake.statcache import StatCache
from tests.audio.files import sound_bytes
from tests.support.items import Item, list_items

SOUND = "sound"
HTML = "<!doctype html><title>x</title>"


SHADOW = b"\0\5\x16\7\0\2\0\0Mac OS X        \0\2" + bytes(100)


def _write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for number, (name, content) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * np.random.default_rng(number).standard_normal(4000)
        data = sound_bytes(wave, "WAV", subtype="PCM_16") if content == SOUND else content
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def _list(folder: Path) -> dict[str, Item]:
    return {item.name: item for item in list_items(parse_source(str(folder)), "en", StatCache())}


def _grid(*tiers: tuple[str, str]) -> str:
    parts = [
        f'item [{n}]:\n class = "IntervalTier"\n name = "{name}"\n xmin = 0\n xmax = 2\n intervals: size = 2\n'
        f' intervals [1]:\n xmin = 0\n xmax = 1.5\n text = "{text}"\n'
        ' intervals [2]:\n xmin = 1.5\n xmax = 2\n text = ""\n'
        for n, (name, text) in enumerate(tiers, 1)
    ]
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 2\ntiers? <exists>\n'
    return head + f"size = {len(tiers)}\nitem []:\n" + "".join(parts)


SHORT_GRID = '"ooTextFile"\n"TextGrid"\n0\n2\n<exists>\n1\n"IntervalTier"\n"Anna"\n0\n2\n1\n0\n2\n"good morning"\n'
VTT = (
    "WEBVTT\nKind: captions\n\nNOTE by hand\n\nintro\n00:00.000 --> 00:01.000\n<v Anna>good\n\n"
    "00:01.000 --> 00:02.000\nmorning"
)
ROLLING = (
    "WEBVTT\n\n00:00.000 --> 00:01.000\n \ngood<00:00.500><c></c>\n\n00:01.000 --> 00:01.010\ngood\n \n\n"
    "00:01.010 --> 00:02.000\ngood\nmorning<00:01.500><c></c>\n"
)
LAYOUTS: dict[str, tuple[dict[str, str | bytes], str | None]] = {
    "LibriTTS": ({"84/1/84_1_0.wav": SOUND, "84/1/84_1_0.normalized.txt": "good morning",
                  "84/1/84_1_0.original.txt": "Good morning.", "84/1/84_1.book.tsv": "x\ty\tz\n"}, "84"),
    "LibriTTS, its tables alone": ({"84/1/84_1_0.wav": SOUND,
                                    "84/1/84_1.trans.tsv": "84_1_0\tGood.\tgood morning\n"}, "84"),
    "VCTK": ({"wav48/p225/p225_001.wav": SOUND, "txt/p225/p225_001.txt": "good morning"}, "p225"),
    "VCTK with two microphones": ({"wav48_silence_trimmed/p225/p225_001_mic1.flac": SOUND,
                                   "wav48_silence_trimmed/p225/p225_001_mic2.flac": SOUND,
                                   "txt/p225/p225_001.txt": "good morning"}, "p225"),
    "MLS": ({"audio/1/2/1_2_3.flac": SOUND, "transcripts.txt": "1_2_3\tgood morning\n"}, "1"),
    "AISHELL": ({"wav/train/S0002/BAC009S0002W0122.wav": SOUND,
                 "transcript/aishell_transcript_v0.8.txt": "BAC009S0002W0122 good morning\n"}, "S0002"),
    "Emilia": ({"a.wav": SOUND,
                "a.json": '{"id":"a","wav":"a.wav","text":" good morning","speaker":"x","duration":2.1}'}, "x"),
    "Emilia's lists": ({"EN/mp3/a.mp3": SOUND, "EN/all.jsonl": '{"wav": "mp3/a.mp3", "text": "good morning"}'}, None),
    "Whisper's JSON": ({"a.wav": SOUND, "a.json": '{"segments": [{"text": " good"}, {"text": "morning"}]}'}, None),
    "SRT": ({"a.wav": SOUND, "a.srt": "1\r\n00:00:00,000 --> 00:00:01,000\r\n<i>good</i>\r\nmorning\r\n"}, None),
    "VTT": ({"a.wav": SOUND, "a.vtt": VTT}, None),
    "TextGrid": ({"a.wav": SOUND, "a.TextGrid": _grid(("phones", "g U d"), ("words", "good morning"))}, None),
    "TextGrid, short, UTF-16": ({"a.wav": SOUND, "a.TextGrid": SHORT_GRID.encode("utf-16")}, None),
    "Kaldi": ({"wav/a.wav": SOUND, "data/wav.scp": "u1 wav/a.wav\n", "data/text": "u1 good morning\n",
               "data/utt2spk": "u1 anna\n", "data/spk2utt": "anna u1\n"}, "anna"),
    "Common Voice": ({"clips/a.mp3": SOUND, "validated.tsv": "client_id\tpath\tsentence\nx\ta.mp3\tgood morning\n",
                      "train.tsv": "client_id\tpath\tsentence\nx\ta.mp3\tgood morning\n",
                      "clip_durations.tsv": "clip\tduration[ms]\na.mp3\t1000\n"}, "x"),
    "Common Voice, converted": ({"clips/a.wav": SOUND,
                                 "dev.tsv": "client_id\tpath\tsentence\nx\ta.mp3\tgood morning\n"}, "x"),
    "Coqui": ({"wavs/a.wav": SOUND,
               "metadata.csv": "audio_file|text|speaker_name\nwavs/a.wav|good morning|anna\n"}, "anna"),
    "VITS": ({"wavs/a.wav": SOUND, "filelists/train.txt": "wavs/a.wav|good morning\n"}, None),
    "VITS with speakers": ({"wavs/a.wav": SOUND, "train.txt": "wavs/a.wav|7|good morning\n"}, "7"),
    "VITS of another machine": ({"wavs/a.wav": SOUND,
                                 "train.list": "/data/set/wavs/a.wav|anna|EN|good morning\n"}, "anna"),
    "Hugging Face": ({"data/a.wav": SOUND, "metadata.csv": "file_name,transcription\ndata/a.wav,good morning\n"}, None),
    "Hugging Face, nested": ({"train/a.wav": SOUND, "test/a.wav": b"", "train/metadata.jsonl":
                              '{"file_name": "a.wav", "text": "good morning", "speaker_id": 3}\n'}, "3"),
    "a list of speakers beside": ({"a.wav": SOUND,
                                   "speakers.txt": "a p225\n", "transcripts.txt": "a good morning\n"}, None),
    "measures beside": ({"a.wav": SOUND, "energy.txt": "a 0.25\n", "said.txt": "a|good morning\n"}, None),
    "MLS with segments": ({"audio/1/2/1_2_3.flac": SOUND, "transcripts.txt": "1_2_3\tgood morning\n",
                           "moments.txt": "1_2_3\thttp://x/y.mp3\t1.0\t2.0\n"}, "1"),
    "texts beside, speakers in a table": ({"a.wav": SOUND, "a.txt": "good morning",
                                           "t.csv": "path,speaker\na.wav,eva\n"}, "eva"),
    "AISHELL-3": ({"train/wav/SSB0005/SSB00050001.wav": SOUND,
                   "train/content.txt": "SSB00050001.wav\t好 hao3 早 zao3\n"}, "SSB0005"),
    "a voice behind the text": ({"wavs/a.wav": SOUND, "metadata.csv": "wavs/a.wav|good morning|anna\n"}, None),
    "a feeling behind the text (ESD)": ({"0011/Sad/0011_1.wav": SOUND,
                                         "0011/0011.txt": "0011_1\tgood morning\tSad\n"}, None),
    "VITS, its placeholder": ({"wavs/p1/p1_1.wav": SOUND,
                               "filelists/train.txt": "DUMMY2/p1/p1_1.wav|7|good morning\n"}, "7"),
    "paths of Windows": ({"wavs/a.wav": SOUND, "metadata.csv": "file_name,text\nwavs\\a.wav,good morning\n"}, None),
    "JSUT": ({"basic/wav/B_0001.wav": SOUND, "basic/transcript_utf8.txt": "B_0001:good morning\n"}, None),
    "ITA with readings": ({"B_0001.wav": SOUND, "transcript_utf8.txt": "B_0001:good morning,グッド\n"}, None),
    "Festival": ({"wav/a_1.wav": SOUND, "etc/txt.done.data": '( a_1 "good morning" )\n'}, None),
    "sclite": ({"a.wav": SOUND, "ref.trn": "good morning (a)\n"}, None),
    "THCHS-30": ({"data/A1.wav": SOUND, "data/A1.wav.trn": "good morning\ng ud m or\n",
                  "train/x.trn": "../x.trn\n"}, None),
    "TIMIT": ({"DR1/F/SA1.WAV": SOUND, "DR1/F/SA1.TXT": "0 46797 good morning\n"}, None),
    "Audacity": ({"a.wav": SOUND, "a.txt": "0.0\t1.2\tgood\n1.2\t2.0\tmorning\n"}, None),
    "whisper.cpp": ({"a.wav": SOUND,
                     "a.wav.json": '{"transcription": [{"text": " good"}, {"text": " morning"}]}'}, None),
    "a list of stretches": ({"a.wav": SOUND, "a.json": '[{"text": "good"}, {"text": "morning"}]'}, None),
    "captions that roll up": ({"a.wav": SOUND, "a.en.vtt": ROLLING}, None),
    "TextGrid, short as of old": ({"a.wav": SOUND, "a.TextGrid": SHORT_GRID.replace("File", "File short")}, None),
    "TextGrid of two speakers": ({"a.wav": SOUND,
                                  "a.TextGrid": _grid(("A - words", "good"), ("A - phones", "g"),
                                                      ("B - words", "morning"))
                                  }, None),
    "CSS10": ({"x/a.wav": SOUND, "transcript.txt": "x/a.wav|Good, 7.|good morning|9.87\n"}, None),
    "the whole name and an ending": ({"a.wav": SOUND, "a.wav.txt": "good morning"}, None),
    "upper case": ({"A.WAV": SOUND, "A.TXT": "good morning"}, None),
    "two dots": ({"a.v1.wav": SOUND, "a.v1.txt": "good morning"}, None),
    "accents in two spellings": ({"e\u0301.wav": SOUND, "\u00e9.txt": "good morning"}, None),
    "accents in a list": ({"wavs/e\u0301.wav": SOUND, "list.txt": "\u00e9|good morning"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_found_by_looking(tmp_path: Path, name: str) -> None:
    files, speaker = LAYOUTS[name]
    _write(tmp_path, files)
    with notes() as heard:
        items = [item for item in _list(tmp_path).values() if item.size]
    said = "好 早" if name == "AISHELL-3" else "good morning"
    assert {(item.text, item.speaker, item.error) for item in items} == {(said, speaker, None)}
    assert not [line for line in heard if "differ" in line or "no text column" in line]


def test_lists_in_several_folders_speak_of_what_lies_below_them(tmp_path: Path) -> None:
    files = {f"{who}/{name}": SOUND for who in "xy" for name in ("wav/v_1.wav", "wav/v_2.wav")}
    lists = {f"{who}/transcripts_utf8.txt": f"v_1:one {who}\nv_2:two {who}\n" for who in "xy"}
    items = _list(_write(tmp_path, files | lists))
    assert {name: item.text for name, item in items.items()} == {
        f"{who}/wav/v_{n}.wav": f"{text} {who}" for who in "xy" for n, text in ((1, "one"), (2, "two"))
    }


def test_a_list_of_another_speaker_says_nothing(tmp_path: Path) -> None:
    items = _list(_write(tmp_path, {"p226/1.wav": SOUND, "list.txt": "p225/1.wav|one\n"}))
    assert {name: item.text for name, item in items.items()} == {"p226/1.wav": None}


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        ("wavs/a.wav|你好5|你好五\nwavs/b.wav|再见|再见\n", ["你好五", "再见"]),
        ("wavs/a.wav|s1|你好\nwavs/b.wav|s1|再见\n", ["你好", "再见"]),
        ("wavs/a.wav|你好|s1\nwavs/b.wav|再见|s1\n", ["你好", "再见"]),
        ("a|5 %|five percent\nb|Hello|hello\n", ["five percent", "hello"]),
        ("a|good morning|Anna Smith\nb|bye|Anna Smith\n", ["good morning", "bye"]),
    ],
)
def test_what_the_last_column_of_a_list_is_is_told_by_what_it_holds(
    tmp_path: Path, lines: str, texts: list[str]
) -> None:
    items = _list(_write(tmp_path, {"wavs/a.wav": SOUND, "wavs/b.wav": SOUND, "train.txt": lines}))
    assert sorted(str(item.text) for item in items.values()) == sorted(texts)
    assert {item.speaker for item in items.values()} <= {None, "s1"}


def test_the_language_of_subtitles_is_in_their_names(tmp_path: Path) -> None:
    cue = "1\n00:00:00,000 --> 00:00:01,000\n{}\n"
    files = {
        "c.bk.txt": "copy",
        "a.fr.srt": cue.format("bonjour"),
        "b.en.srt": cue.format("one"),
        "b.de.srt": cue.format("eins"),
    }
    with notes() as heard:
        items = _list(_write(tmp_path, {f"{name}.wav": SOUND for name in "abc"} | files))
    assert (items["c.wav"].text, items["c.wav"].error) == (None, None)
    assert (items["a.wav"].text, items["a.wav"].language, items["b.wav"].text) == ("bonjour", "fr", None)
    assert "b.de.srt, b.en.srt" in heard[0]


def test_parquet_of_hugging_face_in_a_folder(tmp_path: Path) -> None:
    _write(tmp_path, {"b.wav": SOUND, "README.md": "---"})
    sounds = [{"bytes": (tmp_path / "b.wav").read_bytes() + b"\0" * n, "path": f"{n}.wav"} for n in (2, 4)]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"audio": sounds, "sentence": ["x", "y"]}), tmp_path / "data/train-00000-of-00001.parquet")
    items = _list(tmp_path)
    assert {name: (item.text, item.error) for name, item in items.items()} == {
        "2.wav": ("x", None), "4.wav": ("y", None), "b.wav": (None, None),
    }  # fmt: skip


def test_kaldi_segments_and_what_kaldi_would_run(tmp_path: Path) -> None:
    scp = "r1 wav/a.wav\nr2 sph2pipe -f wav b.sph |\nr3 raw.ark:17\nr4 /gone.wav\n"
    places = ("r1 0.0 0.1", "r1 0.1 -1", "r2 0 1", "r3 0 1", "r4 0 1", "r9 0 1", "r1 0.2 0.1", "r1 x", "r1 nan inf")
    segments = "".join(f"u{number} {place}\n" for number, place in enumerate(places, 1))
    files = {"wav/a.wav": SOUND, "wav.scp": scp, "segments": segments, "text": "u1 one\nu2 two\nu0 none\n"}
    items = list_items(parse_source(str(_write(tmp_path, files))), "en", StatCache())
    good = [(item.name, item.start, item.end, item.text) for item in items if not item.error]
    assert good == [("wav/a.wav", 0.0, 0.1, "one"), ("wav/a.wav", 0.1, None, "two")]
    errors = {item.name: item.error or "" for item in items if item.error}
    for name, reason in {
        "u3": "a command, which is not run", "u4": "a place in an archive", "/gone.wav": "recording not found",
        "u6": "recording r9 is not in wav.scp", "u7": "the stretch ends at 0.1 s, before",
        "u8": "is not RECORDING START END", "u9": "start: 'nan' must be", "u0": "u0 is not in wav.scp",
    }.items():  # fmt: skip
        assert reason in errors.pop(name)
    assert not errors


def test_a_line_of_segments_may_hold_one_word(tmp_path: Path) -> None:
    _write(tmp_path, {"a.wav": SOUND, "wav.scp": "r a.wav\n", "segments": "u1\nu2 r 0 0.1\n"})
    items = list_items(parse_source(str(tmp_path)), "en", StatCache())
    assert sorted(item.error or "" for item in items) == ["", "segments: '' is not RECORDING START END"]


def test_bad_rows_and_lines_are_rejected_rows(tmp_path: Path) -> None:
    files = {f"wavs/{name}.wav": SOUND for name in "abcde"}
    table = "file_name,text\nwavs/a.wav,one\nwavs/b.wav,two, three\nwavs/gone.wav,four\n"
    items = _list(
        _write(tmp_path, files | {"metadata.csv": table, "more.txt": "c|five\nd|six|seven|eight\nx|nine\ne|ten\n"})
    )
    assert {name: item.text for name, item in items.items() if not item.error} == {
        "wavs/a.wav": "one", "wavs/b.wav": None, "wavs/c.wav": "five", "wavs/e.wav": "ten",
    }  # fmt: skip
    errors = {name: item.error or "" for name, item in items.items() if item.error}
    assert "line 3 has 3 fields" in errors.pop("metadata.csv:3")
    assert errors == {
        "wavs/gone.wav": "recording not found; it is named in metadata.csv",
        "wavs/d.wav": "line 2 has 4 fields",
        "x": "recording not found; it is named in more.txt",
    }


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.wav": SOUND, "a.json": "{oops"}, "transcript a.json: not JSON"),
        ({"a.wav": SOUND, "a.json": '{"text": ["x"]}'}, "transcript a.json: text is a list"),
        ({"a.wav": SOUND, "a.json": '{"text": "x", "text": "y"}'}, "transcript a.json: names 'text' twice"),
        ({"a.wav": SOUND, "a.json": '[{"text": "x"}, {"text": "y", "text": "z"}]'}, "a.json: names 'text' twice"),
        ({"a.wav": SOUND, "a.txt": "hello".encode("utf-16-le")}, "transcript a.txt holds NUL"),
        ({"a.wav": SOUND, "wav.scp": "u a.wav\nu b.wav\n", "text": "u one\n"}, "wav.scp names u twice"),
        ({"a.wav": SOUND, "a.srt": b"\xff\xfe\xff"}, "transcript a.srt is not utf-16"),
        ({"a.wav": SOUND, "a.TextGrid": _grid(("words", "x"))[:-60]}, "ends before all its tiers are told"),
        ({"x/a.wav": SOUND, "y/a.wav": SOUND, "list.txt": "a|one\n"}, "a may be x/a.wav or y/a.wav"),
        ({"clips/a.mp3": SOUND, "invalidated.tsv": "path\tsentence\na.mp3\tone\n"}, "listeners found it wrong"),
    ],
)
def test_a_transcript_that_cannot_be_used_is_a_rejected_row(
    tmp_path: Path, files: dict[str, str | bytes], reason: str
) -> None:
    errors = [item.error for item in _list(_write(tmp_path, files)).values() if item.error]
    assert [reason in error for error in errors] == [True]


def test_of_two_transcripts_the_first_counts_and_it_is_said(tmp_path: Path) -> None:
    table = "path,text\na.wav,{}\n"
    with notes() as heard:
        items = _list(_write(tmp_path, {"a.wav": SOUND, "1.csv": table.format("one"), "2.csv": table.format("two")}))
    assert items["a.wav"].text == "one"
    assert heard == [f"source {tmp_path}: transcripts differ, and the first one is taken, of a.wav"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.wav": SOUND, "a.TextGrid": 'File type = "ooTextFile"\n'}, "not used as transcripts: a.TextGrid"),
        ({"a.wav": SOUND, "b.srt": "1\n", "c.json": "{}"}, "not used as transcripts: b.srt, c.json"),
        ({"a.wav": SOUND, "texts/list.tsv": "id\tline\n1\tgood morning\n"}, "not used as transcripts: texts/list.tsv"),
        (
            {
                "a.wav": SOUND,
                "G.json": '{"audios": [{"path": "a.wav", "segments": [{"text_tokens": "GOOD MORNING"}]}]}',
            },
            "no text column was recognised among 'segments'",
        ),
        ({"a.wav": SOUND, "a.lab": "0 500 sil\n500 900 hh\n"}, "not used as transcripts: a.lab"),
        ({"a.wav": SOUND, "a.eaf": "<ANNOTATION_DOCUMENT/>"}, "not used as transcripts: a.eaf"),
        (
            {"a.wav": SOUND, "x.jpg": b"\xff\xd8\xff\xe0", "y.jpg": b"\xff\xd8", "p.html": HTML},
            "not audio: 2 .jpg, 1 .html",
        ),
        ({"a.wav": SOUND, "README.md": "# Speech", "LICENSE": "free"}, "not audio: "),
        ({"a.wav": SOUND, "m.csv.gz": b"\x1f\x8b\x08cut"}, "not used as transcripts: m.csv.gz"),
        (
            {"a.wav": SOUND, "._a.wav": SHADOW, "._a.txt": SHADOW, "__MACOSX/._a.wav": SHADOW},
            "left out: 3 files in which macOS keeps notes on others (._NAME)",
        ),
        (
            {"a.wav": SOUND, "m.jsonl": '{"path": "a.wav", "words_said": "good morning"}'},
            "no text column was recognised",
        ),
    ],
)
def test_what_was_not_used_is_said(tmp_path: Path, files: dict[str, str | bytes], said: str) -> None:
    with notes() as heard:
        items = _list(_write(tmp_path, files))
    assert {name: item.error for name, item in items.items()} == {"a.wav": None}
    assert len(heard) == 1
    assert said in heard[0]


def test_every_file_is_a_row_or_counted(tmp_path: Path) -> None:
    kinds = ("wav", "mkv", "mov", "avi", "m4b", "3gp", "ts", "mp2", "wv", "tta", "snd", "nist", "voc", "spx", "dat")
    names = [f"x.{kind}" for kind in kinds]
    files: dict[str, Any] = dict.fromkeys([*names, "no_suffix", "late.txt"], SOUND)
    others = {
        "code.ts": "const x = 1;\n",
        "zip.bin": b"PK\x03\x04" + bytes(range(256)),
        "empty": b"",
        "x.json": json.dumps({}),
    }
    with notes() as heard:
        items = _list(_write(tmp_path, files | others))
    assert set(items) == set(files)
    assert not [item.error for item in items.values() if item.error]
    assert sorted(heard) == [
        f"source {tmp_path}: not audio: 1 .ts, 1 empty, 1 .bin",
        f"source {tmp_path}: not used as transcripts: x.json",
    ]


def test_a_transcript_is_found_whatever_its_name_says_about_the_corpus(tmp_path: Path) -> None:
    items = _list(_write(tmp_path, {"notice.wav": SOUND, "notice.txt": "good morning", "COPYING.txt": "free"}))
    assert {name: item.text for name, item in items.items()} == {"notice.wav": "good morning"}


def test_signs_in_subtitles_are_text(tmp_path: Path) -> None:
    cue = "1\n00:00:00,000 --> 00:00:01,000\n"
    said = cue + "a < b and <i>c</i> > d\nNOTE that &amp; 7\n7\n\n2\n00:00:01,000 --> 00:00:02,000\n<00:00:01.500>9\n"
    items = _list(_write(tmp_path, {"a.wav": SOUND, "a.srt": said}))
    assert items["a.wav"].text == "a < b and c > d NOTE that & 7 7 9"


def test_a_json_file_without_a_text_says_nothing(tmp_path: Path) -> None:
    files = {"a.wav": SOUND, "a.json": '{"speaker": {"id": 7}, "duration": "x"}', "b.wav": SOUND, "b.json": "[1]"}
    assert [(item.text, item.error) for item in _list(_write(tmp_path, files)).values()] == [(None, None)] * 2


def test_speakers_of_folders(tmp_path: Path) -> None:
    _write(tmp_path, {"anna/a.wav": SOUND, "list.csv": "path,text,speaker\nanna/a.wav,good morning,bob\n"})
    for by_folder, speaker in ((True, "anna"), (False, "bob")):
        (item,) = list_items(FolderSource(path=str(tmp_path), speaker_from_folder=by_folder), "en", StatCache())
        assert (item.text, item.speaker) == ("good morning", speaker)
