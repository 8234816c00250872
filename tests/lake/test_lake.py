from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.care import collect_garbage, verify
from spiritlm_core.lake.fingerprint import shard_key
from spiritlm_core.lake.lake import shard_path, snapshot_path
from spiritlm_core.lake.lease import hold
from spiritlm_core.lake.plan import StageCall, plan_artifact, plan_table
from spiritlm_core.lake.run import run_artifact, shard_entry
from tests.lake.stages import DoubleConfig, SumConfig, execute, fill, no_progress, numbers_plan


def test_a_plan_knows_the_fingerprint_in_advance(lake):
    plan = numbers_plan((1, 2), (3, -4))
    assert not plan.is_complete(lake)
    snapshot, computed = execute(lake, plan)
    assert computed == [True, True]
    assert snapshot.fingerprint == plan.fingerprint
    assert plan.is_complete(lake)
    assert execute(lake, plan)[1] == [False, False]
    totals = snapshot.totals
    assert (totals.rows_in, totals.rows_out, totals.rejected, totals.reasons) == (4, 3, 1, {"negative": 1})


def test_rejected_rows_travel_on_and_the_account_adds_up(lake):
    first, _ = execute(lake, numbers_plan((1, 2), (3, -4)))
    call = StageCall.of("tests.lake.stages:Double", DoubleConfig(), {})
    second, _ = execute(lake, plan_table(call, [first]))
    assert (second.totals.rows_in, second.totals.rows_out, second.totals.upstream) == (3, 3, 1)
    table = pickle.loads(pickle.dumps(lake.view(second))).read()
    assert table.column("value").to_pylist() == [2, 4, 6, -4]
    assert table.column("reject_stage").to_pylist() == [None, None, None, "numbers"]


def test_the_footer_carries_lineage(lake):
    snapshot, _ = execute(lake, numbers_plan((1, -2)))
    footer = lake.read_footer("numbers", snapshot.keys[0])
    assert footer.parents == sorted(["1", "-2"])
    assert shard_key(footer.identity, footer.parents) == snapshot.keys[0]
    assert footer.stats.rejected == 1
    assert shard_entry(lake, "numbers", footer.key) == snapshot.shards[0]


def test_other_config_other_keys(lake):
    first, _ = execute(lake, numbers_plan((1, 2)))
    plans = [plan_table(StageCall.of("tests.lake.stages:Double", DoubleConfig(factor=f), {}), [first]) for f in (2, 3)]
    assert plans[0].jobs[0].key != plans[1].jobs[0].key


def test_an_artifact_is_built_once_and_unpacked_once(lake):
    first, _ = execute(lake, numbers_plan((1, 2), (3, -4)))
    call = StageCall.of("tests.lake.stages:Sum", SumConfig(), {})
    plan = plan_artifact(call, {"numbers": first})
    artifact, built = run_artifact(lake, plan, no_progress)
    assert built
    assert artifact.summary == {"total": 6}
    assert run_artifact(lake, plan, no_progress) == (artifact, False)
    folder = lake.artifact_folder(artifact)
    assert (folder / "sub" / "sum.txt").read_text() == "6"
    assert lake.artifact_folder(artifact) == folder
    assert plan_artifact(call, {"numbers": first}, pin="abc").key == "abc"


def test_verify_finds_every_damage(lake):
    snapshot, _ = execute(lake, numbers_plan((1, 2), (3, 4), (5, 6)))
    plan = plan_artifact(StageCall.of("tests.lake.stages:Sum", SumConfig(), {}), {"numbers": snapshot})
    artifact, _ = run_artifact(lake, plan, no_progress)
    assert list(verify(lake)) == []
    flipped, renamed, gone = (shard_path("numbers", key) for key in snapshot.keys)
    data = bytearray(lake.store.read(flipped))
    data[len(data) // 8] ^= 0xFF
    lake.store.write(flipped, bytes(data))
    lake.store.write("tables/numbers/" + "0" * 64 + ".parquet", lake.store.read(renamed))
    lake.store.delete(gone)
    lake.store.delete(f"blobs/{artifact.files['pid.txt'][:2]}/{artifact.files['pid.txt']}")
    found = {problem.path.split("/")[0] for problem in verify(lake)}
    assert found == {"tables", "snapshots", "artifacts"}
    assert {problem.path.split("/")[0] for problem in verify(lake, fast=True)} == {"snapshots", "artifacts"}
    assert len(list(verify(lake))) == 4


def test_damage_and_loss_have_clear_messages(lake):
    snapshot, _ = execute(lake, numbers_plan((1, 2)))
    path = shard_path("numbers", snapshot.keys[0])
    lake.store.write(path, b"not parquet")
    with pytest.raises(LakeError, match=r"parquet is damaged"):
        lake.view(snapshot).read()
    with pytest.raises(LakeError, match="not a shard of this lake"):
        lake.read_footer("numbers", snapshot.keys[0])
    lake.store.delete(path)
    with pytest.raises(LakeError, match="is missing; run the recipe again"):
        lake.view(snapshot).read()


def test_garbage_is_what_no_ref_names(lake):
    old, _ = execute(lake, numbers_plan((1, 2), (3, 4)))
    new, _ = execute(lake, numbers_plan((1, 2), (5, 6)))
    dropped = set(old.keys) - set(new.keys)
    expected = {shard_path("numbers", key) for key in dropped} | {snapshot_path("numbers", old.fingerprint)}
    assert set(collect_garbage(lake, dry_run=True).paths) == expected
    assert lake.has_shard("numbers", next(iter(dropped)))
    assert set(collect_garbage(lake).paths) == expected
    assert collect_garbage(lake).paths == []
    assert lake.view(new).read().num_rows == 4
    assert list(verify(lake)) == []


def test_a_collection_that_is_killed_leaves_nothing_that_names_what_is_gone(lake, monkeypatch):
    fill(lake)
    for ref in [*lake.refs()]:
        lake.store.delete(ref.place)
    delete, left = lake.store.delete, [*lake.store.walk("blobs")]
    monkeypatch.setattr(lake.store, "delete", lambda path: path.startswith("leases/") and delete(path))
    for path in collect_garbage(lake).paths:  # stopped behind each of them
        delete(path)
        assert [*verify(lake)] == []
    assert left
    assert not [*lake.store.walk("blobs")]


def test_what_a_stage_of_an_older_version_made_is_dropped(lake):
    kept, _ = execute(lake, numbers_plan((1, 2)))
    retired = replace(kept, table="examples")
    lake.write_snapshot(retired)
    lake.write_ref("r", "examples", "table", retired.fingerprint, retired.identity)
    expected = {snapshot_path("examples", retired.fingerprint), "refs/r/examples.json"}
    assert set(collect_garbage(lake).paths) == expected
    assert [ref.name for ref in lake.refs()] == ["numbers"]


def test_no_collection_under_a_running_pipeline(lake):
    with hold(lake.store, "run", "r"):
        with pytest.raises(LakeError, match="a run .* works on"):
            collect_garbage(lake)
        collect_garbage(lake, dry_run=True)
    collect_garbage(lake)
    with hold(lake.store, "gc"), pytest.raises(LakeError, match="garbage collection"), hold(lake.store, "run"):
        pass


def test_a_stage_that_loses_a_row_is_stopped(lake, monkeypatch):
    first, _ = execute(lake, numbers_plan((1, 2)))
    monkeypatch.setattr("tests.lake.stages.Double.process", lambda self, table: table.slice(0, 1))
    with pytest.raises(LakeError, match="a row was lost"):
        execute(lake, plan_table(StageCall.of("tests.lake.stages:Double", DoubleConfig(), {}), [first]))
