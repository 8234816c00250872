"""Any tree of audio files. Its transcripts are found by looking: one reader for each place where they may be."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from spiritlm_core.intake.draft import Draft, draft_of
from spiritlm_core.intake.files import PACKED, File, printable
from spiritlm_core.intake.notes import note, some
from spiritlm_core.intake.rights import NOTHING, FolderRights
from spiritlm_core.intake.source import TreeSource
from spiritlm_core.intake.sources import kaldi, lists, sidecars, tables
from spiritlm_core.intake.sources.tree import Tree, kinds_of

Reader = Callable[[Tree, str], Iterator[Draft]]
"""Tree and encoding to what its transcripts say; marks the files it used."""

READERS: tuple[Reader, ...] = (
    kaldi.read,  # wav.scp, text, utt2spk, segments
    sidecars.read,  # clip.txt, .lab, .srt, .vtt, .TextGrid, .json beside clip.wav (LibriTTS, VCTK, Emilia)
    tables.read,  # a header and a row per clip (Hugging Face, Common Voice, Coqui)
    lists.read,  # a name and a text in every line (LJSpeech, VITS, MLS, AISHELL, LibriSpeech)
    sidecars.orphans,  # transcripts whose recording is missing
)
"""The first that tells something of a recording counts."""


class FolderSource(TreeSource):
    """Any tree of audio files; transcripts beside them, in tables and in lists are found by looking."""

    kind: Literal["folder"] = "folder"
    speaker_from_folder: bool = Field(False, description="The first folder below `path` names the speaker.")

    def drafts(self) -> Iterator[Draft]:
        """One draft per recording or stretch of one, and one per transcript without a recording."""
        for draft in told(self, READERS):
            head, slash, _ = draft.file.path.partition("/") if draft.file else ("", "", "")
            named = printable(head) if slash and self.speaker_from_folder else draft.speaker
            yield dataclasses.replace(draft, speaker=named)


def told(source: TreeSource, readers: Iterable[Reader]) -> Iterator[Draft]:
    """What `readers` say of the recordings of a folder, and the recordings of which none says anything."""
    tree = Tree(source.path, follow_symlinks=source.follow_symlinks)
    rights = FolderRights(tree.others)
    tree.used |= rights.used
    kept: dict[tuple[object, ...], Draft] = {}
    known: set[str] = set()
    differ: list[str] = []
    for reader in readers:
        for draft in reader(tree, source.encoding):
            place = (draft.uri if draft.file else (draft.name, draft.error), draft.start, draft.end, draft.channel)
            if first := kept.get(place):
                kept[place] = _joined(first, draft)
                differ += [draft.name] if first.text and draft.text not in (first.text, None) else []
            elif draft.uri not in known:  # else a stretch of what is told as a whole, or the reverse
                kept[place] = draft
        known = {draft.uri for draft in kept.values() if draft.file}
    bare = [draft_of(file) for file in tree.audio if file.uri not in known]
    for draft in (*kept.values(), *bare):
        around = rights.of(draft.file.folder) if draft.file else NOTHING
        yield dataclasses.replace(draft, rights=draft.rights.over(around))
    if differ:
        note(f"source {source.path}: transcripts differ, and the first one is taken, of {some(differ)}")
    _say_unused(source, tree)


def _joined(first: Draft, later: Draft) -> Draft:
    """What two transcripts say of one recording; where they differ, the first counts."""
    speaker, language = first.speaker or later.speaker, first.language or later.language
    label, rights = first.label or later.label, first.rights.over(later.rights)
    more = later if first.text is None and first.error is None else first
    return dataclasses.replace(more, speaker=speaker, language=language, label=label, rights=rights)


def _say_unused(source: TreeSource, tree: Tree) -> None:
    """Name what may be transcripts, and count what is neither that nor sound."""
    texts = [file for file in tree.unused() if _promises_text(file)]
    if texts:
        note(f"source {source.path}: not used as transcripts: {some([printable(file.path) for file in texts])}")
    named = tree.used | {file.uri for file in texts}
    if others := [file for file in tree.others if file.uri not in named]:
        note(f"source {source.path}: not audio: {kinds_of(others)}")


def _promises_text(file: File) -> bool:
    kinds = {suffix.lower() for suffix in PurePosixPath(file.name).suffixes[-2 if file.suffix in PACKED else -1 :]}
    return not kinds.isdisjoint(TRANSCRIPTS) or file.name in kaldi.NAMES


_UNREAD = (".xml", ".eaf", ".ctm", ".stm", ".mlf", ".ass", ".lrc", ".sbv", ".ttml", ".dfxp", ".wrd", ".cha")
TRANSCRIPTS = (*sidecars.FORMATS, *tables.SUFFIXES, *lists.SUFFIXES, *_UNREAD)
"""Names that promise a transcript; one that is not used is named."""
