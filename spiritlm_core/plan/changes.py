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
from spiritlm_core.plan.last_run import NOTHING, Since
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


def changes(
    plan: RunPlan, recipe: FrozenConfig, lake: Lake, snapshot: str | None = None, since: Since = NOTHING
) -> Changes:
    """Compare what a run would be made of now with what it was made of before.

    Args:
        plan: of `recipe` on `lake`.
        recipe: names the settings.
        lake: holds the results of earlier runs.
        snapshot: the fingerprint of one, or its beginning; null takes what the recipe uses now.
        since: the settings that changed since its last run; counts where `snapshot` is null.

    Raises:
        LakeError: there is no such snapshot, or there are several.
    """
    if snapshot is None:
        past = {name: last_made(lake, plan.recipe, name) for name in plan.stages}
    else:
        past, since = _made_with(lake, snapshot), NOTHING
    settings, items, told = Settings(recipe), {}, list(since.settings)
    for name, stage in plan.stages.items():
        before = past.get(name)
        if isinstance(stage, TablePlan) and lists_items(stage) and (before or snapshot is None):
            items[name] = item_changes(lake, stage, before.snapshot if before else None)
        told += identity_changes(lake, stage.call, before, settings, since.stages.get(name, {})) if before else []
    kept = [reason for reason in told if reason.cause in ("setting", "version", "model")]
    kept = kept or [reason for reason in told if reason.cause == "derived"]
    return Changes(items, tuple(dict.fromkeys(kept)), not any(past.values()))


def _made_with(lake: Lake, snapshot: str) -> dict[str, Past | None]:
    """By table the snapshot that begins so, and those that it was made from."""
    made: dict[str, Past | None] = {}
    waiting = [_snapshot_called(lake, snapshot)]
    while waiting:
        table = waiting.pop()
        made[table.table] = Past(table)
        parents = [lake.find_snapshot(name, key) for name, key in table.lineage.get("inputs", {}).items()]
        waiting += filter(None, parents)
    return made


def _snapshot_called(lake: Lake, beginning: str) -> Snapshot:
    newest = sorted(lake.store.walk("snapshots"), key=lambda entry: -entry.modified)
    paths = [path for path in (PurePosixPath(entry.path) for entry in newest) if path.suffix == ".json"]
    fits = [path for path in paths if path.stem.startswith(beginning)]
    if len(fits) != 1:
        names = ", ".join(f"{path.parent.name} {path.stem[:16]}" for path in (fits or paths)[:20])
        begin = f"several snapshots begin with {beginning!r}" if fits else f"no snapshot begins with {beginning!r}"
        raise LakeError(f"{lake.uri}: {begin}; the newest are {names}" if names else f"{lake.uri} has no snapshots")
    return lake.read_snapshot(fits[0].parent.name, fits[0].stem)
