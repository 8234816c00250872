"""Any tree of audio files, with ``clip.txt`` or ``clip.lab`` beside a clip as its transcript."""

from __future__ import annotations

import re
from collections.abc import Iterator

from spiritlm_core.audio.config import FolderSource
from spiritlm_core.audio.files import File, is_recording, list_tree, printable, read_uri
from spiritlm_core.audio.sources.draft import Draft, decode_text, draft_of, missing

_SIDECARS = (".txt", ".lab")
_PROSE = re.compile(r"readme|licen[cs]e|copying|copyright|notice|changes|changelog|authors|todo|sha\d*sums?|md5sums?")


def drafts(source: FolderSource) -> Iterator[Draft]:
    """One draft per audio file, and one per transcript without a recording."""
    files = list_tree(source.path, follow_symlinks=source.follow_symlinks)
    audio = [file for file in files if is_recording(file)]
    sidecars = {file.stem: file for suffix in reversed(_SIDECARS) for file in files if file.suffix == suffix}
    for file in audio:
        text, error = _transcript(sidecars.get(file.stem), source)
        yield draft_of(file, text, error, _speaker(file, source))
    stems, folders = {file.stem for file in audio}, {file.folder for file in audio}
    for stem, file in sidecars.items():
        if stem not in stems and file.folder in folders and not _PROSE.match(file.name.lower()):
            yield missing(file.path, file.uri, f"transcript {printable(file.name)} has no recording")


def _transcript(sidecar: File | None, source: FolderSource) -> tuple[str | None, str | None]:
    if sidecar is None:
        return None, None
    name = printable(sidecar.name)
    if sidecar.error:
        return None, f"transcript {name}: {sidecar.error}"
    return decode_text(read_uri(sidecar.uri), source.encoding, f"transcript {name}")


def _speaker(file: File, source: FolderSource) -> str | None:
    head, slash, _ = file.path.partition("/")
    return printable(head) if slash and source.speaker_from_folder else None
