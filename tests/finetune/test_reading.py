"""Rows of Parquet and JSON lines, recordings in every form, and what becomes of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import ModelReferenceError, SourceError
from spiritlm_core.finetune.base import Rows
from spiritlm_core.finetune.config import DataConfig, SplitConfig
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.rows import TASK_ROWS, split_of
from spiritlm_core.finetune.stage import TaskUnitsStage
from spiritlm_core.finetune.template import find_template
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lineage.forget import Wanted, forget
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.finetune.makers import examples_of, write_lines
from tests.support.small_model import sound


def read(path: Path, template: str = "asr", **settings: Any) -> list[Any]:
    return read_rows(DataConfig(path=str(path), **settings), find_template(template), StatCache())


def units_of(path: Path, tokenizer: Path | None, **settings: Any) -> list[dict[str, Any]]:
    models = {} if tokenizer is None else {"speech_tokenizer": tokenizer}
    return TaskUnitsStage(FrozenConfig(), models).process(items_table(read(path, **settings), TASK_ROWS)).to_pylist()


def test_recordings_in_every_form_give_the_same_tokens(speech_tokenizer: Path, tmp_path: Path) -> None:
    data = [encode_flac(sound("low", seed)) for seed in range(3)]
    (tmp_path / "clip").mkdir()
    for number, clip in enumerate(data):
        (tmp_path / "clip" / f"{number}.flac").write_bytes(clip)
    texts = ["one", "two", "three"]
    forms: dict[str, Any] = {
        "paths": [f"clip/{n}.flac" for n in range(3)],
        "bytes": data,
        "structs": [{"bytes": clip, "path": None} for clip in data],
        "structs with a path": [{"bytes": None, "path": f"clip/{n}.flac"} for n in range(3)],
    }
    tokenizer = SpeechTokenizer.from_pretrained(speech_tokenizer)
    wanted = [tokenizer.to_string(tokenizer.encode(tmp_path / "clip" / f"{n}.flac")) for n in range(3)]
    keys = set()
    for number, values in enumerate(forms.values()):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"audio": values, "text": texts, "other": [1, 2, 3]}), path, row_group_size=2)
        found = units_of(path, speech_tokenizer)
        assert [row["speech"][0]["value"] for row in found] == wanted
        assert [row["texts"][0]["value"] for row in found] == texts
        assert found[0]["duration"] == pytest.approx(0.6, abs=0.01)
        keys.add(tuple(row["example_id"] for row in found))
    lines = write_lines(tmp_path / "rows.jsonl", [{"audio": f"clip/{n}.flac", "text": texts[n]} for n in range(3)])
    assert [row["speech"][0]["value"] for row in units_of(lines, speech_tokenizer)] == wanted
    keys.add(tuple(row["example_id"] for row in units_of(lines, speech_tokenizer)))
    assert len(keys) == 1  # the content names a row, not the form it comes in


def test_bad_rows_are_rejected_and_the_rest_goes_on(base: Path, recordings: Path) -> None:
    template = find_template("classification")
    rows = read(recordings, "classification", columns={"audio": "wav"})
    stage = TaskUnitsStage(FrozenConfig(), {"speech_tokenizer": base / "speech_tokenizer"})
    found = stage.process(items_table(rows, TASK_ROWS)).to_pylist()
    reasons = [row["reject_reason"] for row in found if row["reject_stage"]]
    assert len(found) == 51
    assert len(reasons) == 2
    assert reasons[0].startswith("audio: ")
    assert reasons[0].endswith("gone.flac: file not found")
    assert reasons[1].startswith("audio: cannot be decoded")
    del template


def test_lines_that_are_no_rows(published: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"audio": "[Hu1][Hu2]", "text": "x", "fold": "dev"}
    bad: list[Any] = [{"audio": [1], "text": "x"}, {**good, "text": ["x"]}, {**good, "fold": "fold 3"}, [1], good]
    lines = [json.dumps(good), "{", *(json.dumps(row) for row in bad), '{"text": "x", "text": "y"}']
    path.write_text("\n".join(lines) + "\n\n")
    rows = read(path, split_column="fold")
    assert [row.place for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row.error and row.error.partition(":")[0] for row in rows] == [
        None, "not JSON", "split None is neither train nor one of held_out, validation, valid, val, dev, test, eval",
        "text", "split 'fold 3' is neither train nor one of held_out, validation, valid, val, dev, test, eval",
        "not a JSON object", "the same as rows.jsonl", "names 'text' twice",
    ]  # fmt: skip
    assert rows[0].split == "held_out"
    assert len({row.key for row in rows}) == 8


def test_too_long_and_unlabelled_examples_are_rejected(published: Path, tmp_path: Path) -> None:
    rows = [{"audio": "[Hu1]" * 3, "label": "low"}, {"audio": "[Hu1][Hu2]" * 40, "label": "low"},
            {"audio": "[Hu2]", "label": "deep"}, {"audio": "[Hu3]"}]  # fmt: skip
    template = find_template("classification").model_copy(update={"labels": ("low", "high")})
    found = examples_of(write_lines(tmp_path / "rows.jsonl", rows), published, template).read().to_pylist()
    assert [row["reject_reason"] for row in found] == [
        None, found[1]["reject_reason"], "answer 'deep' is none of the labels low, high", "nothing in label",
    ]  # fmt: skip
    assert found[1]["reject_reason"].startswith("too long: 8")


def test_the_split_is_drawn_from_content_alone() -> None:
    shares = SplitConfig(held_out_share=0.3)
    drawn = [split_of(f"row {n}", None, shares) for n in range(2000)]
    assert drawn == [split_of(f"row {n}", None, shares) for n in range(2000)]
    assert 0.27 < drawn.count("held_out") / 2000 < 0.33
    assert drawn != [split_of(f"row {n}", None, SplitConfig(held_out_share=0.3, salt="x")) for n in range(2000)]
    assert split_of("row 1", "held_out", SplitConfig(held_out_share=0)) == "held_out"


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"clip": "x", "text": "y"}], {}, "data.jsonl: there is no column 'audio' for the field 'audio' of template"),
        ([{"clip": "x", "text": "y"}], {}, ", only clip, text: name the right one with data.columns.audio"),
        ([{"audio": "x", "text": "y"}], {"columns": {"speech": "audio"}},
         "data.columns.speech: template asr has no such field, only audio, text"),
        ([{"audio": "x", "text": "y"}], {"split_column": "fold"}, "there is no column 'fold' (data.split_column)"),
        ([], {}, "there are no rows in it"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_data_is_one_message(
    tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError) as found:
        read(write_lines(tmp_path / "data.jsonl", rows), **settings)
    assert message in str(found.value)


@pytest.mark.parametrize("column", ["audio", "path", "file_name", "wav"])
def test_fields_may_be_called_as_in_manifests(tmp_path: Path, column: str) -> None:
    (tmp_path / "a.flac").write_bytes(encode_flac(sound("low", 1)))
    rows = read(write_lines(tmp_path / "data.jsonl", [{column: "a.flac", "sentence": "good morning", "extra": 1}]))
    assert [(row.error, json.loads(row.texts)) for row in rows] == [(None, {"text": "good morning"})]
    assert "audio" in rows[0].recordings


@pytest.mark.parametrize(
    ("text", "reason"), [("NaN", "holds nan"), ('["a"]', "holds list"), ('{"en": "a"}', "holds dict")]
)
def test_a_text_that_is_none_is_rejected(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "data.jsonl").write_text(
        f'{{"audio": "[Hu1]", "text": {text}}}\n{{"audio": "[Hu1]", "text": "good"}}\n'
    )
    first, second = read(tmp_path / "data.jsonl")
    assert (reason in first.error, second.error) == (True, None)


def test_files_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere: there is no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"is no .parquet or .jsonl file"):
        read(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match=r"there is no .parquet or .jsonl file in it"):
        read(tmp_path)
    (tmp_path / "data.parquet").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"data.parquet: cannot be read as Parquet"):
        read(tmp_path)


def test_recordings_need_a_speech_tokenizer(recordings: Path) -> None:
    rows = read(recordings, "classification", columns={"audio": "wav"})
    with pytest.raises(ModelReferenceError, match="there is no speech_tokenizer/ beside the base model"):
        TaskUnitsStage(FrozenConfig(), {}).process(items_table(rows, TASK_ROWS))


def test_a_base_that_knows_no_speech_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"audio": "[Hu1]", "text": "x"}])
    with pytest.raises(ModelReferenceError, match="fine-tuning starts from a model that was trained here"):
        examples_of(data, tokenizer, find_template("asr"))


def test_what_is_forgotten_is_left_out_under_any_name(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1), ("a again", 0)):
        (tmp_path / f"{name}.flac").write_bytes(encode_flac(sound("low", seed)))
    texts = {"a": "one", "b": "two", "a again": "three"}
    data = write_lines(tmp_path / "rows.jsonl", [{"audio": f"{n}.flac", "text": text} for n, text in texts.items()])
    rows, lake = Rows(DataConfig(path=str(data)), find_template("asr"), ShardingConfig()), Lake(tmp_path / "lake")
    assert len(rows.items(lake, print)) == 3
    forget(lake, Wanted(recordings=(str(tmp_path / "a.flac"),)))
    (left,) = rows.items(lake, print).to_pylist()
    assert "two" in str(left)
