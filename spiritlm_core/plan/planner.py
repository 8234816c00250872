"""From a graph and a lake to the plan of every stage: keys depend on inputs alone, so nothing is computed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from spiritlm_core.config import FrozenConfig
from spiritlm_core.intake.grouping import Member, group_items, items_table
from spiritlm_core.intake.listing import Listing, Say
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import (
    ModelSource,
    Plan,
    ShardJob,
    StageCall,
    TablePlan,
    inline_job,
    plan_artifact,
    plan_table,
)
from spiritlm_core.lake.stage import ArtifactStage
from spiritlm_core.plan.graph import Graph, Model, Node


@dataclass(frozen=True)
class RunPlan:
    """The plans of all stages of a run by name, in the order in which they run; `settings` and `notes` of its graph."""

    recipe: str
    stages: Mapping[str, Plan]
    settings: FrozenConfig | None = None
    notes: tuple[str, ...] = ()

    def is_complete(self, lake: Lake) -> bool:
        """Whether the lake holds everything already."""
        return all(plan.is_complete(lake) for plan in self.stages.values())

    def fetch_models(self, lake: Lake) -> None:
        """Bring the given models here that something is still to be computed with: now, and not after hours of work.

        Raises:
            ModelReferenceError: one cannot be had.
        """
        for plan in self.stages.values():
            given = [model for model in plan.call.models.values() if model.reference is not None]
            if given and not plan.is_complete(lake):
                for model in given:
                    model.local_path(lake)


def plan_graph(graph: Graph, lake: Lake, *until: str, refit: bool = False, say: Say = lambda _: None) -> RunPlan:
    """Plan every stage of `graph`, or those called `until` and what they are made from.

    Recordings and texts are listed, and model references resolved that are not pinned; nothing else is looked at but
    the lake.

    Args:
        graph: of one recipe.
        lake: where the results are looked for.
        until: names of stages; none takes all but those on request.
        refit: build pinned models anew from the corpus as it is now.
        say: is told what the graph and its listings have to tell people.

    Raises:
        RecipeError: there is no such stage.
        SourceError: a source cannot be listed.
        ModelReferenceError: a given model is not there.
    """
    planner = _Planner(graph, lake, refit, say)
    for note in graph.notes:
        say(note)
    for node in graph.wanted(*until):
        planner.plans[node.name] = planner.plan(node)
    return RunPlan(graph.recipe, planner.plans, graph.settings, tuple(graph.notes))


@dataclass
class _Planner:
    graph: Graph
    lake: Lake
    refit: bool
    say: Say
    plans: dict[str, Plan] = field(default_factory=dict)

    def plan(self, node: Node) -> Plan:
        models = {role: self._source(node, model) for role, model in node.models.items()}
        call = StageCall.of(node.stage, node.config, models)
        if node.listing is not None:
            return plan_listing(node.listing, call, self.lake, self.graph.recipe, self.say)
        inputs = [self._table(table) for table in node.tables]
        if issubclass(node.stage, ArtifactStage):
            pin = self._pin(call) if node.stage.pinned and not self.refit else None
            return plan_artifact(call, {table.name: table for table in inputs}, pin)
        return plan_table(call, inputs)

    def _table(self, node: Node) -> TablePlan:
        plan = self.plans[node.name]
        assert isinstance(plan, TablePlan)  # noqa: S101 - an artifact is no table
        return plan

    def _source(self, node: Node, model: Model) -> ModelSource:
        if isinstance(model, ModelSource):
            return model
        if isinstance(model, Node):
            return ModelSource(self.plans[model.name].fingerprint, artifact=model.name)
        if isinstance(model, str):
            return ModelSource.of_reference(model)
        made_from = {parent.name: self.plans[parent.name] for parent in self.graph.made_from(node.name)[:-1]}
        return ModelSource.of_json(model(made_from))

    def _pin(self, call: StageCall) -> str | None:
        """The model that the recipe has now, as long as its configuration and its models stay what they are."""
        ref = self.lake.read_ref(self.graph.recipe, call.name)
        if ref is None or ref.identity != call.identity or self.lake.read_artifact(call.name, ref.target) is None:
            return None
        return ref.target


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
    refs.sort(key=lambda ref: (ref.recipe != recipe, ref.recipe))
    snapshots = (lake.find_snapshot(call.name, ref.target) for ref in refs)
    last = next(filter(None, snapshots), None)
    return [frozenset(shard.members) for shard in last.shards] if last else []


def _job(call: StageCall, listing: Listing, group: Sequence[Member]) -> ShardJob:
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    rows = partial(items_table, group, listing.schema)
    return inline_job(call.identity, [item.key for item in group], rows, f"{group[0].source_uri}{more}")
