"""A transcript in a file of its own: called like its recording, beside it or in a tree of transcripts."""

import dataclasses
import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from spiritlm_core.errors import Rejection
from spiritlm_core.intake.draft import Draft, clean, decode_text, draft_of, missing
from spiritlm_core.intake.files import File, composed, printable
from spiritlm_core.intake.opening import read_uri
from spiritlm_core.intake.rights import NOTHING
from spiritlm_core.intake.sources.columns import ALIASES, Columns, Doubled, Row, object_of, read_json
from spiritlm_core.intake.sources.textgrid import text_of_grid
from spiritlm_core.intake.sources.tree import Tree, speaker_in
from spiritlm_core.language import language_code

_TAKE = re.compile(r"_mic\d+$")  # VCTK: several microphones, one text
_BY_SPEAKER = re.compile(r"^wav48|\.normalized\.txt$")  # VCTK, LibriTTS
_LANGUAGE = re.compile(r"\.([a-z]{2}(?:[-_][A-Za-z]+)?)$")
_TIMED = re.compile(r"(?:0 \d{4,} |\d+\.\d+\t\d+\.\d+\t)(\D.*)")
_CUE = re.compile(
    r"\A\ufeff?WEBVTT.*\n(.+\n)*|(?<=\n\n)(NOTE|STYLE|REGION)\b.*\n(.+\n)*|^.+\n(?=.*-->)|^.*-->.*$"  # all but text
    r"|</?(i|b|u|s|c|v|font|lang|ruby|rt)\b[^<>\n]*>|<[\d:.]+>|\{\\[^}\n]*\}",  # marks in the text
    re.MULTILINE,
)


def read(tree: Tree, encoding: str) -> Iterator[Draft]:
    """One draft per recording that has a transcript of its own; the first of `FORMATS` counts."""
    beside = _transcripts(tree)
    away = _once_named(tree, beside)
    for file in tree.audio:
        near = beside.get(composed(file.stem)) or beside.get(composed(file.path))
        transcripts = near or away.get(_base(file.stem), {})
        drafts = (_draft(file, transcripts[ending], ending, encoding) for ending in FORMATS if ending in transcripts)
        if draft := next(filter(None, drafts), None):
            tree.used |= {transcript.uri for transcript in transcripts.values()}
            yield draft


def orphans(tree: Tree, encoding: str) -> Iterator[Draft]:
    """One draft per ``.txt`` or ``.lab`` file beside recordings that is the transcript of none."""
    del encoding
    folders, stems = {file.folder for file in tree.audio}, {file.stem for file in tree.audio}
    for file in tree.unused():
        if file.suffix in (".txt", ".lab") and file.folder in folders and file.stem not in stems:
            tree.used.add(file.uri)
            yield missing(file.path, file.uri, f"transcript {printable(file.name)} has no recording")


def _transcripts(tree: Tree) -> dict[str, dict[str, File]]:
    """Path without ending to ending to file."""
    transcripts: dict[str, dict[str, File]] = {}
    for file in (file for file in tree.others if file.uri not in tree.used):
        path = composed(file.path)
        if ending := max((ending for ending in FORMATS if path.lower().endswith(ending)), key=len, default=None):
            transcripts.setdefault(path[: -len(ending)], {}).setdefault(ending, file)
    return transcripts | _tagged(tree, transcripts)


def _tagged(tree: Tree, transcripts: dict[str, dict[str, File]]) -> dict[str, dict[str, File]]:
    """Those with a language behind the recording's name, ``clip.en.vtt``; of several languages none is taken."""
    bare = {composed(file.stem) for file in tree.audio} - transcripts.keys()
    tags = [(stem.rpartition(".")[0], stem) for stem in transcripts if _language_in(stem)]
    once = Counter(head for head, _ in tags)
    return {head: transcripts[stem] for head, stem in tags if head in bare and once[head] == 1}


def _once_named(tree: Tree, transcripts: dict[str, dict[str, File]]) -> dict[str, dict[str, File]]:
    """Base name to transcripts in folders without recordings, where one recording and one transcript are called so."""
    folders = {composed(file.folder) for file in tree.audio}
    audio = Counter(base for _, base in {(file.folder, _base(file.stem)) for file in tree.audio})
    away = [stem for stem in transcripts if stem.rpartition("/")[0] not in folders]
    texts = Counter(_base(stem) for stem in away)
    return {_base(stem): transcripts[stem] for stem in away if texts[_base(stem)] == audio[_base(stem)] == 1}


def _base(stem: str) -> str:
    return _TAKE.sub("", composed(stem).rpartition("/")[2])


def _draft(file: File, transcript: File, ending: str, encoding: str) -> Draft | None:
    """What a transcript says of a recording; null if it says nothing."""
    name = f"transcript {printable(transcript.name)}"
    if transcript.error:
        return draft_of(file, error=f"{name}: {transcript.error}")
    text, reason = decode_text(read_uri(transcript.uri), encoding, name)
    try:
        said = {} if reason else FORMATS[ending](text)
    except Rejection as problem:
        said, reason = {}, f"{name}: {problem}"
    if not reason and not said.get("text"):
        return None
    by_speaker = _BY_SPEAKER.search(file.path) or _BY_SPEAKER.search(transcript.path)
    speaker = said.get("speaker") or (speaker_in(file.path) if by_speaker else None)
    draft = draft_of(file, said.get("text"), reason, speaker)
    tag = _language_in(transcript.stem) if _base(transcript.stem) != _base(file.stem) else None
    language, rights = said.get("language") or tag, said.get("rights", NOTHING)
    return dataclasses.replace(draft, language=language, label=said.get("label"), rights=rights)


def _language_in(stem: str) -> str | None:
    """The language at the end of a name, as in ``clip.en``."""
    tag = _LANGUAGE.search(stem)
    try:
        return language_code(tag[1]) if tag else None
    except ValueError:
        return None


def _plain(text: str) -> Row:
    """The words, without the times of a line as TIMIT (in samples) and Audacity (behind tabs) write them."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    timed = [match[1] for line in lines if (match := _TIMED.fullmatch(line))]
    return {"text": clean(" ".join(timed if len(timed) == len(lines) else lines))}


def _labels(text: str) -> Row:
    """The words; of labels with times (HTK) nobody knows whether they are words."""
    return {} if re.match(r"\d+\s+\d+\s+\S", text) else {"text": clean(text)}


def _first_line(text: str) -> Row:
    """Words, above lines of other units; or the place of such a file, which says nothing itself (THCHS-30)."""
    line = clean(text.partition("\n")[0]) or ""
    return {} if line.endswith(".trn") else {"text": line}


def _cues(text: str) -> Row:
    """The words of subtitles, without times and marks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    marked = html.unescape(_CUE.sub(lambda mark: "\0" if "-->" in mark[0] else " ", text))
    cues = [[" ".join(line.split()) for line in cue.split("\n") if line.strip()] for cue in marked.split("\0")[1:]]
    return {"text": clean(" ".join(line for cue in _unrolled(cues) for line in cue))}


def _unrolled(cues: list[list[str]]) -> list[list[str]]:
    """Cues without the lines that stay from the cue before, where most of them begin so (captions that roll up)."""
    cues = [cue for cue in cues if cue]
    stays = [bool(before) and cue[0] == before[-1] for before, cue in zip([[], *cues], cues, strict=False)]
    if sum(stays) * 2 < max(2, len(cues) - 1) or max(map(len, cues), default=0) < 2:
        return cues
    return [cue[1:] if stay else cue for cue, stay in zip(cues, stays, strict=True)]


def _grid(text: str) -> Row:
    return {"text": clean(text_of_grid(text))}


def _fields(text: str) -> Row:
    """A JSON object with the columns of a manifest, or with segments of text."""
    try:
        document = read_json(text)
    except (ValueError, RecursionError) as error:
        raise Rejection(f"not JSON: {error}") from error
    document = {"segments": document} if isinstance(document, list) else document
    if not isinstance(document, dict | Doubled):
        return {}
    row = {str(name).lower(): value for name, value in object_of(document).items()}
    parts: list[Any] = next((row.pop(name) for name in ("segments", *ALIASES["text"]) if _are_rows(row.get(name))), [])
    if parts and "text" not in row:
        texts = [object_of(part).get("text") for part in parts]
        row["text"] = " ".join(text for text in texts if isinstance(text, str))
    if not any(name in row for name in ALIASES["text"]):
        return {}
    draft = Columns({}, "").draft({name: row.get(name) for name in row if name not in _NOT_HERE} | {"path": "-"})
    return {name: getattr(draft, name) for name in ("text", "speaker", "language", "label", "rights")}


def _are_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict | Doubled) for part in value)


_NOT_HERE = ("start", "offset", "end", "duration", "channel", *("audio", "file", "wav"))  # the file itself is known
FORMATS: dict[str, Callable[[str], Row]] = {
    ".normalized.txt": _plain,  # LibriTTS
    ".txt": _plain,
    ".lab": _labels,
    ".original.txt": _plain,
    ".trn": _first_line,
    ".textgrid": _grid,
    ".srt": _cues,
    ".vtt": _cues,
    ".json": _fields,  # Emilia, Whisper
}
"""Ending to what reads it; of several transcripts of a recording the first counts."""
