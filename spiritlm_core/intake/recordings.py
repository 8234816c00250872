"""Listing recordings: a source tells drafts, :func:`list_items` turns drafts into items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import ShardingConfig, SourceConfig
from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.item import RECORDINGS, Item, identified, reject_duplicates
from spiritlm_core.intake.listing import Say
from spiritlm_core.intake.notes import note, notes
from spiritlm_core.intake.rights import ANY, Rights, RightsConfig
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.intake.speak.transcripts import Told
from spiritlm_core.intake.statcache import StatCache, hash_files, stat_cache
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.forgotten import NOBODY, Forgotten, forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.language import language_code

Split = Callable[[Item], str]
"""Tells the part of the corpus, "train" or "held_out", that an item will be in."""


@dataclass(frozen=True)
class Recordings:
    """The recordings of a recipe's sources.

    `split` is asked where synthetic speech is made of transcripts; without it, none of them may be used.
    """

    schema: ClassVar[pa.Schema] = RECORDINGS
    sources: Sequence[SourceConfig]
    language: str
    sharding: ShardingConfig
    split: Split | None = None
    rights: RightsConfig = ANY

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the recordings are."""
        return {"sources": [source.key() for source in self.sources]}

    def items(self, lake: Lake, say: Say) -> list[Item]:
        """`say` is told what was seen and not used, and how many have no transcript. Raises SourceError."""
        cached = f"cache/sources/{digest(self.lineage['sources'])[:32]}.json"
        with stat_cache(lake, cached) as cache, notes() as heard:
            items = collect(self.sources, self.language, cache, self.split, Admitted(forgotten(lake), self.rights))
        if not items:
            shown = ", ".join(getattr(source, "path", source.kind) for source in self.sources)
            raise SourceError(f"no recordings found in {shown}; give a folder of audio with --source PATH")
        good = [item for item in items if not item.error]
        if silent := sum(item.text is None for item in good):
            heard.append(f"{silent} of {len(good)} recordings have no transcript")
        if self.split and good and all(self.split(item) == "train" for item in good):
            heard.append(f"none of {len(good)} recordings is held out, so nothing is judged: see audio.held_out_share")
        for line in heard:
            say(f"  {line}")
        return items


@dataclass(frozen=True)
class Admitted:
    """Which recordings come in: not those that are `gone`, of which no row says that they were there."""

    gone: Forgotten = NOBODY
    rights: RightsConfig = ANY

    def left(self, items: Sequence[Item]) -> list[Item]:
        """`items` without forgotten ones."""
        left = [item for item in items if not self.gone.covers(item.sha256, item.recording_id, item.speaker)]
        if len(left) < len(items):
            note(f"{len(items) - len(left)} recordings are forgotten, and were left out")
        return left


ALL = Admitted()


def list_items(
    source: Source,
    language: str,
    cache: StatCache,
    drafts: Iterable[Draft] | None = None,
    admitted: Admitted = ALL,
) -> list[Item]:
    """Everything one source holds, good or bad, in an order that does not depend on how its folders are listed.

    Args:
        source: where to look.
        language: of recordings for which neither the source nor its files say one.
        cache: knows the content of files that did not change; is updated.
        drafts: what the source says; null asks it.
        admitted: which recordings come in.

    Raises:
        SourceError: the source cannot be listed at all.
    """
    drafts = list(source.drafts() if drafts is None else drafts)
    hashes = hash_files([draft.file for draft in drafts if draft.file and not draft.problem], cache)
    return reject_duplicates(admitted.left([_item(draft, source, language, hashes, admitted) for draft in drafts]))


def collect(
    sources: Sequence[Source], language: str, cache: StatCache, split: Split | None = None, admitted: Admitted = ALL
) -> list[Item]:
    """The items of several sources, each recording kept once. Synthetic speech comes last, as it may repeat others."""
    spoken = [source for source in sources if isinstance(source, SpeakSource)]
    others = [source for source in sources if source not in spoken]
    items = [item for source in others for item in list_items(source, language, cache, None, admitted)]
    told = _told(items, language, split) if any(source.needs_transcripts for source in spoken) else Told(language)
    for source in spoken:
        items += list_items(source, language, cache, source.drafts(told), admitted)
    return reject_duplicates(items)


def _told(items: Sequence[Item], language: str, split: Split | None) -> Told:
    """What people say in recordings that can be used, by the part of the corpus that these are in."""
    good = [item for item in items if item.text and not item.error and item.origin == "recorded"]
    texts: dict[str, list[str]] = {"train": [], "held_out": []}
    for item in good:
        texts[split(item) if split else "held_out"].append(str(item.text))
    return Told(language, tuple(sorted(texts["train"])), tuple(sorted(texts["held_out"])))


def _item(draft: Draft, source: Source, language: str, hashes: dict[str, str | Exception], admitted: Admitted) -> Item:
    """Add what the source says of all its recordings, and the content's hash."""
    sha256 = hashes.get(draft.file.uri) if draft.file and not draft.problem else None
    error = draft.problem
    if isinstance(sha256, Exception):
        sha256, error = None, f"cannot be read: {getattr(sha256, 'strerror', None) or sha256}"
    spoken = draft.language or source.language or language
    try:
        spoken = language_code(spoken)
    except ValueError as problem:
        error = error or f"language: {problem}"
    rights = draft.rights.over(Rights.of(vars(source)))
    item = Item(
        name=draft.name,
        source_uri=draft.uri,
        language=spoken,
        sha256=sha256,
        size=draft.file.size if draft.file else 0,
        start=draft.start,
        end=draft.end,
        channel=source.channel if draft.channel is None else draft.channel,
        speaker=draft.speaker or source.speaker,
        text=draft.text,
        label=draft.label,
        origin=source.origin,
        rights=rights,
        error=error or admitted.rights.problem(rights),
    )
    return identified(item)
