"""The plan of a first table: which of the items that were listed share a shard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from spiritlm_core.intake.grouping import Member, group_items, items_table
from spiritlm_core.intake.listing import Listing, Say
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ShardJob, StageCall, TablePlan, inline_job


def plan_listing(listing: Listing, call: StageCall, lake: Lake, recipe: str, say: Say) -> TablePlan:
    """One job per group of items; groups that a shard holds already keep its key. Raises SourceError."""
    groups = group_items(listing.items(lake, say), _kept_groups(lake, recipe, call), listing.sharding)
    jobs = [_job(call, listing, group) for group in groups]
    # Order by key: a set of items has none, and every run must see the same one.
    jobs.sort(key=lambda job: job.key)
    return TablePlan(call, tuple(jobs), {"models": call.digests, **listing.lineage})


def _kept_groups(lake: Lake, recipe: str, call: StageCall) -> list[frozenset[str]]:
    """The members of the shards made by the same stage: this recipe's first, else any other recipe's."""
    refs = [ref for ref in lake.refs() if ref.name == call.name and ref.identity == call.identity]
    if not refs:
        return []
    ref = min(refs, key=lambda ref: (ref.recipe != recipe, ref.recipe))
    return [frozenset(shard.members) for shard in lake.read_snapshot(call.name, ref.target).shards]


def _job(call: StageCall, listing: Listing, group: Sequence[Member]) -> ShardJob:
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    rows = partial(items_table, group, listing.schema)
    return inline_job(call.identity, [item.key for item in group], rows, f"{group[0].source_uri}{more}")
