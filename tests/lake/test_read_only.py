"""A lake that this user may read and not write."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.intake.files import File
from spiritlm_core.intake.statcache import stat_cache
from spiritlm_core.lake.care import collect_garbage, resolve_ref, verify
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold, live_leases
from tests.lake.stages import fill

NOBODY = 65534


@contextmanager
def as_a_reader(folder):
    """Take away this process's right to write below `folder`; the right of root cannot be, so it becomes nobody."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


@pytest.fixture
def lake():
    with tempfile.TemporaryDirectory() as folder:  # not `tmp_path`: only its owner may enter that
        Path(folder).chmod(0o755)
        yield Lake(Path(folder) / "lake")


@pytest.mark.parametrize("unpacked", [True, False])
def test_reading_works_and_writing_is_one_line(lake, unpacked, monkeypatch):
    artifact = fill(lake)
    if unpacked:
        lake.artifact_folder(artifact)
    cache = Path(lake.uri).with_name("cache")
    cache.mkdir()
    cache.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with as_a_reader(lake.store.root):
        targets = [resolve_ref(lake, ref) for ref in lake.refs()]
        assert lake.view(targets[0]).read().num_rows == 4
        assert (lake.artifact_folder(artifact) / "sub/sum.txt").read_text() == "6"
        assert list(verify(lake)) == []
        assert live_leases(lake.store) == []
        collect_garbage(lake, dry_run=True)
        with pytest.raises(LakeError, match=f"{lake.uri} cannot be written to"), hold(lake.store, "run", "r"):
            pass
        with pytest.raises(LakeError, match="cannot be written to"):
            collect_garbage(lake)
    assert cache.joinpath("spiritlm").exists() != unpacked


def test_what_is_listed_for_a_plan_is_not_remembered_and_no_error(lake):
    fill(lake)
    with as_a_reader(lake.store.root), stat_cache(lake, "cache/sources/x.parquet") as cache:
        cache.put(File("a.wav", "file:///a.wav", 1, "version", 1.0), "0" * 64, 9.0)
    assert cache.files.num_rows == 1
    assert list(lake.store.walk("cache/sources")) == []
