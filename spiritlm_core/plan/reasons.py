"""Why a stage has something to compute: which items, and what else of it, are others than before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.config import FrozenConfig
from spiritlm_core.intake.files import local_path, printable
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ModelSource, Plan, ShardJob, StageCall, TablePlan
from spiritlm_core.lake.snapshot import ShardEntry, Snapshot, strings


@dataclass(frozen=True)
class ItemChanges:
    """Items by where they are, as people write it; `rejected` says why."""

    added: list[str] = field(default_factory=list)  # items of places that were not there before
    # items that are something else than what was there before: other sound, text or speaker
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)  # places of which nothing is left
    lost: int = 0  # how many items of before are gone, those that changed not counted
    # new items that cannot be used, as far as that is known before or after computing
    rejected: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many items were added, changed and removed."""
        return {"added": len(self.added), "changed": len(self.changed), "removed": self.lost}


def item_changes(lake: Lake, plan: TablePlan, before: Snapshot | None) -> ItemChanges:
    """Compare the items of a first table, as they are now, with those that it was made of before; null: all are new."""
    assert plan.items is not None  # noqa: S101 - who asks has seen that it lists items
    had = _members(before.shards if before else ())
    is_old = pc.is_in(plan.items["key"], value_set=had)
    old, new = plan.items.filter(is_old), plan.items.filter(pc.invert(is_old))
    lost = _lost(lake, before, old) if before else {}
    added: list[str] = []
    changed: list[str] = []
    for item in new.to_pylist():
        known = lost.pop(item.get("recording_id"), None) or item["source_uri"] in lost.values()
        (changed if known else added).append(shown(item["source_uri"]))
    gone_from = strings(lost.values())
    removed = set(gone_from.filter(pc.invert(pc.is_in(gone_from, value_set=plan.items["source_uri"]))).to_pylist())
    gone = len(had) - old.num_rows - len(changed)
    rejected = _rejected(lake, plan, new, had)
    return ItemChanges(sorted(added), sorted(changed), sorted(map(shown, removed)), max(0, gone), rejected)


def shown(uri: str) -> str:
    """A place as people write it: a path, or an address."""
    return printable(local_path(uri))


def _lost(lake: Lake, before: Snapshot, old: pa.Table) -> dict[str, str]:
    """What was there and is no more as it was: sound (or place, of texts) → where. Only shards that hold some are read.

    The same sound elsewhere, or with another text, is known again by itself, and other sound by where it is.
    """
    itself = "recording_id" if "recording_id" in old.column_names else "source_uri"
    lost: dict[str, str] = {}
    for shard in _with_others(before.shards, old["key"]):
        rows = lake.read_shard(before.table, shard.key, sorted({itself, "source_uri"}))
        gone = rows.filter(pc.invert(pc.is_in(rows[itself], value_set=old[itself])))
        lost.update(zip(gone[itself].to_pylist(), gone["source_uri"].to_pylist(), strict=True))
    return lost


def _members(holders: Sequence[ShardEntry | ShardJob]) -> pa.ChunkedArray:
    return pa.chunked_array([holder.members for holder in holders], pa.string())


H = TypeVar("H", ShardEntry, ShardJob)


def _with_others(holders: Sequence[H], known: pa.ChunkedArray) -> list[H]:
    """Those of which a member is none of the `known` ones."""
    other = pc.invert(pc.is_in(_members(holders), value_set=known)).to_numpy()
    holder = np.repeat(np.arange(len(holders)), [len(one.members) for one in holders])
    return [holders[number] for number in np.unique(holder[other])]


def _rejected(lake: Lake, plan: TablePlan, new: pa.Table, had: pa.ChunkedArray) -> dict[str, str]:
    """Why `new` items cannot be used: what listing found, and computing where that was done."""
    have = lake.shard_keys(plan.name)
    jobs = _with_others(plan.jobs, had)
    missing = _members([job for job in jobs if job.key not in have])
    listed = new.filter(pc.and_(pc.is_valid(new["error"]), pc.is_in(new["key"], value_set=missing))).to_pylist()
    reasons = {shown(row["source_uri"]): row["error"] for row in listed}
    for job in jobs:
        reasons |= _computed(lake, plan, job) if job.key in have else {}
    return dict(sorted(reasons.items()))


def _computed(lake: Lake, plan: TablePlan, job: ShardJob) -> dict[str, str]:
    rows = lake.read_shard(plan.name, job.key, ["source_uri", "reject_reason"])
    bad = rows.filter(pc.is_valid(rows["reject_reason"])).to_pylist()
    return {shown(row["source_uri"]): row["reject_reason"] for row in bad}


Cause = Literal[
    "first run", "version", "setting", "model", "upstream", "lineage", "added", "changed", "removed", "lost"
]
"""``lost``: what was made is gone from the lake, or was never finished."""


Path = tuple[str, ...]
CONFIG, LISTING = "its configuration", "its listing"  # parts of what a stage is given, besides the roles of its models


@dataclass(frozen=True)
class Reason:
    """One cause. `name` is a setting, a role of a model, a stage, or what kind of items was listed."""

    cause: Cause
    name: str = ""
    before: Any = None
    after: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The reason as JSON values, with the words for people under ``text``."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        counted = f"{self.after} {self.name if self.after != 1 else self.name.removesuffix('s')}"
        if self.cause == "first run":
            return f"first run: {counted}" if self.after else "first run"
        if self.cause == "version":
            return f"stage version {self.before} → {self.after}"
        if self.cause == "setting":
            return f"`{self.name}` {_short(self.before)} → {_short(self.after)}"
        if self.cause in ("added", "changed", "removed"):
            return f"{counted} {self.cause}"
        if self.cause in ("model", "upstream"):
            return f"{self.cause} `{self.name}`"
        return "its lineage" if self.cause == "lineage" else "what was made of it is no more in the lake"


Made = Snapshot | Artifact


def _how(lake: Lake, made: Made) -> tuple[int, Any, Mapping[str, str]] | None:
    """Version, configuration and models of the stage that made it; null where all shards of a table are gone."""
    if isinstance(made, Artifact):
        return made.stage_version, made.config, made.models
    there = next((key for key in made.keys if lake.has_shard(made.table, key)), None)
    if there is None:
        return None
    footer = lake.read_footer(made.table, there)
    return footer.stage_version, footer.config, footer.models


def last_made(lake: Lake, recipe: str, name: str) -> Made | None:
    """What `recipe` used last under `name`; null if it never did, or if that is gone."""
    ref = lake.read_ref(recipe, name)
    if ref is None:
        return None
    return lake.find_snapshot(name, ref.target) if ref.kind == "table" else lake.read_artifact(name, ref.target)


def reasons(lake: Lake, plan: Plan, past: Made | None, since: Mapping[str, list[Reason]]) -> list[Reason]:
    """Why the plan of one stage has something to compute, given what the recipe used last.

    `since` has the settings that changed since its last run, by the part of the stage that they change.
    """
    if past is None:
        items = sum(len(job.members) for job in plan.jobs) if isinstance(plan, TablePlan) else 0
        return [Reason("first run", plan.call.stage.inputs[0].table, after=items) if items else Reason("first run")]
    causes = [*identity_changes(lake, plan.call, past, since)]
    if not (causes and getattr(plan.call.stage, "pinned", False)):  # which does not follow its tables
        causes += [Reason("upstream", name) for name, made in plan.inputs.items() if past.inputs.get(name) != made]
    if isinstance(plan, TablePlan) and plan.items is not None:
        causes += _items(lake, plan, past, since.get(LISTING, []))
    told = [cause for cause in causes if cause.cause != "lineage"] or causes
    once = [cause for place, cause in enumerate(told) if cause not in told[:place]]  # settings may be lists: no set
    return once or [Reason("lost")]


def identity_changes(lake: Lake, call: StageCall, past: Made, since: Mapping[str, list[Reason]]) -> Iterator[Reason]:
    """Version, settings and models that are others than before.

    Where `since` does not say which settings of the recipe changed a configuration, its own fields are named.
    """
    how = _how(lake, past) if past.identity != call.identity else None
    if how is None:
        return
    version, config, models = how
    if version != call.version:
        yield Reason("version", call.name, version, call.version)
    filled = (with_younger(call.config, key) for key in (config, config_json(call.config)))
    for path, before, after in differences(*filled):
        yield from since.get(CONFIG) or [Reason("setting", f"{call.name}: {'.'.join(path)}", before, after)]
    for role in sorted(models.keys() | call.models.keys()):
        if models.get(role) != call.digests.get(role):
            yield from since.get(role) or [_model(role, call.models.get(role))]


def _model(role: str, source: ModelSource | None) -> Reason:
    if source is None or source.reference is not None:
        return Reason("model", role)
    return Reason("upstream", source.artifact) if source.artifact else Reason("lineage", role)


def _items(lake: Lake, plan: TablePlan, past: Made, since: list[Reason]) -> Iterator[Reason]:
    """How many items were added, changed and removed; `since` are the settings that may have changed some."""
    for cause, count in item_changes(lake, plan, past if isinstance(past, Snapshot) else None).counts().items():
        if count:
            yield from since if cause == "changed" else ()
            yield Reason(cause, plan.call.stage.inputs[0].table, after=count)  # type: ignore[arg-type]


def _short(value: Any) -> str:
    text = "unset" if value is None else value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Path, old and new value of every place where two JSON values differ; None stands for what is not there."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            yield path, before, after
        return
    for name in sorted(before.keys() | after.keys()):
        yield from differences(before.get(name), after.get(name), (*path, name))


def with_younger(config: FrozenConfig, key: Any) -> Any:
    """A key of a configuration like `config`, with the defaults that it leaves out; see `FrozenConfig.younger`."""
    if not isinstance(key, dict):
        return key
    defaults = config.reset(*config.younger).model_dump(mode="json", include=set(config.younger))
    inside = {
        name: with_younger(value, key[name])
        for name, value in config
        if isinstance(value, FrozenConfig) and name in key
    }
    return {**defaults, **key, **inside}
