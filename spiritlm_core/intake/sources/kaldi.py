"""Kaldi's data folders: ``wav.scp`` names the recordings, ``text``, ``utt2spk`` and ``segments`` say the rest."""

import dataclasses
import re
from collections.abc import Iterator

from spiritlm_core.errors import Rejection
from spiritlm_core.intake.draft import Draft, clean, decode_lines
from spiritlm_core.intake.files import File, printable
from spiritlm_core.intake.opening import read_uri
from spiritlm_core.intake.sources.columns import number_of, window
from spiritlm_core.intake.sources.tree import Tree

NAMES = ("wav.scp", "text", "utt2spk", "utt2lang", "segments")
_OTHERS = ("spk2utt", "spk2gender", "utt2dur", "reco2dur", "utt2num_frames", "frame_shift", "feats.scp", "cmvn.scp")
_SPECIFIER = re.compile(r":\d+(\[[^]]*\])?$")
Table = dict[str, tuple[str, str | None]]  # identifier to the rest of its line, and why the line cannot be used


def read(tree: Tree, encoding: str) -> Iterator[Draft]:
    """One draft per utterance of every folder with a ``wav.scp``."""
    files = {file.path: file for file in tree.others if not file.error}
    for scp in [file for file in files.values() if file.name == "wav.scp"]:
        there = {name: files.get(f"{scp.folder}/{name}".lstrip("/")) for name in (*NAMES, *_OTHERS)}
        tree.used |= {file.uri for file in there.values() if file}
        tables = {name: _table(file, encoding) for name, file in there.items() if name in NAMES}
        utterances = tables["segments"] or {name: (name, None) for name in tables["wav.scp"]}
        for name, (place, error) in utterances.items():
            yield _draft(tree, scp, tables, name, place, error)
        for name in tables["text"].keys() - utterances.keys():
            yield Draft(
                printable(name), scp.uri, text=clean(tables["text"][name][0]), error=f"{name} is not in wav.scp"
            )


def _table(file: File | None, encoding: str) -> Table:
    if file is None:
        return {}
    table: Table = {}
    for _, line, reason in decode_lines(read_uri(file.uri), encoding, printable(file.path)):
        name, *rest = line.split(None, 1) or [""]
        if name:
            rest_of = "".join(rest)
            twice = name in table and table[name][0] != rest_of
            table[name] = (rest_of, f"{printable(file.path)} names {printable(name)} twice" if twice else reason)
    return table


def _draft(tree: Tree, scp: File, tables: dict[str, Table], name: str, place: str, error: str | None) -> Draft:
    """An utterance; `place` is ``RECORDING START END`` where there are segments, else the recording."""
    text, bad_text = tables["text"].get(name, ("", None))
    speaker, language = (tables[which].get(name, ("", None))[0].strip() or None for which in ("utt2spk", "utt2lang"))
    draft = Draft(name, scp.uri, None, clean(text), speaker, language, error=error or bad_text)
    try:
        recording, start, end = _stretch(place, whole=not tables["segments"])
        path, bad = tables["wav.scp"].get(recording, ("", f"recording {recording} is not in wav.scp"))
        draft = dataclasses.replace(draft, start=start, end=end, error=draft.error or bad)
        placed = dataclasses.replace(draft, name=_file_of(path)) if not draft.error else draft
        return placed if placed.error else tree.placed(placed, scp)
    except Rejection as problem:
        return dataclasses.replace(draft, error=str(problem))


def _stretch(place: str, *, whole: bool) -> tuple[str, float | None, float | None]:
    """Recording, and where the utterance begins and ends in seconds."""
    if whole:
        return place, None, None
    try:
        recording, start_at, end_at, *_ = place.split()
    except ValueError:
        raise Rejection(f"segments: {place!r} is not RECORDING START END") from None
    start = number_of(start_at, "start")
    if end_at.startswith("-"):  # Kaldi's way to say: to the end
        return recording, start, None
    return recording, *window(start, number_of(end_at, "end"), None)


def _file_of(path: str) -> str:
    """The file that a line of ``wav.scp`` names. Raises Rejection if it is a command or a place in an archive."""
    path = path.strip()
    if path.endswith("|") or path.startswith("|"):
        raise Rejection(f"wav.scp holds a command, which is not run: write its output to a file ({path[:100]})")
    if _SPECIFIER.search(path) or path in ("", "-"):
        raise Rejection(f"wav.scp names a place in an archive, not a file: {path[:100]!r}")
    return path
