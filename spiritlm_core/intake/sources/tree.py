"""A folder of recordings: which files they are, and which of them a transcript means."""

import dataclasses
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from spiritlm_core.errors import Rejection, is_machine_error
from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.files import File, composed, list_tree, printable, stat_file
from spiritlm_core.intake.notes import note, some
from spiritlm_core.intake.opening import read_head
from spiritlm_core.intake.sniff import AUDIO_SUFFIXES, HEAD, looks_like_audio
from spiritlm_core.intake.sources.columns import resolve

PROSE = re.compile(
    r"readme|licen[cs]e|copying|copyright|notice|changes|changelog|authors|todo|sha\d*sums?|md5sums?", re.IGNORECASE
)
"""Names of files that are about a corpus."""


class Tree:
    """The files below a folder.

    Attributes:
        audio: those that may hold sound.
        others: the rest; readers look for transcripts in them.
        used: URIs of the others that a reader made something of.
    """

    def __init__(self, path: str, *, follow_symlinks: bool) -> None:
        """Raises SourceError if there is no such folder, or nothing in it."""
        there = list_tree(path, follow_symlinks=follow_symlinks)
        files = [file for file in there if not _is_shadow(file)]
        if shadows := len(there) - len(files):
            note(f"source {path}: left out: {shadows} files in which macOS keeps notes on others (._NAME)")
        sound = _may_be_recordings(files)
        self.audio = [file for file, is_sound in zip(files, sound, strict=True) if is_sound]
        self.others = [file for file, is_sound in zip(files, sound, strict=True) if not is_sound]
        self.used: set[str] = set()
        self._at: dict[str, File] = {}
        self._named: dict[str, list[File]] = {}
        for file in self.audio:
            self._at.setdefault(composed(file.path), file)
            self._at.setdefault(composed(file.stem), file)
            for name in {file.name, PurePosixPath(file.name).stem}:
                self._named.setdefault(composed(name), []).append(file)

    def unused(self) -> list[File]:
        """Files that may still be transcripts, without those that are about the corpus."""
        return [file for file in self.others if file.uri not in self.used and not PROSE.match(file.name)]

    def find(self, name: str, folder: str = "") -> File | None:
        """The recording that a file in `folder` calls `name`, with or without an extension.

        The name may start in that folder or at the root, be the end of a path, or be a path whose end lies at the root
        (as of another machine). Raises Rejection: several recordings, of different names, are called so.
        """
        path = composed(posixpath.normpath(name))
        ending = PurePosixPath(path).suffix.lower() in AUDIO_SUFFIXES
        for wanted in (path, path.rpartition(".")[0]) if ending else (path,):
            beside = posixpath.normpath(posixpath.join(composed(folder), wanted))
            if exact := self._at.get(beside) or self._at.get(wanted):
                return exact
            named = self._named.get(wanted.rpartition("/")[2], [])
            alike = [one for one in named if _alike(composed(one.path), wanted) or _alike(composed(one.stem), wanted)]
            below = [file for file in alike if composed(file.path).startswith(f"{composed(folder)}/")]
            alike = below or alike  # a list describes what lies beside and below it
            if len({file.stem for file in alike}) > 1:
                few = " or ".join(printable(file.path) for file in alike[:3])
                raise Rejection(f"{printable(name)} may be {few}")
            if alike:
                return alike[0]
        return self.find(name.replace("\\", "/"), folder) if "\\" in name else None

    def placed(self, draft: Draft, table: File) -> Draft:
        """`draft` with the recording that it names in `table`, or with the reason that there is none."""
        try:
            file = draft.file or self.find(draft.name, table.folder) or _elsewhere(draft.name)
        except Rejection as problem:
            return dataclasses.replace(draft, uri=table.uri, error=draft.error or str(problem))
        if file is None:
            reason = f"recording not found; it is named in {printable(table.path)}"
            name = printable(posixpath.join(table.folder, draft.name))
            return dataclasses.replace(draft, name=name, uri=table.uri, error=draft.error or reason)
        return dataclasses.replace(draft, name=printable(file.path), uri=file.uri, file=file)


def _elsewhere(name: str) -> File | None:
    """The file of an absolute path or an address outside the folder."""
    if not name.startswith(("/", "file://", "s3://", "http://", "https://")):
        return None
    file = stat_file(resolve(name, "/"))
    return None if file.error else file


def _alike(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def speaker_in(path: str) -> str | None:
    """The folder that names the speaker in corpora whose clips are called after theirs: ``p225/p225_001.wav``."""
    *folders, name = path.split("/")
    stem = PurePosixPath(name).stem
    starts = r"((?<!\d)|(?=\D))"  # a number is one as a whole
    ends = r"(?!\d)|(?<=^[A-Z]{3}\d{4})(?=\d{4}$)"  # or one of eight digits, SSB0005 and 0001 (AISHELL-3)
    named = (folder for folder in folders if re.search(rf"{starts}{re.escape(folder)}({ends})", stem))
    return next(map(printable, named), None)


def kinds_of(files: Iterable[File]) -> str:
    """How many of each kind there are, as ``3 .jpg, 1 .pdf``."""
    counts = Counter(file.suffix or file.name for file in files)
    return some([f"{count} {printable(kind)}" for kind, count in counts.most_common()])


def _may_be_recordings(files: Sequence[File]) -> list[bool]:
    """Whether each of `files` may hold sound, and so must become a row: its content tells, not its name alone."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(_may_be_recording, files))


def _may_be_recording(file: File) -> bool:
    """A folder that cannot be entered, or a file that cannot be read, may hold sound."""
    if file.is_folder or file.suffix in AUDIO_SUFFIXES:
        return True
    if (head := _head(file)) is None:
        return file.suffix not in _TEXTS
    return bool(head) and not _is_text(head) and looks_like_audio(head, file.path)


def _is_shadow(file: File) -> bool:
    """Whether it is what macOS packs beside ``NAME`` as ``._NAME`` (AppleDouble): attributes, no content."""
    return file.name.startswith("._") and (_head(file) or b"").startswith(b"\0\5\x16\7")


def _head(file: File) -> bytes | None:
    """How a file begins; null if it cannot be read."""
    try:
        return None if file.error else read_head(file.uri, HEAD)
    except OSError as error:
        if is_machine_error(error):
            raise
        return None


_TEXTS = (".txt", ".lab", ".json", ".jsonl", ".csv", ".tsv", ".srt", ".vtt", ".textgrid", ".md", ".py")
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are readable text; the last character may be cut."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(head) or len(head) - error.start > 3:
            return False
    return head == head.translate(None, _CONTROL)
