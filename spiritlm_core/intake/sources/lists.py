"""Lists without a header, a recording in every line.

``ID|TEXT``, ``ID<tab>TEXT``, ``ID:TEXT``, ``ID TEXT``, ``( ID "TEXT" )`` (Festival) or ``TEXT (ID)`` (sclite).
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import PurePosixPath

from spiritlm_core.errors import Rejection
from spiritlm_core.intake.draft import Draft, clean, decode_lines
from spiritlm_core.intake.files import File, printable
from spiritlm_core.intake.notes import note
from spiritlm_core.intake.opening import read_uri
from spiritlm_core.intake.sniff import AUDIO_SUFFIXES
from spiritlm_core.intake.sources.tree import Tree, speaker_in

SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list", ".data", ".trn")
_BY_SPEAKER = re.compile(
    r"(^transcripts|^aishell_transcript.*|^content|\.trans)\.(txt|tsv)$"
)  # MLS, AISHELL, LibriSpeech
_TEXTS_IN_NAME = re.compile(r"trans|text|content|sentence|metadata|train|valid|list")
_NO_TEXTS = re.compile(r"sp(ea)?k|gender|dur|segment|phonem|lexicon|split|handle|length")  # said of recordings, too
_NUMBER = re.compile(r"[-+\d]*\.\d+")
_DUMMY = re.compile(r"^dummy\w*/", re.IGNORECASE)
_COLON = re.compile(r"[^\s:]+:(?!//)")  # JSUT
_ENCLOSED = re.compile(
    r'\(\s*(?P<id>\S+)\s+"(?P<text>.*)"\s*\)|(?P<said>.*?)\s*\((?P<name>[^()\s]+)\)'
)  # Festival, sclite
_PINYIN = re.compile(r"(?<=[^\x00-\x7f]) +[a-z:]+[1-5]\b")  # AISHELL-3, behind every character
_READING = re.compile(r",[\u3040-\u30ff、。！？…・]+$")  # of a Japanese sentence, ITA corpus  # noqa: RUF001
_LOOKED_AT = 50
_SHARE = 0.5  # of the first lines name recordings, else it is prose
_TEXTS = 2  # as written and as spoken
_ALIKE = 0.5
Line = tuple[int, list[str], str | None]  # number, cells, and why the line cannot be used


def read(tree: Tree, encoding: str) -> Iterator[Draft]:
    """One draft per line of every file of which most of the first lines name recordings."""
    for file in sorted(tree.unused(), key=lambda file: (not _TEXTS_IN_NAME.search(file.name.lower()), file.path)):
        may_be = file.suffix in SUFFIXES and not file.error and not _NO_TEXTS.search(file.name.lower())
        if may_be and (lines := lines_of(tree, file, encoding)):
            yield from list_drafts(tree, file, lines)


def lines_of(tree: Tree, file: File, encoding: str) -> list[Line]:
    """The lines of a list, if most of the first ones name recordings of `tree`; else none."""
    lines = list_lines(file, encoding)
    return next((found for found in (lines, _without_dummy(lines)) if _is_list(tree, file, found)), [])


def _is_list(tree: Tree, file: File, lines: list[Line]) -> bool:
    first = [cells for _, cells, _ in lines[:_LOOKED_AT]]
    kind = _kind(first)
    named = sum(_fits(cells, kind) and _names_one(tree, cells[0], file) for cells in first)
    return 0 < named >= _SHARE * len(first)


def _without_dummy(lines: list[Line]) -> list[Line]:
    """The lines without the folder that VITS's lists have for "wherever they are": ``DUMMY1/LJ001-0001.wav``."""
    return [(number, [_DUMMY.sub("", cells[0]), *cells[1:]], reason) for number, cells, reason in lines]


def _fits(cells: list[str], kind: str) -> bool:
    """Whether a line has a name and texts, which a measure is not."""
    texts = _parted(cells[1:], kind)[2]
    return 1 <= len(texts) <= _TEXTS and not _NUMBER.fullmatch(texts[-1])


def list_lines(file: File, encoding: str) -> list[Line]:
    """The lines of a list that are not blank, in cells; the separator is what most of them have."""
    lines = decode_lines(read_uri(file.uri), encoding, printable(file.path))
    lines = [line for line in lines if line[1].strip()]
    texts = [text.strip() for _, text, _ in lines]
    cells = _cells(texts, next((mark for mark in "|\t" if sum(mark in text for text in texts) * 2 >= len(lines)), None))
    return [
        (number, [cell.strip() for cell in row], reason) for (number, _, reason), row in zip(lines, cells, strict=True)
    ]


def _cells(texts: Sequence[str], mark: str | None) -> list[list[str]]:
    """Name and texts of each line; without a `mark` between them most lines tell how they are written."""
    if mark is not None:
        return [[_PINYIN.sub("", cell) for cell in text.split(mark)] for text in texts]
    if sum(map(bool, map(_ENCLOSED.fullmatch, texts))) * 2 >= len(texts):
        matches = [_ENCLOSED.fullmatch(text) for text in texts]
        return [[one["id"] or one["name"], one["text"] or one["said"] or ""] if one else [""] for one in matches]
    if sum(map(bool, map(_COLON.match, texts))) * 2 >= len(texts):
        return [_READING.sub("", text).split(":", 1) for text in texts]
    return [_PINYIN.sub("", text).split(None, 1) for text in texts]


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
    if kind == "label":
        example = next(cells[2] for _, cells, _ in lines if len(cells) == 3)
        note(f"{printable(file.path)}: its last column is no text, and not used: {example!r} …")
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
    if kind == "label":
        return None, None, cells[:1]
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
    """What the cells are.

    ``PATH|SPEAKER|TEXT`` and ``PATH|SPEAKER|LANGUAGE|TEXT`` (VITS), ``ID|TEXT|LABEL`` (a voice or a feeling: ESD),
    or ``ID|TEXT|NORMALISED TEXT`` (LJSpeech).
    """
    pairs = [(cells[1], cells[2]) for cells in lines if len(cells) == 3]
    if _are_labels(pairs):
        return "label"
    paths = all(PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES for name, *_ in lines)
    second = [cells[1] for cells in lines if len(cells) > 2]
    named = second and not any(" " in cell for cell in second) and not _say_the_same(pairs)
    return "speaker" if paths and named else "texts"


def _are_labels(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the second of each pair says something about the first, rather than saying it in other words."""
    texts, others = {text for text, _ in pairs}, {other for _, other in pairs}
    bare = not any(" " in other for other in others) and any(" " in text for text in texts)
    if not bare and len(others) * 2 > len(pairs):
        return False
    return 0 < len(others) <= len(texts) and not _say_the_same(pairs)


def _say_the_same(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether at least half of the pairs share most of their letters."""
    first = [(one.lower()[:200], other.lower()[:200]) for one, other in pairs[:_LOOKED_AT]]
    return bool(first) and sum(SequenceMatcher(None, *pair).ratio() > _ALIKE for pair in first) * 2 >= len(first)
