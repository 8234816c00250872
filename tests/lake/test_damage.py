"""Damage of every kind: bits that flipped, wrong types, objects in the wrong place, links."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spiritlm_core.cli.app import app
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.artifact import blob_path, manifest_path
from spiritlm_core.lake.care import collect_garbage, resolve_ref, verify
from spiritlm_core.lake.fingerprint import seal
from spiritlm_core.lake.forgotten import forgotten
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.lease import hold, live_leases
from spiritlm_core.lake.shard import encode_parquet, read_about, read_rows
from tests.lake.stages import execute, fill, numbers_plan

KINDS = {"tables", "snapshots", "artifacts", "blobs", "refs", "leases", "exports"}


def objects(lake):
    return [entry.path for entry in lake.store.walk() if entry.path.split("/")[0] in KINDS]


def rewrite(lake, path, **changed):
    """Change fields of an object and give it a right checksum: what a faulty writer would leave."""
    data = lake.store.read(path)
    is_json = path.endswith(".json")
    body = {**json.loads(data if is_json else read_about(pa.BufferReader(data), path)), **changed}
    about = seal(json.dumps({**body, "seal": "0" * 64}).encode())
    lake.store.write(path, about if is_json else encode_parquet(read_rows(pa.BufferReader(data), path), about))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("whole") / "lake")
    fill(lake)
    with hold(lake.store, "run", "r"):
        assert {path.split("/")[0] for path in objects(lake)} == KINDS
        yield lake


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_verify_finds_any_flipped_bit_of_any_object(whole, data):
    path = Path(whole.store.root) / data.draw(st.sampled_from(objects(whole)))
    before = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(before) - 1))
    flipped = bytearray(before)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    try:
        assert path.relative_to(whole.store.root).as_posix() in {problem.path for problem in verify(whole)}
    finally:
        path.write_bytes(before)


def test_a_shard_whose_columns_have_names_that_are_no_text_is_damaged(lake):
    """Arrow has an error of its own for all else that is wrong with a file."""
    fill(lake)
    path = min(lake.store.root.glob("tables/numbers/*.parquet"))
    path.write_bytes(path.read_bytes().replace(b"value", b"val\xf4e"))
    assert path.relative_to(lake.store.root).as_posix() in {problem.path for problem in verify(lake)}


class OldConfig(FrozenConfig):
    seed: int = 0


OLD_LAKE = Path(__file__).with_name("old_lake.json")
"""The files of a lake that was written before objects had checksums, in base64."""


def test_a_lake_without_checksums_is_read(tmp_path):
    for name, content in json.loads(OLD_LAKE.read_text()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(base64.b64decode(content))
    lake, count = Lake(tmp_path), Counter()
    assert list(verify(lake, count)) == []
    assert count == {"objects": 7}
    snapshot, artifact = (resolve_ref(lake, ref) for ref in sorted(lake.refs(), key=lambda ref: ref.name))
    assert lake.view(snapshot).read().column("value").to_pylist() == [1, 2]
    assert (lake.artifact_folder(artifact) / "sub" / "sum.txt").read_text() == "3"
    assert execute(lake, numbers_plan((1, 2), config=OldConfig()))[1] == [False]


@pytest.mark.parametrize(
    ("folder", "changed"),
    [
        ("artifacts", {"files": ["a"]}),
        ("artifacts", {"sizes": None}),
        ("artifacts", {"files": {"a": "b" * 64, "a/b": "c" * 64}}),
        ("artifacts", {"unheard": 1}),
        ("snapshots", {"shards": {"key": "x"}}),
        ("snapshots", {"lineage": 3}),
        ("refs", {"target": 5}),
        ("refs", {"updated": "now"}),
        ("refs", {"updated": float("inf")}),
        ("refs", {"updated": 1e300}),
        ("leases", {"pid": "mine"}),
        ("leases", {"pid": [1]}),
    ],
)
def test_wrong_types_are_one_error_that_names_the_object(lake, folder, changed):
    fill(lake)
    with hold(lake.store, "run", "r"):
        path = next(path for path in objects(lake) if path.startswith(folder))
        rewrite(lake, path, **changed)
        assert path in {problem.path for problem in verify(lake)}
        with pytest.raises(LakeError):
            collect_garbage(lake)
        assert lake.store.exists(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}'])
@pytest.mark.parametrize("folder", sorted(KINDS - {"blobs"}))
def test_what_is_no_object_at_all_is_found(lake, folder, content):
    fill(lake)
    with hold(lake.store, "run", "r"):
        path = next(path for path in objects(lake) if path.startswith(folder))
        lake.store.write(path, content)
        assert path in {problem.path for problem in verify(lake)}
        live_leases(lake.store)


BAD_NAMES = ["\ud800", "a" * 256, "../../x", "/root/x", "a/../../x", "..", "", "a//b", "./x", "a\\..\\x", "x\0", "a/"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_manifest_names_nothing_outside_of_its_artifact(lake, tmp_path, name):
    artifact = fill(lake)
    rewrite(lake, manifest_path(artifact.name, artifact.key), files={name: artifact.files["pid.txt"]})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(LakeError, match=f"{artifact.key}.json is not an artifact .*no name of a file"):
        lake.read_artifact(artifact.name, artifact.key)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("field", ["name", "key"])
def test_a_manifest_lies_where_it_says(lake, field):
    artifact = fill(lake)
    path = manifest_path(artifact.name, artifact.key)
    rewrite(lake, path, **{field: "0" * 64})
    with pytest.raises(LakeError, match=f"{artifact.key}.json is damaged: it says that it is artifacts/"):
        lake.read_artifact(artifact.name, artifact.key)
    assert path in {problem.path for problem in verify(lake)}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_a_damaged_copy_of_a_model_is_made_again(lake):
    artifact = fill(lake)
    copy = lake.artifact_folder(artifact) / "sub" / "sum.txt"
    copy.unlink()  # it may be the blob itself, under a second name
    copy.write_text("7")
    (copy.parent / "more.txt").write_text("a file that the manifest does not name")
    assert (lake.artifact_folder(artifact) / "sub" / "sum.txt").read_text() == "6"
    assert not (copy.parent / "more.txt").exists()


@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_damaged_model_is_an_error_that_says_how_to_heal_it(lake, unpacked, damage):
    artifact = fill(lake)
    if unpacked:
        lake.artifact_folder(artifact)
    manifest, sum_ = manifest_path(artifact.name, artifact.key), artifact.files["sub/sum.txt"]
    damage(lake.store.root / blob_path(sum_))
    if unpacked and damage == Path.unlink:
        lake.artifact_folder(artifact)  # the other name of the file still has it
        return
    with pytest.raises(LakeError, match=rf"sub/sum.txt of .*{artifact.key}.*blobs/.*{sum_} are .*delete"):
        lake.artifact_folder(artifact)
    lake.store.delete(manifest)
    assert (lake.artifact_folder(fill(lake)) / "sub" / "sum.txt").read_text() == "6"
    assert list(verify(lake)) == []


def test_a_damaged_shard_is_found_when_it_is_read(lake):
    fill(lake)
    key = min(lake.shard_keys("numbers"))
    lake.read_shard("numbers", key)
    path = lake.store.root / shard_path("numbers", key)
    whole = path.read_bytes()
    for place in (8, len(whole) // 2, len(whole) - 20):  # a page, its header, the footer
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(LakeError, match=f"{key}.parquet is damaged"):
            lake.read_shard("numbers", key, ["value"])
    path.write_bytes(whole)
    assert lake.read_shard("numbers", key).num_rows == 2
    other = max(lake.shard_keys("numbers"))
    (lake.store.root / shard_path("numbers", other)).write_bytes(whole)
    for read in (lake.read_shard, lake.read_footer):
        with pytest.raises(LakeError, match=f"{other}.parquet is damaged: it says that it is .*{key}"):
            read("numbers", other)


def move_away(path, target):
    path.rename(target)
    path.symlink_to(target)


def everything(folder):
    return sorted(path for path in folder.rglob("*") if not {"work", "leases"} & set(path.parts))


@pytest.mark.parametrize("place", ["tables/numbers", "artifacts/sum", "tables/numbers/SHARD"])
def test_a_link_in_a_lake_is_reported_and_never_deleted(lake, tmp_path, place):
    fill(lake)
    place = place.replace("SHARD", f"{min(lake.shard_keys('numbers'))}.parquet")
    move_away(lake.store.root / place, tmp_path / "elsewhere")
    (lake.store.root / "blobs" / "dangling").symlink_to("nowhere")
    found = [problem.path for problem in verify(lake) if "symbolic link" in problem.problem]
    assert sorted(found) == sorted(["blobs/dangling", place])
    before = everything(tmp_path)
    assert {path.split("/")[0] for path in collect_garbage(lake).paths} == {"work"}
    assert everything(tmp_path) == before


@pytest.mark.parametrize("place", ["refs/r", "refs/r/sum.json"])
@pytest.mark.parametrize("there", [True, False])
def test_no_collection_where_a_ref_is_a_link(lake, tmp_path, place, there):
    fill(lake)
    move_away(lake.store.root / place, tmp_path / "elsewhere")
    if not there:
        (tmp_path / "elsewhere").rename(tmp_path / "not mounted now")
    before = everything(tmp_path)
    with pytest.raises(LakeError, match=f"{place} is a symbolic link"):
        collect_garbage(lake)
    assert everything(tmp_path) == before


def test_a_folder_of_objects_may_lie_on_another_disk(lake, tmp_path):
    fill(lake)
    (lake.store.root / "blobs").rename(tmp_path / "disk")
    (lake.store.root / "blobs").symlink_to(tmp_path / "disk")
    assert list(verify(lake)) == []
    lake.store.delete("refs/r/sum.json")
    assert sum(path.startswith("blobs/") for path in collect_garbage(lake).paths) == 2


def test_reading_a_shard_starts_no_thread(lake):
    """A thread of Arrow's that still holds a buffer of Python's while the process ends aborts it now and then."""
    fill(lake)
    code = (
        "import os, pathlib, sys, pyarrow.parquet\n"
        "from spiritlm_core.lake.care import verify; from spiritlm_core.lake.lake import Lake\n"
        "lake, threads = Lake(sys.argv[1]), lambda: len(os.listdir('/proc/self/task'))\n"
        "before = threads()\n"
        "assert not list(verify(lake))\n"
        "rows = [lake.read_shard('numbers', key) for key in lake.shard_keys('numbers')]\n"
        "print(len(rows), threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, lake.uri], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "0"]


def test_verify_says_what_is_damaged_and_whose_file_it_is(lake):
    artifact = fill(lake)
    runner = CliRunner()
    whole = runner.invoke(app, ["lake", "verify", "--lake", lake.uri])
    assert (whole.exit_code, whole.stdout) == (0, "nothing is wrong\n9 objects\n")
    blob = blob_path(artifact.files["sub/sum.txt"])
    flip(lake.store.root / blob)
    found = json.loads(runner.invoke(app, ["lake", "verify", "--lake", lake.uri, "--json"]).stdout)
    assert found["objects"] == 9
    ((path, problem),) = [(problem["path"], problem["problem"]) for problem in found["problems"]]
    assert path == blob
    assert manifest_path("sum", artifact.key) in problem


def a_dangling_link(path):
    path.symlink_to("not mounted")


def a_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("folder", ["refs", "tables", "blobs", "artifacts"])
@pytest.mark.parametrize("instead", [a_dangling_link, a_loop, Path.touch])
def test_a_folder_that_is_out_of_reach_is_not_an_empty_one(lake, tmp_path, folder, instead):
    """Else a collection would delete all that the refs lead to, because their disk is not mounted."""
    fill(lake)
    (lake.store.root / folder).rename(tmp_path / "elsewhere")
    instead(lake.store.root / folder)
    before = everything(tmp_path)
    for look in (lambda: collect_garbage(lake), lambda: list(verify(lake)), lambda: list(lake.store.walk(folder))):
        with pytest.raises(LakeError, match=f"{folder} is no folder, or a link to one that is out of reach|is missing"):
            look()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("folder", sorted(KINDS))
def test_a_pipe_in_a_lake_is_not_waited_for(lake, folder):
    fill(lake)
    pipe = lake.store.root / folder / "numbers" / "pipe.json"
    pipe.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(pipe)
    assert [problem.path for problem in verify(lake)] == [f"{folder}/numbers/pipe.json"]
    assert len(list(lake.refs())) == 2
    with pytest.raises(FileNotFoundError):
        lake.store.read(f"{folder}/numbers/pipe.json")


@pytest.mark.parametrize("instead", [Path.mkdir, os.mkfifo, a_loop])
@pytest.mark.parametrize("folder", ["tables", "snapshots"])
def test_what_is_no_file_is_no_object(lake, folder, instead):
    fill(lake)
    path = lake.store.root / next(path for path in objects(lake) if path.startswith(folder))
    path.unlink()
    instead(path)
    with pytest.raises(LakeError, match=f"{path.name} is missing"):
        list(lake.view(lake.read_snapshot("numbers", lake.read_ref("r", "numbers").target)).shards())


@pytest.mark.parametrize("name", [".DS_Store", "._x.json", ".nfs000000000001", "Thumbs.db", "desktop.ini"])
def test_what_a_desktop_puts_into_folders_is_no_object_and_stays(lake, name):
    fill(lake)
    strangers = [
        lake.store.root / folder / name for folder in sorted({*KINDS, "forgotten", "refs/r", "tables/numbers"})
    ]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_bytes(b"Bud1")
    assert [*verify(lake)] == []
    assert len([*lake.refs()]) == 2
    assert forgotten(lake).tombstones == ()
    assert live_leases(lake.store) == []
    collect_garbage(lake)
    assert all(stranger.exists() for stranger in strangers)
