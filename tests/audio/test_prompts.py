"""The prompt packages: unpacking is real (dpkg), the mirror is a folder of packages built here."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.errors import SourceError
from spiritlm_core.files import cache_folder
from spiritlm_core.intake import debian
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.sources.prompts import PromptsSource
from spiritlm_core.intake.statcache import StatCache
from tests.audio.files import libav_bytes
from tests.audio.synthetic import voice
from tests.support.items import list_items

needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb builds the test's packages")

TEXTS = """\ufeff; a comment: not a prompt
hello: Hello: world.
digits/1: one [1]
beep: [a tone]
ghost: Nobody recorded this.
"""


def _package(folder: Path, name: str, files: dict[str, bytes]) -> None:
    tree = folder / f"{name}.tree"
    for path, data in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    (tree / "DEBIAN").mkdir()
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: t\n"
    (tree / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", tree, folder / f"{name}_1_all.deb"], check=True, capture_output=True)
    shutil.rmtree(tree)


def _tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder whose programs come first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def mirror(tmp_path: Path, bin_folder: Path) -> Path:
    """An apt-get that has no lists until `update` was called, then copies packages from a folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    voice_folder = "usr/share/asterisk/sounds/en_US_f_Allison"
    sounds = {"hello": 0, "digits/1": 2, "beep": 3, "untold": 5}
    files = {f"{voice_folder}/{n}.g722": libav_bytes(voice(1.0, s), "g722", "g722") for n, s in sounds.items()}
    _package(folder, "asterisk-core-sounds-en-g722", files)
    texts = {"usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz": gzip.compress(TEXTS.encode())}
    _package(folder, "asterisk-core-sounds-en", texts)
    script = f"""
echo "$@" >> {tmp_path}/calls
case "$*" in
  *update*) touch {tmp_path}/updated ;;
  *download*)
    test -e {tmp_path}/updated || {{ echo "E: Unable to locate package" >&2; exit 100; }}
    cp {folder}/*.deb . ;;
esac"""
    _tool(bin_folder, "apt-get", script)
    return folder


@needs_dpkg
def test_prompts_are_fetched_once_and_listed(mirror: Path, tmp_path: Path) -> None:
    items = {item.name: item for item in list_items(PromptsSource(prompts="en"), "xx", StatCache())}
    assert {name: item.text for name, item in items.items()} == {
        "hello": "Hello: world.",
        "digits/1": "one",
        "beep": None,
        "untold": None,
        "ghost": "Nobody recorded this.",
    }
    assert {name: item.error for name, item in items.items() if item.error} == {
        "beep": "no speech, says its transcript: [a tone]",
        "ghost": "recording not found; it has a transcript",
    }
    assert {items["hello"].label, items["digits/1"].label} == {"phrases", "digits"}
    assert items["hello"].source_uri == "prompts://en/hello"
    assert (items["hello"].speaker, items["hello"].language) == ("Allison", "en")
    calls = (tmp_path / "calls").read_text()
    assert calls.count("download") == 2  # without lists, and after the update of private ones
    assert "Dir::State::Lists" in calls.splitlines()[-1]
    list_items(PromptsSource(prompts="en"), "xx", StatCache())
    assert (tmp_path / "calls").read_text() == calls
    assert [path.name for path in cache_folder().glob("prompts/.*")] == []


@needs_dpkg
def test_another_machine_fetches_what_it_works_on(mirror: Path) -> None:
    items = list_items(PromptsSource(prompts="en"), "xx", StatCache())
    shutil.rmtree(cache_folder())
    rows = AudioStage(AudioConfig(), {}).process(items_table(items, RECORDINGS)).to_pylist()
    assert sorted(row["text"] for row in rows if row["audio"] and row["text"]) == ["Hello: world.", "one"]


@needs_dpkg
def test_concurrent_fetches_all_end_well(mirror: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        folders = list(pool.map(lambda _: debian.fetch("en"), range(6)))
    assert len(set(folders)) == 1
    assert len(list(folders[0].rglob("*.g722"))) == 4


def test_without_apt_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"prompts:fr.*apt-get is not on this machine.*or unpack.*prompts/fr"):
        debian.fetch("fr")


def test_without_a_mirror_the_message_says_what_to_do(bin_folder: Path) -> None:
    _tool(bin_folder, "apt-get", 'echo "E: Could not resolve host" >&2; exit 100')
    _tool(bin_folder, "dpkg", "exit 1")
    with pytest.raises(SourceError, match=r"could not download.*mirror.*Could not resolve host"):
        debian.fetch("ru")


def test_a_damaged_package_is_named(bin_folder: Path) -> None:
    _tool(bin_folder, "apt-get", "echo broken > a.deb; echo broken > b.deb")
    _tool(bin_folder, "dpkg", 'echo "not a Debian archive" >&2; exit 2')
    with pytest.raises(SourceError, match=r"a\.deb.*not a Debian archive"):
        debian.fetch("it")


@pytest.mark.integration
def test_the_real_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        items = list_items(PromptsSource(prompts="en"), "en", StatCache())
    except SourceError as error:
        pytest.skip(str(error))
    assert sum(1 for item in items if not item.error) > 500
