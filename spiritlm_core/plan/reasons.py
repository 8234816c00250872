"""Why a stage has something to compute: what of it differs from what the recipe used last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan, ModelSource, Plan, StageCall, TablePlan
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.plan.difference import item_changes, lists_items
from spiritlm_core.plan.settings import Settings, differences, with_younger

Cause = Literal[
    "first run", "version", "setting", "derived", "model", "upstream", "lineage", "added", "changed", "removed", "lost"
]
"""``derived`` is a setting that follows from others, as the number of pitch tokens from the variant; it is told where
nothing else is. ``lost``: what was made is gone from the lake, or was never finished.
"""


CONFIG, LISTING = "its configuration", "its listing"
"""Parts of what a stage is given, besides the roles of its models."""


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
        """A few words for people."""
        counted = f"{self.after} {self.name if self.after != 1 else self.name.removesuffix('s')}"
        if self.cause == "first run":
            return f"first run: {counted}" if self.after else "first run"
        if self.cause == "version":
            return f"stage version {self.before} → {self.after}"
        if self.cause in ("setting", "derived"):
            return f"`{self.name}` {_short(self.before)} → {_short(self.after)}"
        if self.cause in ("added", "changed", "removed"):
            return f"{counted} {self.cause}"
        if self.cause in ("model", "upstream"):
            return f"{self.cause} `{self.name}`"
        return "its lineage" if self.cause == "lineage" else "what was made of it is no more in the lake"


@dataclass(frozen=True)
class Past:
    """What a recipe used last under the name of a stage."""

    made: Snapshot | Artifact

    @property
    def snapshot(self) -> Snapshot | None:
        """It, if it is a table."""
        return self.made if isinstance(self.made, Snapshot) else None

    @property
    def inputs(self) -> Mapping[str, str]:
        """The tables that it was made from, and their fingerprints."""
        return self.made.lineage.get("inputs", {}) if isinstance(self.made, Snapshot) else self.made.inputs

    def how(self, lake: Lake) -> tuple[int, Any, Mapping[str, str]] | None:
        """Version, configuration and models of the stage that made it; null where all of its shards are gone."""
        if isinstance(self.made, Artifact):
            return self.made.stage_version, self.made.config, self.made.models
        table = self.made.table
        there = next((key for key in self.made.keys if lake.has_shard(table, key)), None)
        if there is None:
            return None
        footer = lake.read_footer(table, there)
        return footer.stage_version, footer.config, footer.models


def last_made(lake: Lake, recipe: str, name: str) -> Past | None:
    """What `recipe` used last under `name`; null if it never did, or if that is gone."""
    ref = lake.read_ref(recipe, name)
    if ref is None:
        return None
    made = lake.find_snapshot(name, ref.target) if ref.kind == "table" else lake.read_artifact(name, ref.target)
    return Past(made) if made else None


def reasons(
    lake: Lake, plan: Plan, past: Past | None, settings: Settings, since: Mapping[str, list[Reason]]
) -> list[Reason]:
    """Why the plan of one stage has something to compute, given what the recipe used last.

    `since` has the settings that changed since its last run, by the part of the stage that they change.
    """
    if past is None:
        items = sum(len(job.members) for job in plan.jobs) if isinstance(plan, TablePlan) else 0
        return [Reason("first run", plan.call.stage.inputs[0].table, after=items) if items else Reason("first run")]
    inputs = plan.inputs if isinstance(plan, ArtifactPlan) else plan.lineage.get("inputs", {})
    causes = [*identity_changes(lake, plan.call, past, settings, since)]
    if not (causes and getattr(plan.call.stage, "pinned", False)):  # which does not follow its tables
        causes += [Reason("upstream", name) for name, made in inputs.items() if past.inputs.get(name) != made]
    if isinstance(plan, TablePlan) and lists_items(plan):
        causes += _items(lake, plan, past, since.get(LISTING, []))
    told = [cause for cause in causes if cause.cause not in ("lineage", "derived")]
    return list(dict.fromkeys(told or causes)) or [Reason("lost")]


def identity_changes(
    lake: Lake, call: StageCall, past: Past, settings: Settings, since: Mapping[str, list[Reason]]
) -> Iterator[Reason]:
    """Version, settings and models that are others than before."""
    how = past.how(lake) if past.made.identity != call.identity else None
    if how is None:
        return
    version, config, models = how
    if version != call.version:
        yield Reason("version", call.name, version, call.version)
    derived = [replace(reason, cause="derived") for reason in since.get(CONFIG, ())]
    filled = (with_younger(call.config, key) for key in (config, config_json(call.config)))
    for path, before, after in differences(*filled):
        name = settings.name(call.config, path)
        if name is not None and settings.value(name) == after:
            yield Reason("setting", name, before, after)
        else:
            yield from derived or [Reason("derived", name or f"{call.name}: {'.'.join(path)}", before, after)]
    for role in sorted(models.keys() | call.models.keys()):
        if models.get(role) != call.digests.get(role):
            yield from since.get(role) or [_model(role, call.models.get(role))]


def _model(role: str, source: ModelSource | None) -> Reason:
    if source is None or source.reference is not None:
        return Reason("model", role)
    return Reason("upstream", source.artifact) if source.artifact else Reason("lineage", role)


def _items(lake: Lake, plan: TablePlan, past: Past, since: list[Reason]) -> Iterator[Reason]:
    """How many items were added, changed and removed; `since` are the settings that may have changed some."""
    for cause, count in item_changes(lake, plan, past.snapshot).counts().items():
        if count:
            yield from since if cause == "changed" else ()
            yield Reason(cause, plan.call.stage.inputs[0].table, after=count)  # type: ignore[arg-type]


def _short(value: Any) -> str:
    text = "unset" if value is None else value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
