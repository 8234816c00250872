from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.store.local import LocalStore
from spiritlm_core.store.s3 import S3Store
from spiritlm_core.store.uri import open_store, split_uri


def test_write_read_walk_delete(tmp_path):
    store = open_store(tmp_path / "lake")
    assert list(store.walk()) == []
    store.write("b/two", b"22")
    store.write("a/one", b"1")
    assert [(entry.path, entry.size) for entry in store.walk()] == [("a/one", 1), ("b/two", 2)]
    assert [entry.path for entry in store.walk("b")] == ["b/two"]
    store.write("a/one", b"changed")
    assert store.read("a/one") == b"changed"
    store.delete("a/one")
    store.delete("a/one")
    assert not store.exists("a/one")
    with pytest.raises(FileNotFoundError):
        store.read("a/one")


def test_version_changes_with_the_content(tmp_path):
    store = open_store(tmp_path)
    store.write("x", b"1")
    before = next(iter(store.walk())).version
    store.write("x", b"2")
    assert next(iter(store.walk())).version != before


def test_create_has_one_winner(tmp_path):
    store = open_store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.create("x", str(i).encode()), range(8)))
    assert sum(won) == 1
    assert store.read("x") == str(won.index(True)).encode()
    assert [entry.path for entry in store.walk()] == ["x"]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x"])
def test_paths_stay_inside(tmp_path, path):
    with pytest.raises(LakeError, match="not a path inside"):
        open_store(tmp_path / "lake").write(path, b"")


def test_a_killed_writer_leaves_nothing_visible(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from spiritlm_core.store import uri as s\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        "s.open_store(sys.argv[1]).write('x', b'half')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    store = LocalStore(tmp_path)
    assert done.returncode == -9
    assert list(store.walk()) == []
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert [(entry.path, entry.temporary) for entry in store.walk(everything=True)] == [(left[0].name, True)]


def test_uris(tmp_path):
    assert open_store(f"file://{tmp_path}").uri == str(tmp_path)
    assert open_store("s3://bucket/a/b/").uri == "s3://bucket/a/b"
    assert isinstance(pickle.loads(pickle.dumps(open_store("s3://bucket/a"))), S3Store)
    (tmp_path / "a b%20c").write_bytes(b"x")
    for uri in (str(tmp_path / "a b%20c"), f"file://{tmp_path}/a%20b%2520c"):
        store, name = split_uri(uri)
        assert store.read(name) == b"x"
    with pytest.raises(LakeError, match="unknown scheme"):
        open_store("gs://bucket")
    with pytest.raises(LakeError, match="names no bucket"):
        open_store("s3:///x")


def test_names_that_are_not_utf8_can_be_walked(tmp_path):
    name = b"caf\xe9.wav"
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    entry = next(iter(open_store(tmp_path).walk()))
    assert os.fsencode(entry.path) == name
    assert open_store(tmp_path).read(entry.path) == b"x"


def test_create_has_one_winner_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def link(*names, **options):
        raise PermissionError(1, "Operation not permitted")  # what FAT and some network file systems say

    monkeypatch.setattr(os, "link", link)
    test_create_has_one_winner(tmp_path)
    open_store(tmp_path).fetch("x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == open_store(tmp_path).read("x")


def test_the_stores_clock_is_that_of_its_files(tmp_path):
    store = open_store(tmp_path)
    assert abs(store.now() - time.time()) < 60
    store.write("x", b"1")
    assert list(store.walk(everything=True)) == list(store.walk())
    assert store.modified("x") - 1 < store.now() < store.modified("x") + 60
    assert open_store(tmp_path / "absent").now() > 0


@pytest.mark.parametrize("root", ["file", "file/lake"])
def test_a_store_that_cannot_be_a_folder_is_one_error(tmp_path, root):
    (tmp_path / "file").touch()
    with pytest.raises(LakeError, match="cannot be written to"):
        open_store(tmp_path / root).write("refs/x", b"1")
    if root == "file/lake":
        assert list(open_store(tmp_path / root).walk()) == []
    else:
        with pytest.raises(LakeError, match="file is no folder"):
            list(open_store(tmp_path / root).walk("refs"))


def test_a_full_disk_is_one_error_that_says_what_may_go(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = open_store(tmp_path)
    store.write("leases/a.json", b"1")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LakeError, match=rf"No space left on device\): free some \({tmp_path}/cache may go"):
        store.write("leases/a.json", b"2")
    assert store.read("leases/a.json") == b"1"
    assert len(list(store.walk(everything=True))) == 1
