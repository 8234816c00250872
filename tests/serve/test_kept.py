"""Files of the page: as many as there is room for, no longer than the server, each of one session."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spiritlm_core.serve.errors import RequestError
from spiritlm_core.serve.guard import Kept


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = Kept(1000)
    yield kept
    kept.close()
    assert not kept.folder.exists()


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_an_upload_belongs_to_the_session_that_uses_it_first(kept: Kept) -> None:
    path = str(kept.upload("clip.wav", b"x"))
    kept.claim(path, "one")
    kept.claim(path, "one")
    for other in (path, str(kept.add("answer.wav", b"x")), "/etc/hostname", ""):
        with pytest.raises(RequestError, match="uploaded"):
            kept.claim(other, "two")


def test_the_oldest_make_room_for_the_newest(kept: Kept) -> None:
    first, second = kept.upload("1.wav", b"x" * 400), kept.upload("2.wav", b"x" * 400)
    age(first, 60)
    third = kept.upload("3.wav", b"x" * 400)
    assert [path.exists() for path in (first, second, third)] == [False, True, True]
    with pytest.raises(RequestError, match="uploaded"):
        kept.claim(str(first), "one")
    with pytest.raises(RequestError, match="larger than all"):
        kept.add("4.wav", b"x" * 1001)


def test_what_is_old_goes(kept: Kept) -> None:
    old, new = kept.add("old.wav", b"x"), kept.add("new.wav", b"x")
    age(old, 4000)
    kept.expire()
    assert (old.parent.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("../../x.wav", "x.wav"),
        ("C:\\a\\b.wav", "b.wav"),
        ("..", "file"),
        ("", "file"),
        ("é 1\0/\n.wav", "wav"),
        ("a" * 300, "a" * 80),
    ],
)
def test_names_stay_in_the_folder(kept: Kept, name: str, want: str) -> None:
    path = kept.upload(name, b"x")
    assert path.name == want
    assert kept.holds(str(path))
    assert path.parent.parent == kept.folder


def test_links_lead_nowhere(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    link = kept.add("clip.wav", b"x").parent / "link"
    link.symlink_to(tmp_path / "secret")
    for path in (link, tmp_path / "secret", kept.folder, kept.folder / ".." / "secret"):
        assert not kept.holds(str(path))


def test_what_a_killed_server_left_goes_with_the_next_start(kept: Kept, tmp_path: Path) -> None:
    left, other = tmp_path / "spiritlm-page-left", tmp_path / "another"
    for folder in (left, other):
        folder.mkdir()
        (folder / "clip.wav").write_bytes(b"x")
        age(folder, 600)
    age(kept.folder, 600)
    Kept(1000).close()
    assert (left.exists(), other.exists(), kept.folder.exists()) == (False, True, True)
