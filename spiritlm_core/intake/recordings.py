"""Listing recordings: a source tells drafts, :func:`list_items` turns drafts into items, the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache as remembered
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import ShardingConfig, SourceConfig
from spiritlm_core.intake.draft import Draft, batches
from spiritlm_core.intake.item import RECORDINGS, identifiers, impossible, reject_duplicates
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
from spiritlm_core.lake.schema import Row
from spiritlm_core.language import language_code

Split = Callable[[Row], str]
"""Tells the part of the corpus, "train" or "held_out", that an item will be in."""
_BATCH = 2**14  # recordings that are objects at a time; Arrow's columns grow by doubling, so that these waste little
_TOLD = ["recording_id", "speaker", "text", "origin", "error"]  # what a `Split` and transcripts are about


@dataclass(frozen=True)
class Recordings:
    """The recordings of a recipe's sources.

    `split` is asked where synthetic speech is made of transcripts; without it, none of them may be used.
    """

    schema: ClassVar[pa.Schema] = RECORDINGS
    sources: Sequence[SourceConfig]
    language: str
    sharding: ShardingConfig
    split: Split | None = field(default=None, compare=False)  # what it draws from is a setting of the table `audio`
    rights: RightsConfig = ANY

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the recordings are."""
        return {"sources": [source.key() for source in self.sources]}

    def items(self, lake: Lake, say: Say) -> pa.Table:
        """`say` is told what was seen and not used, and how many have no transcript. Raises SourceError."""
        cached = f"cache/sources/{digest(self.lineage['sources'])[:32]}.parquet"
        with stat_cache(lake, cached) as cache, notes() as heard:
            items = collect(self.sources, self.language, cache, self.split, Admitted(forgotten(lake), self.rights))
        if not items:
            shown = ", ".join(getattr(source, "path", source.kind) for source in self.sources)
            seen = "".join(f" ({line})" for line in heard)
            raise SourceError(f"no recordings found in {shown}{seen}; give a folder of audio with --source PATH")
        good = items["error"].null_count
        if silent := pc.sum(pc.and_(pc.is_null(items["error"]), pc.is_null(items["text"]))).as_py():
            heard.append(f"{silent} of {good} recordings have no transcript")
        if self.split and good and all(self.split(row) == "train" for row in _good(items)):
            heard.append(f"none of {good} recordings is held out, so nothing is judged: see audio.held_out_share")
        for line in heard:
            say(f"  {line}")
        return items

    def costs(self, items: pa.Table) -> pa.ChunkedArray:
        """Bytes of audio to work through: of the file, or of its 16 kHz stretch when that is less."""
        stretch = pc.multiply(pc.subtract(items["end"], items["start"]), 32_000.0)
        return pc.cast(pc.min_element_wise(pc.cast(items["size"], pa.float64()), stretch), pa.int64(), safe=False)


@dataclass(frozen=True)
class Admitted:
    """Which recordings come in: not those that are `gone`, of which no row says that they were there."""

    gone: Forgotten = NOBODY
    rights: RightsConfig = ANY

    def left(self, items: pa.Table) -> pa.Table:
        """`items` without forgotten ones."""
        if not self.gone.tombstones:
            return items
        told = (items[name].to_pylist() for name in ("sha256", "recording_id", "speaker"))
        left = items.filter(pa.array([not self.gone.covers(*one) for one in zip(*told, strict=True)], pa.bool_()))
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
) -> pa.Table:
    """Everything one source holds, good or bad, as rows of `RECORDINGS` in any order.

    Args:
        source: where to look.
        language: of recordings for which neither the source nor its files say one.
        cache: knows the content of files that did not change; is updated.
        drafts: what the source says; null asks it.
        admitted: which recordings come in.

    Raises:
        SourceError: the source cannot be listed at all.
    """
    describe = _Describe(source, language, admitted.rights)
    found = _with_content(source.drafts() if drafts is None else drafts, cache)
    rows = (describe(draft, content) for draft, content in found)
    tables = [pa.table(list(zip(*batch, strict=True)), RECORDINGS) for batch in batches(rows, _BATCH)]
    return reject_duplicates(admitted.left(pa.concat_tables([RECORDINGS.empty_table(), *tables])))


def collect(
    sources: Sequence[Source], language: str, cache: StatCache, split: Split | None = None, admitted: Admitted = ALL
) -> pa.Table:
    """The items of several sources, each recording kept once. Synthetic speech comes last, as it may repeat others."""
    spoken = [source for source in sources if isinstance(source, SpeakSource)]
    others = [source for source in sources if source not in spoken]
    items = [list_items(source, language, cache, None, admitted) for source in others]
    told = _told(items, language, split) if any(source.needs_transcripts for source in spoken) else Told(language)
    items += [list_items(source, language, cache, source.drafts(told), admitted) for source in spoken]
    return items[0] if len(items) == 1 else reject_duplicates(pa.concat_tables(items))


def _told(items: Sequence[pa.Table], language: str, split: Split | None) -> Told:
    """What people say in recordings that can be used, by the part of the corpus that these are in."""
    texts: dict[str, list[str]] = {"train": [], "held_out": []}
    for row in (row for table in items for row in _good(table)):
        if row["text"] and row["origin"] == "recorded":
            texts[split(row) if split else "held_out"].append(str(row["text"]))
    return Told(language, tuple(sorted(texts["train"])), tuple(sorted(texts["held_out"])))


def _good(items: pa.Table) -> Iterator[Row]:
    """What is told of the items that can be used."""
    for batch in items.select(_TOLD).to_batches(_BATCH):
        yield from (row for row in batch.to_pylist() if row["error"] is None)


Content = str | Exception | None  # sha256, or why there is none


def _with_content(drafts: Iterable[Draft], cache: StatCache) -> Iterator[tuple[Draft, Content]]:
    """Each draft with what the cache knows; files that it does not know are read when all are listed."""
    unread = []
    for batch in batches(drafts, _BATCH):
        files = [draft.file if draft.problem is None else None for draft in batch]
        known = iter(cache.lookup([file for file in files if file]))
        for draft, file in zip(batch, files, strict=True):
            content = next(known) or file.sha256 if file else None
            if file and content is None:
                unread.append(draft)
            else:
                yield draft, content
    hashes = hash_files([draft.file for draft in unread if draft.file], cache)
    yield from ((draft, hashes[draft.file.uri]) for draft in unread if draft.file)


class _Describe:
    """Makes the row of a draft: adds what the source says of all its recordings, and the content's hash."""

    def __init__(self, source: Source, language: str, rights: RightsConfig) -> None:
        self.source, self.language, of_source = source, language, Rights.of(vars(source))
        self._rights = remembered(lambda said: said.over(of_source))
        self._problem = remembered(rights.problem)

    def __call__(self, draft: Draft, content: Content) -> tuple[Any, ...]:
        source, error, sha256 = self.source, draft.problem, content
        if isinstance(sha256, Exception):
            sha256, error = None, f"cannot be read: {getattr(sha256, 'strerror', None) or sha256}"
        spoken, problem = _spoken(draft.language or source.language or self.language)
        rights: Rights = self._rights(draft.rights)
        error = error or problem or self._problem(rights)
        stretch = (draft.start, draft.end, source.channel if draft.channel is None else draft.channel)
        if reason := impossible(*stretch):
            stretch, error = (None, None, None), error or reason
        facts = (draft.speaker or source.speaker, spoken, draft.text, draft.label, source.origin)
        key, recording_id = identifiers(draft.name, error, sha256, stretch, facts)
        size, told = draft.file.size if draft.file else 0, vars(rights)
        return (key, recording_id, draft.name, draft.uri, size, sha256, *stretch, *facts, told, error)


@remembered
def _spoken(language: str) -> tuple[str, str | None]:
    """The code of a language; itself, and why that is none."""
    try:
        return language_code(language), None
    except ValueError as problem:
        return language, f"language: {problem}"
