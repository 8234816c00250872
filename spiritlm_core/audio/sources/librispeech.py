"""LibriSpeech layout: ``SPEAKER-CHAPTER.trans.txt`` with lines ``ID TEXT`` beside ``ID.flac``."""

from __future__ import annotations

from collections.abc import Iterator

from spiritlm_core.audio.config import LibriSpeechSource
from spiritlm_core.audio.files import File, is_recording, list_tree, printable, read_uri
from spiritlm_core.audio.sources.draft import Draft, decode_lines, draft_of, missing


def drafts(source: LibriSpeechSource) -> Iterator[Draft]:
    """One draft per audio file and per transcript line without one."""
    files = list_tree(source.path, follow_symlinks=source.follow_symlinks)
    audio = {file.stem: file for file in reversed(files) if is_recording(file)}
    lines = {line[0]: line for file in files if file.path.endswith(".trans.txt") for line in _lines(file, source)}
    for file in files:
        if is_recording(file):
            _, text, error, _ = lines.get(file.stem, ("", None, None, file))
            yield draft_of(file, text, error, _speaker(file.stem))
    for stem, text, error, transcripts in lines.values():
        if stem not in audio:
            reason = error or f"recording not found; it is named in {printable(transcripts.path)}"
            yield missing(stem, transcripts.uri, reason, text)


def _lines(file: File, source: LibriSpeechSource) -> Iterator[tuple[str, str | None, str | None, File]]:
    """(path without extension, text, reason it cannot be used, transcript file) of every line."""
    if file.error:
        yield file.path, None, f"transcripts {printable(file.path)}: {file.error}", file
        return
    for _, line, error in decode_lines(read_uri(file.uri), source.encoding, printable(file.path)):
        identifier, *text = line.split(maxsplit=1) or [""]
        if identifier:
            yield f"{file.folder}/{identifier}".lstrip("/"), "".join(text), error, file


def _speaker(stem: str) -> str:
    """The part of an ID in front of the first hyphen."""
    return printable(stem.rpartition("/")[2].partition("-")[0])
