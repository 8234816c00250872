"""Texts that people wrote are read in one way, whatever wrote them; files are written whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spiritlm_core.errors import SourceError, SpiritLMError
from spiritlm_core.files import new_file, new_folder, read_text
from tests.support.limits import no_file_larger


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_read_in_the_encoding_that_its_first_bytes_tell(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "said.txt").write_text("Grüße, 世界", encoding=encoding)
    assert read_text(tmp_path / "said.txt") == "Grüße, 世界"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", r"said\.txt is not UTF-8 text \(byte 3\): save it as UTF-8"),
        ("hello".encode("utf-16-le"), r"said\.txt is no text, it holds NUL characters: save it as UTF-8"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "said.txt").write_bytes(data)
    with pytest.raises(SourceError, match=message):
        read_text(tmp_path / "said.txt")


def test_a_folder_in_the_place_of_a_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{tmp_path} cannot be read: Is a directory"):
        read_text(tmp_path)


def test_a_folder_that_was_half_written_by_a_killed_process_goes_with_the_next_one(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from spiritlm_core.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as fresh:\n"
        "    fresh.mkdir(); (fresh / 'half').write_text('x'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    (left,) = tmp_path.iterdir()
    with new_folder(tmp_path / "other") as other, new_folder(tmp_path / "out") as fresh:
        assert not left.exists()
        other.mkdir()
        with new_folder(tmp_path / "other") as second:  # at the same time, and quicker
            second.mkdir()
        fresh.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other"}


@pytest.mark.parametrize("name", ["s3://bucket/out", "hf://me/out"])
def test_an_address_is_no_folder(name: str) -> None:
    with pytest.raises(SpiritLMError, match="is an address: name a folder of this machine"), new_folder(Path(name)):
        pass


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SpiritLMError, match="out cannot be made"), new_folder(tmp_path / "file" / "out"):
        pass


def test_a_file_is_whole_or_what_it_was_and_a_disk_without_room_is_named(tmp_path: Path) -> None:
    target = tmp_path / "words.srt"
    with new_file(target) as written:
        written.write_text("one")
        assert not target.exists()
    with (
        pytest.raises(SpiritLMError, match=rf"words\.srt cannot be written: .+ MB are free in {tmp_path}\)"),
        no_file_larger(1000),
        new_file(target) as written,
    ):
        written.write_text("two" * 1000)
    with pytest.raises(FileNotFoundError), new_file(target):
        (tmp_path / "no/model").read_bytes()
    assert (target.read_text(), [path.name for path in tmp_path.iterdir()]) == ("one", ["words.srt"])
