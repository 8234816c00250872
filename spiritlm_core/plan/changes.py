"""What changed since a recipe was run last, or since a snapshot was made: recordings and texts, and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import TablePlan
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.plan.difference import ItemChanges, item_changes, lists_items
from spiritlm_core.plan.planner import RunPlan
from spiritlm_core.plan.reasons import Past, Reason, identity_changes, last_made
from spiritlm_core.plan.settings import Settings


@dataclass(frozen=True)
class Changes:
    """By table what was made of other items, and what else is other than before; `is_first`: nothing was there."""

    items: Mapping[str, ItemChanges]
    settings: tuple[Reason, ...]
    is_first: bool

    def to_dict(self) -> dict[str, Any]:
        """The changes as JSON values."""
        items = {table: {**asdict(changes), "counts": changes.counts()} for table, changes in self.items.items()}
        return {"first": self.is_first, "items": items, "settings": [reason.to_dict() for reason in self.settings]}


def changes(plan: RunPlan, recipe: FrozenConfig, lake: Lake, snapshot: str | None = None) -> Changes:
    """Compare what a run would be made of now with what it was made of before.

    Args:
        plan: of `recipe` on `lake`.
        recipe: names the settings.
        lake: holds the results of earlier runs.
        snapshot: the fingerprint of one, or its beginning; null takes what the recipe uses now.

    Raises:
        LakeError: there is no such snapshot, or there are several.
    """
    if snapshot is None:
        past = {name: last_made(lake, plan.recipe, name) for name in plan.stages}
    else:
        past = _made_with(lake, snapshot)
    settings, items = Settings(recipe), {}
    told: list[Reason] = []
    for name, stage in plan.stages.items():
        before = past.get(name)
        if isinstance(stage, TablePlan) and lists_items(stage) and (before or snapshot is None):
            items[name] = item_changes(lake, stage, before.snapshot if before else None)
        told += identity_changes(lake, stage.call, before, settings) if before else []
    kept = [reason for reason in told if reason.cause in ("setting", "version", "model")]
    return Changes(items, tuple(dict.fromkeys(kept)), not any(past.values()))


def _made_with(lake: Lake, snapshot: str) -> dict[str, Past | None]:
    """By table the snapshot that begins so, and those that it was made from."""
    made: dict[str, Past | None] = {}
    waiting = [_snapshot_called(lake, snapshot)]
    while waiting:
        table = waiting.pop()
        made[table.table] = Past(table)
        waiting += [lake.read_snapshot(name, key) for name, key in table.lineage.get("inputs", {}).items()]
    return made


def _snapshot_called(lake: Lake, beginning: str) -> Snapshot:
    paths = [PurePosixPath(entry.path) for entry in lake.store.walk("snapshots")]
    fits = [path for path in paths if path.suffix == ".json" and path.stem.startswith(beginning)]
    if len(fits) != 1:
        many = ", ".join(sorted(f"{path.parent.name} {path.stem[:16]}" for path in fits[:5]))
        raise LakeError(
            f"{lake.uri}: {'several snapshots begin' if fits else 'no snapshot begins'} with {beginning!r}"
            + (f": {many}" if fits else "; `spiritlm lake ls` lists them")
        )
    return lake.read_snapshot(fits[0].parent.name, fits[0].stem)
