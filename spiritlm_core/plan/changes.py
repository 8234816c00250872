"""What changed since a recipe ran last, whose settings are kept, or since a snapshot: recordings, texts, settings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import TablePlan
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.plan.graph import Graph, Node, RunPlan
from spiritlm_core.plan.reasons import (
    CONFIG,
    LISTING,
    ItemChanges,
    Made,
    Path,
    Reason,
    differences,
    identity_changes,
    item_changes,
    last_made,
)

R = TypeVar("R", bound=FrozenConfig)

APART = frozenset({"name", "description", "compute", "keep", "sharding", "sources", "texts"})
"""Parts of a recipe that change no result, and the sources: what these list is compared itself."""


@dataclass(frozen=True)
class Since:
    """What of a recipe is other than in its last run."""

    settings: tuple[Reason, ...] = ()  # that changed
    # stage → its configuration, its listing or a role → the settings that change it
    stages: Mapping[str, Mapping[str, list[Reason]]] = field(default_factory=dict)


NOTHING = Since()


def keep_settings(lake: Lake, name: str, recipe: FrozenConfig) -> None:
    """Let the lake hold the settings with which the recipe called `name` ran last."""
    lake.store.update(_path(name), json.dumps(recipe.model_dump(mode="json"), indent=1).encode())


def last_settings(lake: Lake, name: str, kind: type[R]) -> R | None:
    """Those settings; None where the lake keeps none that can be read."""
    try:
        return kind.model_validate_json(lake.store.read(_path(name)))
    except (FileNotFoundError, ValidationError):
        return None


def since_last_run(lake: Lake, name: str, recipe: R, graph_of: Callable[[R], Graph]) -> Since:
    """Compare `recipe` with that of the last run; nothing where the lake keeps none that can be read.

    A setting changes a part of a stage if that is another once the setting alone is put back.
    """
    last = last_settings(lake, name, type(recipe))
    if last is None:
        return NOTHING
    before, after = (each.model_dump(mode="json", exclude=set(APART)) for each in (last, recipe))
    now, settings = _parts(graph_of(recipe)), []
    stages: dict[str, dict[str, list[Reason]]] = defaultdict(lambda: defaultdict(list))
    for path, was, value in differences(before, after):
        settings.append(Reason("setting", ".".join(path), was, value))
        for stage, part in _changed(recipe, path, was, graph_of, now):
            stages[stage][part].append(settings[-1])
    return Since(tuple(settings), stages)


def _changed(
    recipe: R, path: Path, was: Any, graph_of: Callable[[R], Graph], now: dict[tuple[str, str], Any]
) -> list[tuple[str, str]]:
    """Stages and parts of them that are others with the setting at `path` put back; none where it cannot be alone."""
    body = recipe.model_dump(mode="json")
    *above, last = path
    section = body
    for name in above:
        section = section[name]
    section[last] = was
    try:
        then = _parts(graph_of(type(recipe).model_validate(body)))
    except (ValidationError, SpiritLMError):
        return []
    return [place for place in sorted(now.keys() | then.keys()) if now.get(place) != then.get(place)]


def _parts(graph: Graph) -> dict[tuple[str, str], Any]:
    """By stage and part what it is given."""
    parts: dict[tuple[str, str], Any] = {}
    for name, node in graph.nodes.items():
        parts[name, CONFIG], parts[name, LISTING] = config_json(node.config), node.listing
        for role, model in node.models.items():
            parts[name, role] = model.name if isinstance(model, Node) else "lineage" if callable(model) else model
    return parts


def _path(recipe: str) -> str:
    return f"outputs/{recipe}/recipe.json"


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


def changes(plan: RunPlan, lake: Lake, snapshot: str | None = None, since: Since = NOTHING) -> Changes:
    """Compare what a run would be made of now with what it was made of before.

    That is the `snapshot` whose fingerprint begins so, else what the recipe uses now; then `since`, the settings that
    changed since its last run, counts, too. Raises LakeError: there is no such snapshot, or there are several.
    """
    if snapshot is None:
        past = {name: last_made(lake, plan.recipe, name) for name in plan.stages}
    else:
        past, since = _made_with(lake, snapshot), NOTHING
    items, told = {}, list(since.settings)
    for name, stage in plan.stages.items():
        before = past.get(name)
        if isinstance(stage, TablePlan) and stage.items is not None and (before or snapshot is None):
            items[name] = item_changes(lake, stage, before if isinstance(before, Snapshot) else None)
        told += identity_changes(lake, stage.call, before, since.stages.get(name, {})) if before else []
    kept = [reason for reason in told if reason.cause in ("setting", "version", "model")]
    return Changes(items, tuple(dict.fromkeys(kept)), not any(past.values()))


def _made_with(lake: Lake, snapshot: str) -> dict[str, Made | None]:
    """By table the snapshot that begins so, and those that it was made from."""
    made: dict[str, Made | None] = {}
    waiting = [_snapshot_called(lake, snapshot)]
    while waiting:
        table = waiting.pop()
        made[table.table] = table
        parents = [lake.find_snapshot(name, key) for name, key in table.inputs.items()]
        waiting += filter(None, parents)
    return made


def _snapshot_called(lake: Lake, beginning: str) -> Snapshot:
    newest = sorted(lake.store.walk("snapshots"), key=lambda entry: -entry.modified)
    paths = list(dict.fromkeys(PurePosixPath(entry.path).with_suffix("") for entry in newest))
    fits = [path for path in paths if path.name.startswith(beginning)]
    if len(fits) != 1:
        names = ", ".join(f"{path.parent.name} {path.name[:16]}" for path in (fits or paths)[:20])
        begin = f"several snapshots begin with {beginning!r}" if fits else f"no snapshot begins with {beginning!r}"
        raise LakeError(f"{lake.uri}: {begin}; the newest are {names}" if names else f"{lake.uri} has no snapshots")
    return lake.read_snapshot(fits[0].parent.name, fits[0].name)
