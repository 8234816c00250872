"""Who counts as working on the lake, whatever the clocks of the machines say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.care import collect_garbage
from spiritlm_core.lake.fingerprint import to_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import EXPIRY_SECONDS, Lease, hold, live_leases, this_machine
from tests.lake.stages import fill

HOUR = 3600.0


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


def put(lake, lease, silent):
    """Write a lease that was renewed `silent` seconds ago by the store's clock."""
    lake.store.write(lease.place, to_json(lease))
    when = lake.store.now() - silent
    os.utime(lake.store.root / lease.place, (when, when))


def elsewhere(heartbeat):
    return Lease("far", "run", "r", "another", 1, heartbeat, "another boot pid:[1]", "1")


@pytest.mark.parametrize("clock", [-HOUR, 0, HOUR])
@pytest.mark.parametrize("silent", [0, EXPIRY_SECONDS - 60, EXPIRY_SECONDS + 60])
def test_of_another_machine_the_stores_clock_alone_counts(lake, clock, silent, monkeypatch):
    put(lake, elsewhere(time.time() + clock), silent)
    assert bool(live_leases(lake.store)) == (silent < EXPIRY_SECONDS)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + clock)
    assert bool(live_leases(lake.store)) == (silent < EXPIRY_SECONDS)


def test_a_process_of_this_machine_counts_while_it_lives(lake):
    code = (
        "import sys; from spiritlm_core.lake.lake import Lake; from spiritlm_core.lake.lease import hold\n"
        "with hold(Lake(sys.argv[1]).store, 'run', 'r'): print('holds', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, lake.uri], **pipes) as process:
        assert process.stdout.readline() == "holds\n"
        (lease,) = live_leases(lake.store)
        put(lake, lease, HOUR)  # as if the clock had jumped
        assert live_leases(lake.store) == [lease]
        with pytest.raises(LakeError, match=rf"a run \(pid {process.pid} on .*leases/{lease.id}.json\) works on"):
            collect_garbage(lake)
        put(lake, replace(lease, began="1"), 0)  # another process that had the same number
        assert live_leases(lake.store) == []
        put(lake, lease, 0)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet forgotten by its parent
        assert live_leases(lake.store) == []
    assert live_leases(lake.store) == []


@pytest.mark.parametrize(("silent", "refused"), [(0, True), (EXPIRY_SECONDS + 60, False)])
def test_a_damaged_lease_counts_as_a_run_until_it_is_old(lake, silent, refused):
    put(lake, elsewhere(0.0), silent)
    path = lake.store.root / "leases/far.json"
    stat = path.stat()
    path.write_text('{"pid": "mine"}')
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if refused:
        with pytest.raises(LakeError, match="leases/far.json"):
            collect_garbage(lake)
    else:
        assert collect_garbage(lake).paths == ["leases/far.json"]
    with hold(lake.store, "run", "r"):
        pass  # a run does not mind


def files(lake):
    return {path.relative_to(lake.store.root).as_posix() for path in lake.store.root.rglob("*") if path.is_file()}


def test_a_dry_run_lists_exactly_what_is_deleted(lake):
    artifact = fill(lake)
    lake.artifact_folder(artifact)
    lake.store.delete("refs/r/sum.json")
    put(lake, elsewhere(0.0), HOUR)
    old = lake.store.now() - 2 * HOUR
    for name in ("tables/numbers/.tmp-1", "outputs/r/.tmp-2", "cache/artifacts/sum/.tmp-3/part", "tables/.tmp-4"):
        (lake.store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (lake.store.root / name).write_text("half")
        if name != "tables/.tmp-4":
            os.utime(lake.store.root / name, (old, old))
    for name in (f"work/sum/{artifact.key}/step", f"work/sum/{artifact.key}.out/x", f"work/sum/{'0' * 64}/step"):
        (lake.store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (lake.store.root / name).write_text("a checkpoint")
    announced, before = collect_garbage(lake, dry_run=True), files(lake)
    assert files(lake) == before
    swept = collect_garbage(lake)
    assert (swept.paths, swept.bytes) == (announced.paths, announced.bytes)
    assert before - files(lake) == set(announced.paths)
    kinds = {path.split("/")[0] for path in announced.paths}
    assert kinds == {"artifacts", "blobs", "cache", "leases", "outputs", "tables", "work"}
    assert not (lake.store.root / "cache/artifacts").exists()
    assert {"tables/.tmp-4", f"work/sum/{'0' * 64}/step"} < files(lake)
    assert collect_garbage(lake).paths == []


@pytest.mark.parametrize("silent", [0, EXPIRY_SECONDS + 60])
def test_where_proc_does_not_say_when_a_process_began_the_stores_clock_counts(lake, silent, monkeypatch):
    unknown = Lease("old", "run", "r", "here", 2**22 + 1, 0.0, this_machine(), "")
    put(lake, unknown, silent)
    assert bool(live_leases(lake.store)) == (silent < EXPIRY_SECONDS)
    put(lake, replace(unknown, began="1"), silent)  # dead
    assert live_leases(lake.store) == []

    def denied(*_):
        raise PermissionError

    monkeypatch.setattr(os, "kill", denied)  # somebody else's, which hidepid hides
    assert bool(live_leases(lake.store)) == (silent < EXPIRY_SECONDS)
