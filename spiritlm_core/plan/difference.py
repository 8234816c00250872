"""Which recordings, texts or rows of a data set were added, changed, removed or rejected since a table was made."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.intake.files import local_path, printable
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ShardJob, TablePlan
from spiritlm_core.lake.snapshot import Snapshot


@dataclass(frozen=True)
class ItemChanges:
    """Items by where they are, as people write it; `rejected` says why.

    Attributes:
        added: items of places that were not there before.
        changed: items that are something else than what was there before: other sound, text or speaker.
        removed: places of which nothing is left.
        lost: how many items of before are gone, those that changed not counted.
        rejected: new items that cannot be used, as far as that is known before or after computing.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    lost: int = 0
    rejected: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many items were added, changed and removed."""
        return {"added": len(self.added), "changed": len(self.changed), "removed": self.lost}


def lists_items(plan: TablePlan) -> bool:
    """Whether a table is made of items that were listed, rather than of another table."""
    return any(job.rows is not None for job in plan.jobs)


def item_changes(lake: Lake, plan: TablePlan, before: Snapshot | None) -> ItemChanges:
    """Compare the items of a first table, as they are now, with those that it was made of before; null: all are new."""
    had = {key for shard in before.shards for key in shard.members} if before else set()
    items = pa.concat_tables([job.rows() for job in plan.jobs if job.rows])
    is_old = pc.is_in(items["key"], value_set=pa.array(had, pa.string()))
    old, new = items.filter(is_old), items.filter(pc.invert(is_old))
    lost = _lost(lake, before, old) if before else {}
    added: list[str] = []
    changed: list[str] = []
    for item in new.to_pylist():
        known = lost.pop(item.get("recording_id"), None) or item["source_uri"] in lost.values()
        (changed if known else added).append(shown(item["source_uri"]))
    removed = set(lost.values()) - set(items["source_uri"].to_pylist())
    gone = len(had) - old.num_rows - len(changed)
    rejected = _rejected(lake, plan, had)
    return ItemChanges(sorted(added), sorted(changed), sorted(map(shown, removed)), max(0, gone), rejected)


def shown(uri: str) -> str:
    """A place as people write it: a path, or an address."""
    return printable(local_path(uri))


def _lost(lake: Lake, before: Snapshot, old: pa.Table) -> dict[str, str]:
    """What was there and is no more as it was: sound (or place, of texts) → where. Only shards that hold some are read.

    The same sound elsewhere, or with another text, is known again by itself, and other sound by where it is.
    """
    keys = set(old["key"].to_pylist())
    itself = "recording_id" if "recording_id" in old.column_names else "source_uri"
    still = pa.array(old[itself].to_pylist(), pa.string())
    lost: dict[str, str] = {}
    for key in [shard.key for shard in before.shards if not keys.issuperset(shard.members)]:
        rows = lake.read_shard(before.table, key, sorted({itself, "source_uri"}))
        gone = rows.filter(pc.invert(pc.is_in(rows[itself], value_set=still)))
        lost.update(zip(gone[itself].to_pylist(), gone["source_uri"].to_pylist(), strict=True))
    return lost


def _rejected(lake: Lake, plan: TablePlan, had: set[str]) -> dict[str, str]:
    """Why items that were not there before cannot be used: what listing found, and computing where that was done."""
    jobs = [job for job in plan.jobs if not had.issuperset(job.members)]
    have = lake.shard_keys(plan.name)
    reasons: dict[str, str] = {}
    for job in jobs:
        reasons |= _computed(lake, plan, job) if job.key in have else _listed(job, had)
    return dict(sorted(reasons.items()))


def _listed(job: ShardJob, had: set[str]) -> dict[str, str]:
    rows = job.rows().to_pylist() if job.rows else []
    return {shown(row["source_uri"]): row["error"] for row in rows if row["error"] and row["key"] not in had}


def _computed(lake: Lake, plan: TablePlan, job: ShardJob) -> dict[str, str]:
    rows = lake.read_shard(plan.name, job.key, ["source_uri", "reject_reason"])
    bad = rows.filter(pc.is_valid(rows["reject_reason"])).to_pylist()
    return {shown(row["source_uri"]): row["reject_reason"] for row in bad}
