"""Lists without a header, a recording in every line: ``ID|TEXT``, ``ID<tab>TEXT`` or ``ID TEXT``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from spiritlm_core.audio.files import File, printable, read_uri
from spiritlm_core.audio.sniff import AUDIO_SUFFIXES
from spiritlm_core.audio.sources.draft import Draft, clean, decode_lines
from spiritlm_core.audio.sources.tree import Tree, speaker_in
from spiritlm_core.errors import Rejection

SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
_BY_SPEAKER = re.compile(r"(^transcripts|^aishell_transcript.*|\.trans)\.(txt|tsv)$")  # MLS, AISHELL, LibriSpeech
_TEXTS_IN_NAME = re.compile(r"trans|text|sentence|metadata|train|valid|list")
_NO_TEXTS = re.compile(r"sp(ea)?k|gender|dur|segment|phonem|lexicon|split|handle|length")  # said of recordings, too
_NUMBER = re.compile(r"[-+\d]*\.\d+")
_LOOKED_AT = 50
_SHARE = 0.5  # of the first lines name recordings, else it is prose
_TEXTS = 2  # as written and as spoken
Line = tuple[int, list[str], str | None]
"""Number, cells, and why the line cannot be used."""


def read(tree: Tree, encoding: str) -> Iterator[Draft]:
    """One draft per line of every file of which most of the first lines name recordings."""
    for file in sorted(tree.unused(), key=lambda file: (not _TEXTS_IN_NAME.search(file.name.lower()), file.path)):
        if file.suffix in SUFFIXES and not file.error and not _NO_TEXTS.search(file.name.lower()):
            lines = list_lines(file, encoding)
            first = [cells for _, cells, _ in lines[:_LOOKED_AT]]
            kind = _kind(first)
            named = sum(_fits(cells, kind) and _names_one(tree, cells[0], file) for cells in first)
            if named and named >= _SHARE * len(first):
                yield from list_drafts(tree, file, lines)


def _fits(cells: list[str], kind: str) -> bool:
    """Whether a line has a name and texts, which a measure is not."""
    texts = _parted(cells[1:], kind)[2]
    return 1 <= len(texts) <= _TEXTS and not _NUMBER.fullmatch(texts[-1])


def list_lines(file: File, encoding: str) -> list[Line]:
    """The lines of a list that are not blank, in cells; the separator is what most of them have."""
    lines = decode_lines(read_uri(file.uri), encoding, printable(file.path))
    lines = [line for line in lines if line[1].strip()]
    mark = next((mark for mark in "|\t" if sum(mark in text for _, text, _ in lines) * 2 >= len(lines)), None)
    most = 1 if mark is None else -1
    return [(number, [cell.strip() for cell in text.split(mark, most)], reason) for number, text, reason in lines]


def list_drafts(tree: Tree, file: File, lines: list[Line], *, normalized: bool = True) -> Iterator[Draft]:
    """One draft per line.

    Args:
        tree: where the recordings are.
        file: the list; is marked as used.
        lines: what `list_lines` gives.
        normalized: take the last of two texts (numbers written out) rather than the first.
    """
    tree.used.add(file.uri)
    kind = _kind([cells for _, cells, _ in lines])
    for number, (name, *cells), reason in lines:
        speaker, language, texts = _parted(cells, kind)
        if len(texts) > _TEXTS:
            reason = reason or f"line {number} has {len(cells) + 1} fields"  # noqa: PLW2901
        text = clean((texts[-1] or texts[0]) if normalized else texts[0]) if texts else None
        draft = tree.placed(Draft(name, file.uri, None, text, speaker, language, error=reason), file)
        if draft.file and _BY_SPEAKER.search(file.name):
            draft = dataclasses.replace(draft, speaker=speaker_in(draft.file.path))
        yield draft


def _parted(cells: list[str], kind: str) -> tuple[str | None, str | None, list[str]]:
    """Speaker, language and texts of a line behind its name."""
    while len(cells) > _TEXTS and _NUMBER.fullmatch(cells[-1]):  # CSS10 ends with the duration
        cells = cells[:-1]
    if kind != "speaker" or len(cells) == 1:
        return None, None, cells
    speaker, *texts = cells
    return speaker, texts.pop(0) if len(texts) == _TEXTS else None, texts


def _names_one(tree: Tree, name: str, file: File) -> bool:
    try:
        return tree.find(name, file.folder) is not None
    except Rejection:
        return True


def _kind(lines: list[list[str]]) -> str:
    """``PATH|SPEAKER|TEXT`` and ``PATH|SPEAKER|LANGUAGE|TEXT`` (VITS), or ``ID|TEXT|NORMALISED TEXT`` (LJSpeech)."""
    paths = all(PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES for name, *_ in lines)
    second = [cells[1] for cells in lines if len(cells) > 2]
    return "speaker" if paths and second and not any(" " in cell for cell in second) else "texts"
