"""Taking a speaker back: nothing of them is left, nothing brings them back, and what was made with them is told."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.care import collect_garbage, note_export, verify
from spiritlm_core.lake.fingerprint import read_object, write_object
from spiritlm_core.lake.forgotten import Tombstone, forgotten, refuse_forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold
from spiritlm_core.lake.snapshot import KeepConfig
from spiritlm_core.lineage.forget import Wanted, forget, read_list
from spiritlm_core.lineage.trace import FROM, WITH, recordings
from spiritlm_core.plan.graph import plan_graph
from tests.lineage.levels import graph_on, run
from tests.plan.lakes import clip
from tests.support.every_byte import holding

NAME = "Zebedee"
WITHDRAWN = Wanted(speakers=(NAME,))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings of two speakers, and a lake with their units."""
    place = tmp_path_factory.mktemp("forget")
    for number in range(4):
        clip(place / "clips" / "Quentin", number)
        clip(place / "clips" / NAME, 10 + number)
    run(place / "clips", Lake(place / "lake"))
    return place


@pytest.fixture
def place(filled: Path, tmp_path: Path) -> Path:
    """A copy of it; the recordings stay where they were listed."""
    shutil.copytree(filled / "lake", tmp_path / "lake")
    (tmp_path / "clips").symlink_to(filled / "clips")
    return tmp_path


def speakers(lake: Lake) -> set[str | None]:
    return {one.speaker for one in recordings(lake)}


def rebuilt(place: Path, lake: Lake, *, refit: bool = False) -> None:
    run(place / "clips", lake, refit=refit)
    collect_garbage(lake)


def made_with(statement: dict) -> set[str]:
    return {one["name"] for one in statement["made_with"]}


def test_after_the_next_run_and_gc_nothing_of_a_speaker_is_in_any_byte(place: Path) -> None:
    lake = Lake(place / "lake")
    sound = [row["audio"] for row in lake_rows(lake) if row["speaker"] == NAME]
    needles = [NAME.encode(), *(flac[100:200] for flac in sound)]
    assert len(needles) == 5
    before = holding(place / "lake", *needles)
    assert {path.split("/")[0] for path in before} == {"tables"}
    forget(lake, WITHDRAWN)
    with pytest.raises(LakeError, match="still hold recordings that were forgotten: a run makes them without them"):
        refuse_forgotten(lake, tables_in_use(lake), "a run makes them")
    rebuilt(place, lake)
    refuse_forgotten(lake, tables_in_use(lake), "a run makes them")
    assert holding(place / "lake", *needles) == {}
    assert speakers(lake) == {"Quentin"}
    assert [*verify(lake)] == []


def tables_in_use(lake: Lake) -> list[str]:
    return [ref.target for ref in lake.refs() if ref.kind == "table"]


def lake_rows(lake: Lake) -> list[dict]:
    return [row for key in lake.shard_keys("audio") for row in lake.read_shard("audio", key).to_pylist()]


def test_the_statement_names_what_was_made_with_them_before_and_after(place: Path) -> None:
    lake = Lake(place / "lake")
    said = forget(lake, WITHDRAWN, dry_run=True)
    assert not forgotten(lake).tombstones
    assert len(said["recordings"]) == 4
    assert {one["speaker"] for one in said["recordings"]} == {NAME}
    assert {one["name"]: one["clean"] for one in said["tables"]} == {"audio": False, "loudness": False}
    assert made_with(said) == {"mean", "last"}
    assert [one["how"] for one in said["made_with"]] == [FROM, WITH]
    done = forget(lake, WITHDRAWN)
    assert [{**one, "tombstones": 0} for one in (said, done)] == [{**done, "tombstones": 0}] * 2
    rebuilt(place, lake)
    left = forget(lake, Wanted())
    assert left["recordings"] == []
    assert {one["name"]: one["clean"] for one in left["tables"]} == {"audio": True, "loudness": True}
    assert [one["how"] for one in left["made_with"]] == [FROM, WITH]  # kept until they are fitted again


def test_after_a_refit_nothing_was_made_with_them(place: Path) -> None:
    lake = Lake(place / "lake")
    forget(lake, WITHDRAWN)
    rebuilt(place, lake)
    rebuilt(place, lake, refit=True)
    assert forget(lake, Wanted())["made_with"] == []
    assert holding(place / "lake", NAME.encode()) == {}


def test_no_retention_spares_what_was_forgotten(place: Path) -> None:
    lake, keep = Lake(place / "lake"), KeepConfig(snapshots=9)
    run(place / "clips", lake, keep=keep)
    forget(lake, Wanted(recordings=(next(one.recording_id for one in recordings(lake) if one.speaker != NAME),)))
    run(place / "clips", lake, keep=keep)
    forget(lake, WITHDRAWN)
    run(place / "clips", lake, keep=keep)
    collect_garbage(lake)
    assert holding(place / "lake", NAME.encode()) == {}
    assert len(recordings(lake)) == 3


def test_an_expired_consent_is_spared_by_retention_until_a_run_without_it(place: Path, filled: Path) -> None:
    lake, said = Lake(place / "lake"), filled / "clips" / NAME / "corpus.yaml"
    run(place / "clips", lake, keep=KeepConfig(snapshots=9))
    said.write_text("expires: 2020-01-01")
    try:
        run(place / "clips", lake, keep=KeepConfig(snapshots=9))
        collect_garbage(lake)
        assert {one.speaker for one in recordings(lake) if one.seconds} == {"Quentin", NAME}
        rebuilt(place, lake)  # keep: null
        assert {one.speaker for one in recordings(lake) if one.seconds} == {"Quentin"}  # else rejected rows
    finally:
        said.unlink()


def test_a_file_does_not_return_under_another_name_or_speaker(place: Path) -> None:
    lake, other = Lake(place / "lake"), place / "other"
    forget(lake, WITHDRAWN)
    for number, path in enumerate(sorted((place / "clips" / NAME).glob("*.wav"))):
        (other / "Quentin").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, other / "Quentin" / f"new{number}.wav")
    clip(other / "Quentin", 99)
    audio = plan_graph(graph_on(other), lake, "audio").stages["audio"]
    assert [row["name"] for job in audio.jobs for row in job.rows().to_pylist()] == ["Quentin/99.wav"]


def test_new_recordings_of_a_forgotten_speaker_stay_out(place: Path, filled: Path) -> None:
    lake = Lake(place / "lake")
    forget(lake, WITHDRAWN)
    new = clip(filled / "clips" / NAME, 50)
    try:
        audio = plan_graph(graph_on(place / "clips"), lake, "audio").stages["audio"]
    finally:
        new.unlink()
        new.with_suffix(".txt").unlink()
    assert sum(len(job.members) for job in audio.jobs) == 4


def test_one_recording_by_path_or_identifier_or_list(place: Path) -> None:
    lake = Lake(place / "lake")
    first, second, *_ = sorted((place / "clips").resolve().rglob("*.wav"))
    identifier = next(one.recording_id for one in recordings(lake) if one.source_uri.endswith(second.name))
    (place / "list.txt").write_text(f"# withdrawn\n{first}\n\n{identifier}\n")
    said = forget(lake, Wanted(recordings=read_list(place / "list.txt")))
    assert [one["source_uri"] for one in said["recordings"]] == [first.as_uri(), second.as_uri()]
    rebuilt(place, lake)
    assert len(recordings(lake)) == 6


def test_a_file_that_was_never_there_is_kept_out_and_a_wrong_name_is_an_error(place: Path) -> None:
    lake = Lake(place / "lake")
    stranger = clip(place / "strangers", 77)
    assert forget(lake, Wanted(recordings=(str(stranger),)))["recordings"] == []
    assert len(forgotten(lake).tombstones[0].files) == 1
    with pytest.raises(LakeError, match="no recording of speaker 'Nobody'; its speakers are Quentin, Zebedee"):
        forget(lake, Wanted(speakers=("Nobody",)))
    with pytest.raises(LakeError, match="no recording of speaker 'zebede'; nearly so called: Zebedee$"):
        forget(lake, Wanted(speakers=("zebede",)), dry_run=True)
    wrong = Wanted(recordings=("/nowhere.wav", str(stranger), "nor/here.wav", "x" * 5000))
    every = r"no such file: '/nowhere.wav' \(No such file or directory\), 'nor/here.wav' \(.*\), 'xxx.* name too long\)"
    with pytest.raises(LakeError, match=every):
        forget(lake, wrong)
    assert len(forgotten(lake).tombstones) == 1


def test_an_artifact_fitted_on_a_corpus_of_the_past_is_still_found(place: Path, filled: Path) -> None:
    """Its snapshot outlives garbage collection, without the shards."""
    lake, more = Lake(place / "lake"), [clip(filled / "clips" / "Quentin", number) for number in (60, 61)]
    try:
        rebuilt(place, lake)
    finally:
        for path in more:
            path.unlink()
            path.with_suffix(".txt").unlink()
    rebuilt(place, lake)
    assert [*verify(lake)] == []
    assert made_with(forget(lake, WITHDRAWN, dry_run=True)) == {"mean", "last"}
    later = Wanted(recordings=(next(one.recording_id for one in recordings(lake) if one.speaker != NAME),))
    forget(lake, WITHDRAWN)
    rebuilt(place, lake)
    assert made_with(forget(lake, later, dry_run=True)) == {"mean", "last"}


def test_what_was_exported_is_named(place: Path) -> None:
    lake = Lake(place / "lake")
    note_export(lake, "/exports/tainted", [lake.read_ref("levels", "loudness").target])
    stays = Wanted(recordings=(next(one.recording_id for one in recordings(lake) if one.speaker != NAME),))
    assert forget(lake, WITHDRAWN)["exports"] == ["/exports/tainted"]
    rebuilt(place, lake)
    note_export(lake, "/exports/later", [lake.read_ref("levels", "loudness").target])
    rebuilt(place, lake)
    assert [*verify(lake)] == []
    for wanted in (WITHDRAWN, Wanted()):  # its recordings have left the lake
        assert forget(lake, wanted)["exports"] == ["/exports/tainted"]
    assert set(forget(lake, stays, dry_run=True)["exports"]) == {"/exports/tainted", "/exports/later"}


def test_an_export_of_which_an_older_version_deleted_the_list_counts(place: Path) -> None:
    lake = Lake(place / "lake")
    note_export(lake, "/exports/old", ["0" * 64])
    assert forget(lake, WITHDRAWN, dry_run=True)["exports"] == ["/exports/old"]


def test_no_run_may_be_under_way(place: Path) -> None:
    lake = Lake(place / "lake")
    with hold(lake.store, "run", "levels"), pytest.raises(LakeError, match="a run .* works on"):
        forget(lake, WITHDRAWN)
    assert not forgotten(lake).tombstones


def test_gc_deletes_unfinished_fits_of_before_and_keeps_later_ones(place: Path) -> None:
    lake = Lake(place / "lake")
    old, new = (place / "lake" / "work" / "vocoder" / (digit * 64) / "checkpoint" for digit in "12")
    for path in (old, new):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"audio of somebody")
    os.utime(old, (1e9, 1e9))
    assert not any(path.startswith("work/vocoder") for path in collect_garbage(lake, dry_run=True).paths)
    forget(lake, WITHDRAWN)
    os.utime(new)
    collect_garbage(lake)
    assert (old.exists(), new.exists()) == (False, True)


def test_caches_of_older_versions_lose_their_names(place: Path) -> None:
    lake, path = Lake(place / "lake"), place / "lake/cache/sources/old.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(zlib.compress(b'{"format": 1, "files": {"file:///%s.wav": [3, "1-2-3", "ab"]}}' % NAME.encode()))
    assert holding(place / "lake" / "cache", NAME.encode())
    forget(lake, WITHDRAWN)
    assert holding(place / "lake" / "cache", NAME.encode()) == {}


def test_a_damaged_tombstone_stops_a_run(place: Path) -> None:
    lake = Lake(place / "lake")
    forget(lake, WITHDRAWN)
    (stone,) = forgotten(lake).tombstones
    path = f"forgotten/{stone.id}.json"
    assert read_object(lake.store, Tombstone, path) == stone
    lake.store.write(path, lake.store.read(path).replace(b"speakers", b"Speakers"))
    with pytest.raises(LakeError, match=r"damaged.*run spiritlm forget again"):
        plan_graph(graph_on(place / "clips"), lake, "audio")
    (problem,) = verify(lake)
    assert problem.path == path
    assert "run spiritlm forget again" in str(problem)
    write_object(lake.store, stone)
    assert [*verify(lake)] == []
