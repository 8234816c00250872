"""LJSpeech layout: ``metadata.csv`` with lines ``ID|TEXT|NORMALISED TEXT`` and ``wavs/ID.wav``."""

from __future__ import annotations

from collections.abc import Iterator

from spiritlm_core.audio.config import LJSpeechSource
from spiritlm_core.audio.files import File, is_recording, list_tree, printable, read_uri
from spiritlm_core.audio.sources.draft import Draft, decode_lines, draft_of, missing
from spiritlm_core.errors import SourceError


def drafts(source: LJSpeechSource) -> Iterator[Draft]:
    """One draft per audio file and per line of the metadata without one."""
    files = list_tree(source.path, follow_symlinks=source.follow_symlinks)
    metadata = next((file for file in files if file.path == "metadata.csv"), None)
    if metadata is None or metadata.error:
        raise SourceError(f"source ljspeech:{source.path}: {metadata.error if metadata else 'it has no metadata.csv'}")
    audio = [file for file in files if is_recording(file)]
    by_name = {name: file for file in reversed(audio) for name in _names(file)}
    told: dict[str, tuple[str | None, str | None]] = {}
    for name, text, error in _lines(metadata, source):
        if name in by_name:
            told[by_name[name].path] = (text, error)
        else:
            yield missing(name, metadata.uri, error or "recording not found; it is named in metadata.csv", text)
    for file in audio:
        yield draft_of(file, *told.get(file.path, (None, None)))


def _names(file: File) -> tuple[str, ...]:
    """What the metadata may call a file: its path or its name, with or without the extension."""
    name = file.path.rpartition("/")[2]
    return file.path, file.stem, name, name.rpartition(".")[0]


def _lines(metadata: File, source: LJSpeechSource) -> Iterator[tuple[str, str | None, str | None]]:
    """(ID, text, reason it cannot be used) of every line."""
    for _, line, error in decode_lines(read_uri(metadata.uri), source.encoding, printable(metadata.path)):
        name, *texts = line.strip().split("|")  # the format knows no quotes
        if name:
            normalized = source.normalized and len(texts) > 1 and texts[1].strip()
            yield name, normalized or "".join(texts[:1]), error
