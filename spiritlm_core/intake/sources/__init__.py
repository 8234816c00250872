"""Sources of recordings: each module turns one layout into drafts, :func:`list_items` turns drafts into items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from spiritlm_core.audio.config import SourceConfig
from spiritlm_core.intake.item import Item, make_item, reject_duplicates
from spiritlm_core.intake.sources.draft import Draft
from spiritlm_core.intake.statcache import StatCache, hash_files
from spiritlm_core.language import language_code


def list_items(source: SourceConfig, language: str, cache: StatCache) -> list[Item]:
    """Everything one source holds, good or bad, in an order that does not depend on how its folders are listed.

    Args:
        source: where to look.
        language: of recordings for which neither the source nor its files say one.
        cache: knows the content of files that did not change; is updated.

    Raises:
        SourceError: the source cannot be listed at all.
    """
    drafts = list(_reader(source.kind)(source))
    hashes = hash_files([draft.file for draft in drafts if draft.file and not draft.problem], cache)
    return reject_duplicates(_item(draft, source, language, hashes) for draft in drafts)


def collect(sources: Sequence[SourceConfig], language: str, cache: StatCache) -> list[Item]:
    """The items of several sources, each recording kept once."""
    return reject_duplicates(item for source in sources for item in list_items(source, language, cache))


def _reader(kind: str) -> Callable[..., Iterable[Draft]]:
    # imported on demand: lhotse alone takes seconds
    from importlib import import_module

    return import_module(f"spiritlm_core.intake.sources.{kind}").drafts  # type: ignore[no-any-return]


def _item(draft: Draft, source: SourceConfig, language: str, hashes: dict[str, str | Exception]) -> Item:
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
