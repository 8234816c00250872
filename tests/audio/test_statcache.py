"""An unchanged file is not read again; a changed one always is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.intake import statcache
from spiritlm_core.intake.files import File, list_tree
from spiritlm_core.intake.statcache import StatCache, hash_files

OLD = time.time() - 3600


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URIs whose content was read."""
    seen: list[str] = []
    real = statcache.sha256_of
    monkeypatch.setattr(statcache, "sha256_of", lambda uri: (seen.append(uri), real(uri))[1])
    return seen


def _settled(monkeypatch: pytest.MonkeyPatch, offset: float = 60.0) -> None:
    """Let the clock be `offset` later than the files' change times, which cannot be set back."""
    now = time.time()
    monkeypatch.setattr(statcache.time, "time", lambda: now + offset)


def test_unchanged_files_are_not_read_again(tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(name.encode())
    _settled(monkeypatch)
    cache = StatCache()
    first = hash_files(list_tree(str(tmp_path)), cache)
    cache = StatCache.from_bytes(cache.to_bytes())
    assert hash_files(list_tree(str(tmp_path)), cache) == first
    assert len(reads) == 2
    (tmp_path / "a.wav").write_bytes(b"A.wav")  # same length
    changed = hash_files(list_tree(str(tmp_path)), cache)
    assert len(reads) == 3
    assert [changed[uri] == first[uri] for uri in sorted(first)] == [False, True]


def test_a_change_with_the_old_time_put_back_is_seen(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    os.utime(path, (OLD, OLD))
    _settled(monkeypatch)
    cache = StatCache()
    hash_files(list_tree(str(tmp_path)), cache)
    path.write_bytes(b"two")
    os.utime(path, (OLD, OLD))
    hash_files(list_tree(str(tmp_path)), cache)
    assert len(reads) == 2


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a.wav").write_bytes(b"one")
    cache = StatCache()
    hash_files(list_tree(str(tmp_path)), cache)
    hash_files(list_tree(str(tmp_path)), cache)
    assert len(reads) == 2
    assert cache.files.num_rows == 0


def test_files_that_vanish_are_errors(tmp_path: Path) -> None:
    result = hash_files([File("x", f"file://{tmp_path}/x")], StatCache())
    assert [type(value) for value in result.values()] == [FileNotFoundError]


@given(st.binary(max_size=100))
def test_damaged_cache_is_an_empty_one(data: bytes) -> None:
    assert StatCache.from_bytes(data).files.num_rows == 0


def test_equal_caches_have_equal_bytes() -> None:
    files = [File(name, name, size, "v") for size, name in enumerate("abcde")]
    one, other = StatCache(), StatCache()
    for file, again in zip(files, reversed(files), strict=True):
        one.put(file, "s", 10.0)
        other.put(again, "s", 10.0)
    assert one.to_bytes() == other.to_bytes() == StatCache.from_bytes(one.to_bytes()).to_bytes()


def test_a_file_that_changed_just_now_is_forgotten() -> None:
    cache, file = StatCache(), File("a", "a", 3, "v", modified=5.0)
    cache.put(file, "s", read_at=10.0)
    again = StatCache.from_bytes(cache.to_bytes())
    again.put(file, "s", read_at=6.0)
    assert (again.get(file), again.is_changed) == (None, True)
    assert StatCache.from_bytes(again.to_bytes()).files.num_rows == 0
