"""Recordings in the formats of other programs, read back by these programs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import yaml
from click.testing import Result
from typer.testing import CliRunner

from spiritlm_core.align.stage import WORDS
from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.cli.app import app
from spiritlm_core.config import FrozenConfig
from spiritlm_core.config_files import load_config
from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.export.folder import export_segments
from spiritlm_core.export.formats import FORMATS
from spiritlm_core.export.segments import Segment, Segments
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lineage.forget import Wanted, forget
from spiritlm_core.plan.changes import keep_settings
from spiritlm_core.quality.selection import SELECTION
from spiritlm_core.quality.stage import QUALITY
from spiritlm_core.recipe import Recipe
from spiritlm_core.speech.stage import UNITS
from tests.tokens.finished import RECIPE, SENTENCES, commit, rows

PLAIN = ("audio", "words", "units")  # the stages of a recipe without filters
Read = dict[str, tuple[Any, list[tuple[str, float, float]]]]
"""Of each segment its samples (int16, as bytes), and its words with start and end in seconds."""


def made(root: Path, recipe: Recipe, cut: int = 15) -> Lake:
    """Two shards of three tables, in which one segment was given up by `audio` and one by `words`; `cut` of `units`."""
    lake, rng = Lake(root), np.random.default_rng(1)
    audio, words, units = rows(SENTENCES)
    for row in audio:
        samples = rng.integers(-99, 99, round(16_000 * row["duration"]), dtype=np.int16)
        row |= {"audio": encode_flac(samples), "source_uri": "file:///home/somebody/a.wav", "origin": "recorded"}
    words[4]["words"][1]["end"] = words[4]["words"][1]["start"]  # a word without length
    words[4]["words"][2]["score"] = None
    gone = {"reject_stage": "audio", "reject_reason": "too short: 0.1 s"}
    audio[2], words[2], units[2] = [{"utterance_id": "u2", **gone} for _ in range(3)]
    audio[2] |= {"recording_id": "r0", "source_uri": "x"}
    words[7] = {"utterance_id": "u7", "reject_stage": "words", "reject_reason": "no words in the transcript"}
    for name, table, schema, at in (
        ("spiritlm_core.audio.stage:AudioStage", audio, AUDIO, 15),
        ("spiritlm_core.align.stage:WordsStage", words, WORDS, 15),
        ("spiritlm_core.speech.stage:UnitsStage", units, UNITS, cut),
    ):
        commit(lake, recipe, name, FrozenConfig(), table_of(table[:at], schema), table_of(table[at:], schema))
    return lake


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_config(Recipe, RECIPE, "small.yaml")


@pytest.fixture(scope="module")
def segments(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Segments:
    return Segments.open(made(tmp_path_factory.mktemp("lake"), recipe), recipe.name, "small", PLAIN)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def sound(flac: bytes | Path) -> bytes:
    samples, rate = soundfile.read(io.BytesIO(flac) if isinstance(flac, bytes) else flac, dtype="int16")
    assert rate == 16_000
    return samples.tobytes()


def wanted(segments: Segments, split: str) -> Read:
    return {
        row["utterance_id"]: (
            sound(row["audio"]),
            [(word["word"], word["start"], word["end"]) for word in row["words"]],
        )
        for row in segments.rows()
        if row["split"] == split
    }


def same(read: Read, right: Read, within: float) -> None:
    """The same segments of the same length with the same words, whose times are this near."""
    assert list(read) == list(right)
    for name, (samples, words) in read.items():
        assert samples == right[name][0]
        assert len(samples) > 2 * 16_000
        assert [word for word, _, _ in words] == [word for word, _, _ in right[name][1]]
        times = np.array([times for _, *times in words]) - np.array([times for _, *times in right[name][1]])
        assert np.abs(times).max() <= within


def read_hf(folder: Path, split: str) -> Read:
    from datasets import Audio, load_dataset

    data = load_dataset(str(folder), split=split)
    assert data.features["audio"] == Audio(16_000)
    found: Read = {}
    for row in data.cast_column("audio", Audio(decode=False)):
        assert row["audio"]["path"] == f"{row['utterance_id']}.flac"
        assert len(row["hubert"]) == int(25 * row["duration"])
        words = [(word["word"], word["start"], word["end"]) for word in row["words"]]
        found[row["utterance_id"]] = (sound(row["audio"]["bytes"]), words)
    return found


def of_cuts(cuts: Any) -> Read:
    found: Read = {}
    for cut in cuts:
        (spoken,) = cut.supervisions
        words = [(word.symbol, word.start, word.end) for word in spoken.alignment["word"]]
        assert spoken.text.split() == [word for word, _, _ in words]
        assert len(cut.hubert) == int(25 * cut.duration)
        found[cut.id] = (np.round(cut.load_audio()[0] * 32768).astype(np.int16).tobytes(), words)
    return found


def read_shar(folder: Path, split: str) -> Read:
    from lhotse import CutSet

    return of_cuts(CutSet.from_shar(in_dir=folder / split))


def read_lhotse(folder: Path, split: str) -> Read:
    from lhotse import CutSet

    return of_cuts(CutSet.from_file(folder / f"cuts.{split}.jsonl.gz").with_recording_path_prefix(folder))


def read_webdataset(folder: Path, split: str) -> Read:
    from webdataset import WebDataset

    found: Read = {}
    for sample in WebDataset([str(path) for path in sorted(folder.glob(f"{split}-*.tar"))], shardshuffle=False):
        about = json.loads(sample["json"])
        assert about["utterance_id"] == sample["__key__"]
        assert about["text"] == sample["txt"].decode()
        words = [(word["word"], word["start"], word["end"]) for word in about["words"]]
        found[sample["__key__"]] = (sound(sample["flac"]), words)
    return found


def flacs(folder: Path, split: str) -> dict[str, Path]:
    return {path.stem: path for path in (folder / "audio" / split).glob("*.flac")}


def in_order(read: Read) -> Read:
    return dict(sorted(read.items(), key=lambda item: int(item[0][1:])))


def read_textgrid(folder: Path, split: str) -> Read:
    from praatio.textgrid import openTextgrid

    found: Read = {}
    for name, path in flacs(folder, split).items():
        grid = openTextgrid(str(path.with_suffix(".TextGrid")), includeEmptyIntervals=False)
        assert grid.maxTimestamp == pytest.approx(soundfile.info(path).duration, abs=1e-3)
        words = [(entry.label, entry.start, entry.end) for entry in grid.getTier("words").entries]
        found[name] = (sound(path), words)
    return in_order(found)


def read_ctm(folder: Path, split: str) -> Read:
    from lhotse import SupervisionSegment, SupervisionSet

    files = flacs(folder, split)
    bare = [SupervisionSegment(name, name, 0.0, soundfile.info(path).duration + 0.01) for name, path in files.items()]
    filled = SupervisionSet.from_segments(bare).with_alignment_from_ctm(folder / f"{split}.ctm")
    words = {one.id: [(word.symbol, word.start, word.end) for word in one.alignment["word"]] for one in filled}
    return in_order({name: (sound(path), words[name]) for name, path in files.items()})


def read_subtitles(folder: Path, split: str, suffix: str) -> Read:
    found: Read = {}
    for name, path in flacs(folder, split).items():
        with av.open(str(path.with_suffix(suffix))) as file:
            cues = [packet for packet in file.demux() if packet.size]
            words = [
                (
                    bytes(cue).decode(),
                    float(cue.pts * cue.time_base),
                    float((cue.pts + (cue.duration or 0)) * cue.time_base),
                )
                for cue in cues
            ]
        found[name] = (sound(path), words)
    return in_order(found)


READERS = {
    "hf": read_hf,
    "shar": read_shar,
    "lhotse": read_lhotse,
    "webdataset": read_webdataset,
    "textgrid": read_textgrid,
    "ctm": read_ctm,
    "srt": lambda folder, split: read_subtitles(folder, split, ".srt"),
    "vtt": lambda folder, split: read_subtitles(folder, split, ".vtt"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_exported_is_read_back_by_the_formats_own_library(
    kind: str, segments: Segments, tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "out"
    segments.rejected.clear()
    meta = export_segments(segments, out, kind, per_file=7)
    right = {split: wanted(segments, split) for split in ("train", "held_out")}
    within = 1e-6 if kind in ("hf", "shar", "lhotse", "webdataset") else 2e-3
    moved = out.rename(tmp_path / "moved")  # nothing in it says where it was made
    for split, rows_ in right.items():
        same(READERS[kind](moved, split), rows_, within)
        assert meta["splits"][split]["segments"] == len(rows_)
        assert meta["splits"][split]["words"] == sum(len(words) for _, words in rows_.values())
        hours = sum(len(samples) for samples, _ in rows_.values()) / 32_000 / 3600
        assert meta["splits"][split]["hours"] == pytest.approx(hours, abs=1e-4)
    assert meta["left_out"] == {"audio: too short": 1, "words: no words in the transcript": 1}
    assert {"u2", "u7"}.isdisjoint(right["train"] | right["held_out"])
    assert json.loads((moved / "corpus.json").read_text()) == meta


@pytest.mark.parametrize(
    ("kind", "pattern"), [("hf", "data/train-*"), ("webdataset", "train-*"), ("shar", "train/*.gz")]
)
def test_large_splits_are_several_files(kind: str, pattern: str, segments: Segments, tmp_path: Path) -> None:
    meta = export_segments(segments, tmp_path / "out", kind, split="train", per_file=7)
    assert list(meta["splits"]) == ["train"]
    assert len(list((tmp_path / "out").glob(pattern))) == -(-meta["splits"]["train"]["segments"] // 7)


def test_the_card_has_the_figures_and_the_hubs_front_matter_and_no_path_of_this_machine(
    segments: Segments, tmp_path: Path
) -> None:
    meta = export_segments(segments, tmp_path / "out", "hf")
    text = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["language"] == ["en"]
    assert [entry["split"] for entry in front["configs"][0]["data_files"]] == ["held_out", "train"]
    assert f"| train | {meta['splits']['train']['segments']} |" in text
    assert "1 times audio: too short" in text
    assert 'data = load_dataset(".", split="train")' in text
    assert not any(b"somebody" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def failing(rows_: list[Segment]) -> Iterator[Segment]:
    yield from rows_
    raise OSError(28, "the disk is full")


def test_an_export_that_fails_leaves_nothing_and_an_older_one_stays(
    segments: Segments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_segments(segments, out, "srt", split="train")
    before = sorted(path.name for path in out.rglob("*"))
    some = [*islice(segments.rows(), 3)]
    monkeypatch.setattr(Segments, "rows", lambda self: failing(some))
    with pytest.raises(OSError, match="disk"):
        export_segments(segments, out, "srt", force=True)
    assert sorted(path.name for path in out.rglob("*")) == before
    with pytest.raises(OSError, match="disk"):
        export_segments(segments, tmp_path / "new", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_tables_that_do_not_belong_together_are_an_error(recipe: Recipe, tmp_path: Path) -> None:
    lake = made(tmp_path / "lake", recipe, cut=14)
    with pytest.raises(LakeError, match="do not belong together: run the recipe again"):
        export_segments(Segments.open(lake, recipe.name, "small", PLAIN), tmp_path / "out", "srt")


def test_what_was_forgotten_is_not_exported_until_a_run_has_left_it_out(recipe: Recipe, tmp_path: Path) -> None:
    lake = made(tmp_path / "lake", recipe)
    forget(lake, Wanted(recordings=("r0",)))
    with pytest.raises(LakeError, match="hold recordings that were forgotten: `spiritlm run small --until corpus"):
        Segments.open(lake, recipe.name, "small", PLAIN)


def test_what_is_forgotten_while_an_export_is_written_is_said(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = made(tmp_path / "lake", recipe)
    (tmp_path / "small.yaml").write_text(RECIPE)
    command = ["corpus", "export", str(tmp_path / "small.yaml"), "--lake", lake.uri, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(
        "flows.cli.corpus.export_segments",
        lambda *of, **how: (export_segments(*of, **how), forget(lake, Wanted(recordings=("r0",))))[0],
    )
    said = CliRunner().invoke(app, [*command, "--format", "ctm"])
    assert f"forgotten: delete {tmp_path / 'out'}, and export again when" in str(said.exception)
    assert forget(lake, Wanted())["exports"] == [str(tmp_path / "out")]


def test_nothing_to_export_is_said(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no table `audio` of recipe 'small' yet: `spiritlm run small.yaml --until"):
        Segments.open(Lake(tmp_path / "none"), recipe.name, "small.yaml")
    lake = Lake(tmp_path / "lake")
    gone = {"utterance_id": "u", "recording_id": "r", "source_uri": "x", "reject_stage": "audio", "reject_reason": "no"}
    commit(lake, recipe, "spiritlm_core.audio.stage:AudioStage", FrozenConfig(), table_of([gone], AUDIO))
    with pytest.raises(SpiritLMError, match="recipe 'small' has no segment to export; left out, 1 times: audio: no"):
        export_segments(Segments.open(lake, recipe.name, "small", PLAIN), tmp_path / "out", "hf")


def test_what_filters_and_duplicates_leave_out_is_left_out_and_what_was_measured_is_exported(
    recipe: Recipe, tmp_path: Path, cache: Path
) -> None:
    from datasets import load_dataset

    lake = made(tmp_path / "lake", recipe)
    with pytest.raises(LakeError, match="no table `selection` of recipe 'small' yet"):
        Segments.open(lake, recipe.name, "small")
    ids = [f"u{i}" for i in range(len(SENTENCES))]
    noisy = {"reject_stage": "selection", "reject_reason": "snr < 10: 7.2"}
    select = [{"utterance_id": name, **(noisy if name == "u5" else {})} for name in ids]
    measured = [{"utterance_id": name, "snr": 20.0, "language": "de"} for name in ids]
    for stage, table, schema in (
        ("selection:SelectionStage", select, SELECTION),
        ("stage:QualityStage", measured, QUALITY),
    ):
        shards = [table_of(part, schema) for part in (table[:15], table[15:])]
        commit(lake, recipe, f"spiritlm_core.quality.{stage}", FrozenConfig(), *shards)
    meta = export_segments(Segments.open(lake, recipe.name, "small"), tmp_path / "out", "hf")
    rows_ = load_dataset(str(tmp_path / "out"), split="train").remove_columns("audio").to_list()
    assert "u5" not in {row["utterance_id"] for row in rows_}
    assert {(row["quality_snr"], row["quality_language"], row["language"]) for row in rows_} == {(20.0, "de", "en")}
    assert meta["left_out"]["selection: snr < 10"] == 1
    assert "quality_fingerprint" not in meta["columns"]


def test_licences_are_a_column_and_stand_in_the_card_with_hours(
    segments: Segments, tmp_path: Path, cache: Path
) -> None:
    from datasets import load_dataset

    said = [{"licence": "CC0-1.0", "consent": "yes", "expires": "2099-01-01", "recordings": ["r0", "r1"]}]
    audio = replace(segments.tables["audio"], lineage={"rights": said})
    told = Segments("small", segments.lake, {**segments.tables, "audio": audio})
    meta = export_segments(told, tmp_path / "out", "hf")
    assert "nothing is known" not in (card := (tmp_path / "out/README.md").read_text())
    assert f"- {meta['hours_by_licence']['CC0-1.0']:,} hours CC0-1.0" in card
    hours = sum(of["hours"] for of in meta["splits"].values())
    assert sum(meta["hours_by_licence"].values()) == pytest.approx(hours, abs=3e-4)
    for row in load_dataset(str(tmp_path / "out"), split="train").remove_columns("audio"):
        known = row["recording_id"] in ("r0", "r1")
        assert (row["licence"], row["expires"]) == (("CC0-1.0", "2099-01-01") if known else (None, None))


def test_settings_that_the_corpus_was_not_made_with_are_refused(segments: Segments, tmp_path: Path) -> None:
    recipe = load_config(Recipe, RECIPE, "small.yaml", ["rights={licences: [CC0-1.0]}"])
    (tmp_path / "small.yaml").write_text(RECIPE)

    def said(*settings: str, kind: str = "vtt") -> Result:
        command = ["corpus", "export", str(tmp_path / "small.yaml"), "--lake", segments.lake.uri, "--format", kind]
        given = [word for setting in settings for word in ("--set", setting)]
        return CliRunner().invoke(app, [*command, "--force", "--out", str(tmp_path / "out"), *given])

    for kind in ("vtt", "parquet"):
        refused = str(said("rights={licences: [CC0-1.0]}", kind=kind).exception)
        assert "was not made with that; `spiritlm run" in refused
        assert "--set 'rights={licences: [CC0-1.0]}' --until corpus --lake" in refused
    keep_settings(segments.lake, "small", recipe)
    assert said("rights.licences=[CC0-1.0]", "lm.seed=4").exit_code == 0
    assert "was not made with that" in str(said("rights.licences=[CC-BY-4.0]").exception)


def test_the_command_writes_what_is_asked_for_and_says_what_it_left_out(segments: Segments, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)

    def spiritlm(*arguments: str) -> Result:
        command = ["corpus", "export", str(tmp_path / "small.yaml"), "--lake", segments.lake.uri]
        return CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), *arguments])

    said = spiritlm("--format", "vtt")
    assert "segments of held_out, 0.0" in said.stdout
    assert "left out, 1 times: words: no words in the transcript" in said.stdout
    assert (tmp_path / "out/audio/train/u0.vtt").read_text().startswith("WEBVTT\n\n1\n00:00:00.")
    assert "--force" in str(spiritlm("--format", "vtt").exception)
    assert "--tokens is for packed sequences" in str(spiritlm("--format", "hf", "--force", "--tokens", "9").exception)
    meta = json.loads(spiritlm("--format", "ctm", "--force", "--split", "held_out", "--json").stdout)
    assert list(meta["splits"]) == ["held_out"]
    assert not (tmp_path / "out/audio/train").exists()
