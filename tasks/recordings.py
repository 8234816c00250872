"""Planning the first table: which recordings there are, and which shards hold them already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from spiritlm_core.errors import SourceError
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ShardJob, StageCall, TablePlan, inline_job
from spiritlm_core.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

    from spiritlm_core.intake.config import ShardingConfig
    from spiritlm_core.intake.grouping import Member
    from spiritlm_core.intake.item import Item
    from spiritlm_core.intake.statcache import StatCache

M = TypeVar("M", bound="Member")


def plan_recordings(lake: Lake, recipe: Recipe, call: StageCall, say: Callable[[str], None]) -> TablePlan:
    """One job per group of recordings; groups that a shard holds already keep its key.

    `say` is told, a line at a time, what was seen in the sources and not used, and how many have no transcript.

    Raises SourceError if a source cannot be listed or none of them holds anything.
    """
    from spiritlm_core.intake.item import items_table

    items = _list(lake, recipe, say)
    if not items:
        shown = ", ".join(getattr(source, "path", source.kind) for source in recipe.sources)
        raise SourceError(f"no recordings found in {shown}; give a folder of audio with --source PATH")
    jobs = inline_jobs(items, lake, recipe.name, call, recipe.sharding, items_table)
    lineage = {"models": call.digests, "sources": [source.model_dump(mode="json") for source in recipe.sources]}
    return TablePlan(call, jobs, lineage)


def inline_jobs(
    items: Sequence[M],
    lake: Lake,
    recipe: str,
    call: StageCall,
    sharding: ShardingConfig,
    table_of: Callable[[Sequence[M]], pa.Table],
) -> tuple[ShardJob, ...]:
    """One job per group of items, in the order of their keys; groups that a shard holds already keep its key."""
    from spiritlm_core.intake.grouping import group_items

    groups = group_items(items, kept_groups(lake, recipe, call), sharding)
    jobs = [inline_job(call.identity, [item.key for item in group], table_of(group), _about(group)) for group in groups]
    # Order by key: a set of items has none, and every run must see the same one.
    return tuple(sorted(jobs, key=lambda job: job.key))


def _about(group: Sequence[Member]) -> str:
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{group[0].source_uri}{more}"


def _list(lake: Lake, recipe: Recipe, say: Callable[[str], None]) -> list[Item]:
    """List the sources; the content hashes of files that did not change come from the lake's cache."""
    from spiritlm_core.intake.notes import notes
    from spiritlm_core.intake.recordings import collect

    said = digest([source.model_dump(mode="json") for source in recipe.sources])
    with stat_cache(lake, f"cache/sources/{said[:32]}.json") as cache, notes() as heard:
        items = collect(recipe.sources, recipe.language, cache)
    good = [item for item in items if not item.error]
    if silent := sum(item.text is None for item in good):
        heard.append(f"{silent} of {len(good)} recordings have no transcript")
    for line in heard:
        say(f"  {line}")
    return items


@contextmanager
def stat_cache(lake: Lake, path: str) -> Iterator[StatCache]:
    """The cache that the lake keeps at `path`, written back if it changed."""
    from spiritlm_core.intake.statcache import StatCache

    try:
        known = lake.store.read(path)
    except FileNotFoundError:
        known = b""
    cache = StatCache.from_bytes(known)
    yield cache
    if (now := cache.to_bytes()) != known:
        lake.store.write(path, now)


def kept_groups(lake: Lake, recipe: str, call: StageCall) -> list[frozenset[str]]:
    """The members of the shards made by the same stage: this recipe's first, else any other recipe's."""
    refs = [ref for ref in lake.refs() if ref.name == call.name and ref.identity == call.identity]
    refs.sort(key=lambda ref: (ref.recipe != recipe, ref.recipe))
    for ref in refs:
        snapshot = lake.read_snapshot(call.name, ref.target)
        return [frozenset(shard.members) for shard in snapshot.shards]
    return []
