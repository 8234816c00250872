"""What `spiritlm forget` and `spiritlm lineage` print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import lineage as commands
from spiritlm_core.cli.app import app
from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lineage.model import lineage_of
from spiritlm_core.lineage.trace import recordings
from tests.lineage.levels import run
from tests.plan.lakes import clip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    clip(folder / "clips" / "Quentin", 1)
    clip(folder / "clips" / "Zebedee", 2)
    (folder / "clips" / "Zebedee" / "corpus.yaml").write_text("licence: CC-BY-4.0\nexpires: 2999-12-31\n")
    run(folder / "clips", Lake(folder / "lake"))
    audio = Lake(folder / "lake").read_ref("levels", "audio")
    assert audio
    (folder / "model").mkdir()
    written = {"recipe": "levels", "tables": {"audio": audio.target}, "artifacts": {"mean": "f" * 64}}
    (folder / "model" / "lineage.json").write_text(json.dumps(written))
    return folder


def forgotten(place: Path, **given: Any) -> None:
    nobody: dict[str, Any] = {"speaker": None, "recording": None, "list_": None, "as_json": False}
    commands.forget(str(place / "lake"), **{**nobody, "dry_run": True, **given})


def lineage(place: Path, model: str | None = None, *, lake: str = "lake", as_json: bool = True, **given: Any) -> None:
    commands.lineage(model, str(place / lake), **{"recordings": False, "of": None, **given}, as_json=as_json)


def test_the_models_that_are_kept_when_a_corpus_changes_are_known() -> None:
    assert {"aligner", "hubert", "quantizer", "style", "vocoder", "tokenizer"} <= commands._pinned()
    assert not commands._pinned() & {"model", "evaluation", "published"}


def test_the_statement_names_recordings_tables_artifacts_and_commands(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_pinned", lambda: {"mean"})  # of this small pipeline, which no recipe makes
    forgotten(place, speaker=["Zebedee"])
    said = capfd.readouterr().out
    lake, file = place / "lake", place / "clips/Zebedee/2.wav"
    assert said.startswith(f"1 recordings, 0.00 hours of speech, on {lake}\n  {file.as_uri()}\n")
    assert "tables of levels: they are in audio, loudness\n" in said
    assert f": spiritlm run levels.yaml --lake {lake} --refit --until mean\n" in said
    assert f": spiritlm run levels.yaml --lake {lake} --until last\n" in said
    assert "1 of these files lie on this disk" in said
    again, gc = f"  spiritlm run levels.yaml --lake {lake}", f"  spiritlm lake gc --lake {lake}\n"
    assert said.endswith(f"{again}\n{again} --refit  # fits its kept models, too\n{gc}")
    assert "with the options that the runs had before" in said
    assert not (lake / "forgotten").exists()


def test_other_recordings_of_the_same_speech_are_named_with_the_command_that_forgets_them(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {one.speaker: one for one in recordings(Lake(place / "lake"))}
    alike = {one.recording_id for one in found.values()}
    monkeypatch.setattr("spiritlm_core.lineage.forget.same_speech", lambda _lake, ids: alike)
    forgotten(place, speaker=["Zebedee"])
    command = f"  spiritlm forget --lake {place / 'lake'} --recording {found['Quentin'].source_uri}\n"
    assert command in capfd.readouterr().out


def test_there_must_be_a_lake(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["forget", "--lake", str(tmp_path / "none"), "--recording", "a.wav"])
    assert "there is no lake at" in str(said.exception)
    assert not (tmp_path / "none").exists()


def test_a_model_is_told_with_its_recordings_and_their_licences(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lineage(place, str(place / "model"), recordings=True)
    found = json.loads(capfd.readouterr().out)
    assert found["recipe"] == "levels"
    assert found["count"] == 2
    assert {name: value > 0 for name, value in found["hours_by_licence"].items()} == {
        "CC-BY-4.0": True,
        "unknown": True,
    }
    told = [(one["speaker"], one["licence"], one["expires"]) for one in found["recordings"]]
    assert told == [("Quentin", None, None), ("Zebedee", "CC-BY-4.0", "2999-12-31")]
    lineage(place, str(place / "model"), as_json=False, recordings=True)
    assert "s  Zebedee, train, CC-BY-4.0, 2999-12-31\n" in capfd.readouterr().out.replace("held_out", "train")


def test_a_published_folder_needs_no_lake_beside_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place / "model")
    for arguments in ([], ["--lake", str(place / "absent")]):
        done = CliRunner().invoke(app, ["lineage", str(place / "model"), *arguments])
        assert done.exit_code == 0, done.exception
        assert capfd.readouterr().out.startswith("recipe: levels\n  table audio")


@pytest.mark.parametrize("written", [{"a": 1}, {"tables": 5, "artifacts": {"mean": "f"}}, {"recipe": "levels"}])
def test_a_file_that_is_no_lineage_is_said_to_be_none(tmp_path: Path, written: dict[str, Any]) -> None:
    (tmp_path / "lineage.json").write_text(json.dumps(written))
    with pytest.raises(SpiritLMError, match=r"lineage\.json is not of a published model: it has no `tables`"):
        lineage_of(str(tmp_path), Lake(tmp_path / "lake"))


def test_a_folder_alone_tells_tables_and_artifacts(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lineage(place, str(place / "model"), lake="another")
    found = json.loads(capfd.readouterr().out)
    assert found["artifacts"] == {"mean": "f" * 64}
    assert "does not have this list" in found["missing"]
    assert not (place / "another").exists()


def test_the_reverse_tells_what_a_recording_is_in(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lineage(place, of=[str(place / "clips/Quentin/1.wav")])
    found = json.loads(capfd.readouterr().out)
    assert [one["speaker"] for one in found["recordings"]] == ["Quentin"]
    assert [one["name"] for one in found["made_with"]] == ["mean", "last"]
    assert not (place / "lake" / "forgotten").exists()


def test_what_is_no_model_is_an_error_that_says_so(place: Path) -> None:
    with pytest.raises(SpiritLMError, match=r"has no lineage.json"):
        lineage(place, str(place))
    with pytest.raises(LakeError, match="no folder nothing, and .* has no published model"):
        lineage(place, "nothing")
    with pytest.raises(SpiritLMError, match="give a MODEL, or recordings with --of URI"):
        lineage(place)
