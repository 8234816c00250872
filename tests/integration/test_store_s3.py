"""The store and the lake on a real S3 server."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.artifact import blob_path
from spiritlm_core.lake.care import collect_garbage, resolve_ref, verify
from spiritlm_core.lake.fingerprint import to_json
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.lease import Lease, hold, live_leases
from spiritlm_core.lake.plan import StageCall, plan_artifact, plan_table
from spiritlm_core.lake.run import run_artifact
from spiritlm_core.store.uri import open_store, split_uri
from tests.lake.stages import DoubleConfig, SumConfig, execute, no_progress, numbers_plan

pytestmark = pytest.mark.integration

OPERATIONS = {
    "walk": lambda store: list(store.walk()),
    "read": lambda store: store.read("a"),
    "open": lambda store: store.open("a"),
    "exists": lambda store: store.exists("a"),
    "modified": lambda store: store.modified("a"),
    "write": lambda store: store.write("a", b"1"),
    "create": lambda store: store.create("a", b"1"),
    "delete": lambda store: store.delete("a"),
    "now": lambda store: store.now(),
}


@pytest.fixture
def store(seaweedfs):
    return open_store(f"{seaweedfs.uri}/lake")


# --- the store ------------------------------------------------------------------------------------------------


@pytest.fixture
def requests(store, monkeypatch):
    """The prefixes that were listed; an answer holds three names."""
    asked, client = [], store.filesystem
    real = client.call_s3
    monkeypatch.setattr(client, "call_s3", lambda *a, **k: (asked.append(k["Prefix"]), real(*a, **k, MaxKeys=3))[1])
    return asked


@pytest.mark.parametrize("at_a_time", [2, 16])
def test_a_listing_of_many_answers_is_whole_and_in_order(store, requests, monkeypatch, at_a_time):
    monkeypatch.setattr("spiritlm_core.store.s3.LISTED_AT_A_TIME", at_a_time)
    inside = [f"a/{one}/{two}" for one in ("0", "1", "1-2", "é") for two in range(4)]
    paths = sorted([*inside, "a-b/x", "a/1f", "a/deep/deep/er", "a0", "b/y", "z"])
    for path in paths:
        store.write(path, path.encode())
    assert [entry.path for entry in store.walk()] == paths
    assert [entry.path for entry in store.walk("a/1")] == [f"a/1/{two}" for two in range(4)]
    requests.clear()
    assert [entry.path for entry in store.walk("b")] == ["b/y"]
    assert len(requests) == 1


def test_write_read_walk_delete(store):
    assert list(store.walk()) == []
    store.write("b/two", b"22")
    store.write("a/one", b"1")
    assert [(entry.path, entry.size) for entry in store.walk()] == [("a/one", 1), ("b/two", 2)]
    assert [entry.path for entry in store.walk("b")] == ["b/two"]
    assert list(store.walk("b/tw")) == []
    before = {entry.path: entry.version for entry in store.walk()}
    store.write("a/one", b"changed")
    assert store.read("a/one") == b"changed"
    after = {entry.path: entry.version for entry in store.walk()}
    assert (before["a/one"] == after["a/one"], before["b/two"] == after["b/two"]) == (False, True)
    store.delete("a/one")
    store.delete("a/one")
    assert (store.exists("a/one"), store.exists("b/two"), store.exists("b")) == (False, True, False)


def test_what_is_missing_is_not_found(store):
    for name in ("read", "open", "modified"):
        with pytest.raises(FileNotFoundError):
            OPERATIONS[name](store)


@pytest.mark.parametrize("name", ["What? é #1/100%.txt", "a+b c/=&.bin", "x" * 200])
def test_any_name_is_a_name(seaweedfs, name):
    """A key is no URL: these letters have no meaning in it."""
    root = f"{seaweedfs.uri}/q? #{name[:3]}%20"
    store = open_store(root)
    store.write(name, b"here")
    assert [entry.path for entry in store.walk()] == [name]
    parent, last = split_uri(store.child(name))
    assert parent.read(last) == b"here"
    assert pickle.loads(pickle.dumps(store)).read(name) == b"here"
    assert next(iter(open_store(seaweedfs.uri).walk())).path == f"{root.removeprefix(seaweedfs.uri + '/')}/{name}"


def test_prefixes_that_begin_alike_are_apart(seaweedfs):
    near, far = (open_store(f"{seaweedfs.uri}/{name}") for name in ("lake", "lake2"))
    far.write("x", b"1")
    assert list(near.walk()) == []
    near.write("ab/x", b"1")
    assert list(near.walk("a")) == []


def test_folder_markers_are_no_objects(store, seaweedfs):
    store.write("a/one", b"1")
    for key in ("lake/", "lake/a/", "lake/empty/"):
        seaweedfs.server.files().call_s3("put_object", Bucket=seaweedfs.name, Key=key, Body=b"")
    assert [entry.path for entry in store.walk()] == ["a/one"]


def test_create_has_one_winner(store):
    for attempt in range(3):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i, path: store.create(path, str(i).encode()), range(8), [f"race/{attempt}"] * 8))
        assert sum(won) == 1
        assert store.read(f"race/{attempt}") == str(won.index(True)).encode()
    assert store.create("race/0", b"late") is False


def test_the_condition_of_create_is_the_servers(store, monkeypatch):
    """Without the look before the write, the write itself must be refused."""
    store.write("a", b"first")
    answers = iter([False, True])
    monkeypatch.setattr(type(store), "exists", lambda self, path: next(answers))
    assert store.create("a", b"second") is False
    assert store.read("a") == b"first"


def test_a_big_object_goes_up_in_parts_and_appears_whole(store):
    """s3fs cuts at 50 MB; the condition of `create` has to hold for parts, too."""
    block = os.urandom(1 << 20)
    data = b"".join(bytes([i]) + block for i in range(105))
    assert store.create("big", data) is True
    assert store.read("big") == data
    assert "-" in next(iter(store.walk())).version, "the ETag of an upload in parts has a dash"
    with store.open("big") as stream:
        stream.seek(60 << 20)
        assert stream.read(100) == data[60 << 20 :][:100]


# --- the lake -------------------------------------------------------------------------------------------------


def build(lake):
    """Two tables and an artifact; the fingerprints of all."""
    numbers, _ = execute(lake, numbers_plan((1, 2), (3, -4), (5, 6)))
    doubled, _ = execute(lake, plan_table(StageCall.of("tests.lake.stages:Double", DoubleConfig(), {}), [numbers]))
    plan = plan_artifact(StageCall.of("tests.lake.stages:Sum", SumConfig(), {}), {"numbers": numbers})
    artifact, _ = run_artifact(lake, plan, no_progress)
    lake.write_ref("r", "sum", "artifact", artifact.key, artifact.identity)
    return numbers, doubled, artifact


@pytest.fixture
def lake(seaweedfs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Lake(f"{seaweedfs.uri}/lake")


def test_a_lake_on_s3_holds_what_a_local_one_holds(lake, tmp_path):
    numbers, doubled, artifact = build(lake)
    here = build(Lake(tmp_path / "lake"))
    assert (numbers.fingerprint, doubled.fingerprint) == (here[0].fingerprint, here[1].fingerprint)
    assert (artifact.key, artifact.summary) == (here[2].key, here[2].summary)
    assert lake.view(doubled).read().equals(Lake(tmp_path / "lake").view(here[1]).read())
    assert lake.shard_keys("doubled") == set(doubled.keys)
    folder = lake.artifact_folder(artifact)
    assert (folder / "sub/sum.txt").read_text() == "17"
    assert folder.is_relative_to(tmp_path / "cache")
    assert {ref.name: resolve_ref(lake, ref) for ref in lake.refs()} == {
        "numbers": numbers,
        "doubled": doubled,
        "sum": artifact,
    }


def test_the_second_run_computes_nothing(lake):
    build(lake)
    before = {entry.path: entry.version for entry in lake.store.walk()}
    numbers, computed = execute(lake, numbers_plan((1, 2), (3, -4), (5, 6)))
    assert computed == [False, False, False]
    plan = plan_artifact(StageCall.of("tests.lake.stages:Sum", SumConfig(), {}), {"numbers": numbers})
    assert run_artifact(lake, plan, no_progress)[1] is False
    assert {entry.path: entry.version for entry in lake.store.walk()} == before


def test_verify_and_garbage_collection(lake):
    old, *_ = build(lake)
    assert list(verify(lake)) == []
    execute(lake, numbers_plan((1, 2), (7, 8)))
    dry = collect_garbage(lake, dry_run=True)
    assert {path for path in dry.paths if path.startswith("tables/numbers")} == {
        shard_path("numbers", key) for key in old.keys[1:]
    }
    with hold(lake.store, "run", "r"):
        assert [lease.recipe for lease in live_leases(lake.store)] == ["r"]
        with pytest.raises(LakeError, match="a run .* works on"):
            collect_garbage(lake)
    assert collect_garbage(lake).paths == dry.paths
    assert collect_garbage(lake).paths == []
    assert list(verify(lake)) == []
    key = next(iter(lake.shard_keys("doubled")))
    lake.store.write(shard_path("doubled", key), b"not parquet")
    assert [problem.path for problem in verify(lake)] == [shard_path("doubled", key)]


def test_damage_on_s3_is_found_when_it_is_read(lake):
    numbers, _, artifact = build(lake)
    shard, blob = shard_path("numbers", numbers.keys[0]), blob_path(artifact.files["sub/sum.txt"])
    data = bytearray(lake.store.read(shard))
    data[-60] ^= 1
    lake.store.write(shard, bytes(data))
    with pytest.raises(LakeError, match=f"{shard} is damaged"):
        lake.view(numbers).read()
    copy = lake.artifact_folder(artifact) / "sub" / "sum.txt"
    copy.write_text("18")
    assert (lake.artifact_folder(artifact) / "sub" / "sum.txt").read_text() == "17"
    copy.write_text("18")
    lake.store.write(blob, b"18")
    with pytest.raises(LakeError, match=f"{blob} are damaged"):
        lake.artifact_folder(artifact)


def test_leases_are_told_apart_by_the_servers_clock(lake, monkeypatch):
    lake.store.write("x", b"1")
    assert -2 < lake.store.now() - next(iter(lake.store.walk())).modified < 60
    far = Lease("far", "run", "r", "another", 1, 0.0, "another boot pid:[1]", "1")
    lake.store.write(far.place, to_json(far))
    assert live_leases(lake.store) == [far]
    now = lake.store.now()
    monkeypatch.setattr(lake.store, "now", lambda: now + 400)
    assert live_leases(lake.store) == []


# --- errors ---------------------------------------------------------------------------------------------------


def test_a_missing_bucket_is_said(seaweedfs):
    store = open_store("s3://no-such-bucket-here/lake")
    for operation in OPERATIONS.values():
        with pytest.raises(LakeError, match="s3://no-such-bucket-here/lake.*AWS_ENDPOINT_URL.*bucket exists"):
            operation(store)


def test_wrong_credentials_are_said(seaweedfs, monkeypatch):
    """Above all `exists`: "no access" taken for "not there" would compute everything again."""
    open_store(seaweedfs.uri).write("a", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for operation in OPERATIONS.values():
        with pytest.raises(LakeError, match="access denied.*AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
            operation(open_store(seaweedfs.uri))


def test_no_credentials_are_said(seaweedfs, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(LakeError, match=r"AWS_ACCESS_KEY_ID"):
        open_store(seaweedfs.uri).exists("a")


def test_a_server_that_is_gone_is_said(seaweedfs, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(LakeError, match=r"127\.0\.0\.1:1.*AWS_ENDPOINT_URL"):
        Lake(seaweedfs.uri).has_shard("numbers", "0" * 64)
