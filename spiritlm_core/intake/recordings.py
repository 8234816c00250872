"""Listing recordings: a source tells drafts, :func:`list_items` turns drafts into items."""

from __future__ import annotations

from collections.abc import Sequence

from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.item import Item, make_item, reject_duplicates
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.statcache import StatCache, hash_files
from spiritlm_core.language import language_code


def list_items(source: Source, language: str, cache: StatCache) -> list[Item]:
    """Everything one source holds, good or bad, in an order that does not depend on how its folders are listed.

    Args:
        source: where to look.
        language: of recordings for which neither the source nor its files say one.
        cache: knows the content of files that did not change; is updated.

    Raises:
        SourceError: the source cannot be listed at all.
    """
    drafts = list(source.drafts())
    hashes = hash_files([draft.file for draft in drafts if draft.file and not draft.problem], cache)
    return reject_duplicates(_item(draft, source, language, hashes) for draft in drafts)


def collect(sources: Sequence[Source], language: str, cache: StatCache) -> list[Item]:
    """The items of several sources, each recording kept once."""
    return reject_duplicates(item for source in sources for item in list_items(source, language, cache))


def _item(draft: Draft, source: Source, language: str, hashes: dict[str, str | Exception]) -> Item:
    """Add what the source says of all its recordings, and the content's hash."""
    found = hashes.get(draft.file.uri) if draft.file and not draft.problem else None
    error = draft.problem
    if isinstance(found, Exception):
        found, error = None, f"cannot be read: {getattr(found, 'strerror', None) or found}"
    spoken = draft.language or source.language or language
    try:
        spoken = language_code(spoken)
    except ValueError as problem:
        error = error or f"language: {problem}"
    return make_item(
        name=draft.name,
        source_uri=draft.uri,
        language=spoken,
        sha256=found,
        size=draft.file.size if draft.file else 0,
        start=draft.start,
        end=draft.end,
        channel=source.channel if draft.channel is None else draft.channel,
        speaker=draft.speaker or source.speaker,
        text=draft.text,
        error=error,
    )
