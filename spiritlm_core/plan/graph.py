"""A pipeline as a graph of values, and the plan of every stage that follows from it and a lake.

A node is one stage of one recipe, and an edge is a Python variable. Keys depend on inputs alone, so that nothing is
computed for a plan.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError
from spiritlm_core.intake.grouping import ItemRows, Places, group_items
from spiritlm_core.intake.item import said_of
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
from spiritlm_core.lake.schema import AMENDED
from spiritlm_core.lake.snapshot import ShardEntry
from spiritlm_core.lake.stage import ArtifactStage, TableStage

Stage = type[TableStage] | type[ArtifactStage]

Lineage = Callable[[Mapping[str, Plan]], Any]
"""Given the plans of all that a stage is made from, by name, returns the small JSON that the stage is told, if any."""


@dataclass(frozen=True, eq=False)
class Node:
    """One stage of one recipe."""

    stage: Stage  # the class
    config: FrozenConfig  # its configuration: what changes its result, and nothing else
    tables: tuple[Node, ...] = ()  # the tables that it reads
    # role → the artifact of another node, a model reference (it has ``://``), an artifact of the lake, or a function
    # that tells the lineage
    models: Mapping[str, Model] = field(default_factory=dict)
    listing: Listing | None = None  # what the first table is made of; None for all other stages
    # is no part of the road from recordings to a model, and runs where it is asked for by name
    on_request: bool = False

    @property
    def name(self) -> str:
        """The stage's name, which is that of its table or artifact."""
        return self.stage.name

    @property
    def parents(self) -> list[Node]:
        """The nodes that this one is made from directly."""
        return [*self.tables, *(model for model in self.models.values() if isinstance(model, Node))]


Model = Node | str | ModelSource | Lineage  # what a role of a stage is given; see `Node`


class Graph:
    """The stages of one recipe, in the order in which they were added, which is one in which they can run."""

    def __init__(self, recipe: str, settings: FrozenConfig | None = None) -> None:
        """`recipe` is the name under which the lake keeps what the stages make; `settings` it keeps after a run."""
        self.recipe = recipe
        self.settings = settings
        self.nodes: dict[str, Node] = {}
        self.notes: list[str] = []
        """What people are told of the recipe on this machine, before a run and after it."""

    def source(self, stage: Stage, config: FrozenConfig, listing: Listing, **models: str | None) -> Node:
        """Add a first table, whose rows are made from the items of `listing`."""
        return self._keep(Node(stage, config, (), _given(models), listing))

    def add(self, stage: Stage, config: FrozenConfig, *tables: Node | None, **models: Model | None) -> Node:
        """Add a stage that reads `tables` and is given `models` by role; what is None is left out."""
        return self._keep(_node(stage, config, tables, models))

    def on_request(self, stage: Stage, config: FrozenConfig, *tables: Node | None, **models: Model | None) -> Node:
        """Add a stage, as `add` does, that runs only where it is asked for."""
        return self._keep(replace(_node(stage, config, tables, models), on_request=True))

    def _keep(self, node: Node) -> Node:
        if node.name in self.nodes:
            raise RecipeError(f"the graph of {self.recipe!r} has two stages called {node.name!r}")
        self.nodes[node.name] = node
        return node

    def wanted(self, *until: str) -> list[Node]:
        """All stages but those on request; or those called `until` and what they are made from, and nothing else.

        Raises RecipeError: there is no such stage.
        """
        if unknown := [name for name in until if name not in self.nodes]:
            known = ", ".join(self.nodes)
            raise RecipeError(f"there is no stage {unknown[0]!r} in recipe {self.recipe!r}; its stages are {known}")
        return self.made_from(*(until or (node.name for node in self.nodes.values() if not node.on_request)))

    def made_from(self, *names: str) -> list[Node]:
        """The stages called `names` and all that they are made from, in the order of the graph."""
        needed = set(names)
        for node in reversed(self.nodes.values()):
            if node.name in needed:
                needed.update(parent.name for parent in node.parents)
        return [node for node in self.nodes.values() if node.name in needed]


def _node(
    stage: Stage, config: FrozenConfig, tables: Sequence[Node | None], models: Mapping[str, Model | None]
) -> Node:
    """A node whose stage gets the tables that it declares, in that order. Raises RecipeError if it does not."""
    read = {AMENDED.get(table.name, table.name): table for table in tables if table is not None}
    wanted = [item.table for item in stage.inputs if item.table in read or not item.optional]
    if read.keys() != set(wanted):
        raise RecipeError(f"stage {stage.name} reads {wanted}, the graph gives it {sorted(read)}")
    return Node(stage, config, tuple(read[name] for name in wanted), _given(models))


def _given(models: Mapping[str, Any]) -> dict[str, Any]:
    return {role: model for role, model in models.items() if model is not None}


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

        Raises ModelReferenceError: one cannot be had.
        """
        for plan in self.stages.values():
            given = [model for model in plan.call.models.values() if model.reference is not None]
            if given and not plan.is_complete(lake):
                for model in given:
                    model.local_path(lake)


def plan_graph(graph: Graph, lake: Lake, *until: str, refit: bool = False, say: Say = lambda _: None) -> RunPlan:
    """Plan every stage of `graph`, or those called `until` and what they are made from.

    Recordings and texts are listed, and model references resolved that are not pinned; nothing else is looked at but
    the lake. With `refit` pinned models are built anew from the corpus as it is now.

    Raises:
        RecipeError: there is no such stage.
        SourceError: a source cannot be listed.
        ModelReferenceError: a given model is not there.
    """
    planner = _Planner(graph, lake, refit, say)
    for note in graph.notes:
        say(note)
    with _without_collecting():
        for node in graph.wanted(*until):
            planner.plans[node.name] = planner.plan(node)
    return RunPlan(graph.recipe, planner.plans, graph.settings, tuple(graph.notes))


@contextmanager
def _without_collecting() -> Iterator[None]:
    """A listing makes millions of objects in no circles; to look for circles among them takes a quarter of its time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass
class _Planner:
    graph: Graph
    lake: Lake
    refit: bool
    say: Say
    plans: dict[str, Plan] = field(default_factory=dict)

    def plan(self, node: Node) -> Plan:
        sources = {role: self._source(node, model) for role, model in node.models.items()}
        models = {role: source for role, source in sources.items() if source is not None}
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

    def _source(self, node: Node, model: Model) -> ModelSource | None:
        if isinstance(model, ModelSource):
            return model
        if isinstance(model, Node):
            return ModelSource(self.plans[model.name].fingerprint, artifact=model.name)
        if isinstance(model, str):
            return ModelSource.of_reference(model)
        made_from = {parent.name: self.plans[parent.name] for parent in self.graph.made_from(node.name)[:-1]}
        told = model(made_from)
        return None if told is None else ModelSource.of_json(told)

    def _pin(self, call: StageCall) -> str | None:
        """The model that the recipe has now, as long as its configuration and its models stay what they are."""
        ref = self.lake.read_ref(self.graph.recipe, call.name)
        if ref is None or ref.identity != call.identity or self.lake.read_artifact(call.name, ref.target) is None:
            return None
        return ref.target


def plan_listing(listing: Listing, call: StageCall, lake: Lake, recipe: str, say: Say) -> TablePlan:
    """One job per group of items; groups that a shard holds already keep its key. Raises SourceError."""
    items, kept = _combined(listing.items(lake, say)), _kept_shards(lake, recipe, call)
    costs = listing.costs(items).to_numpy()
    old, new = group_items(items, costs, [shard.members for shard in kept], listing.sharding)
    jobs = [_kept_job(call, items, shard, places) for shard, places in zip(kept, old, strict=True) if len(places)]
    jobs += [_job(call, items, places) for places in new]
    # Order by key: a set of items has none, and every run must see the same one.
    jobs.sort(key=lambda job: job.key)
    return TablePlan(call, tuple(jobs), {"models": call.digests, **listing.lineage, **said_of(items)}, items)


def _combined(items: pa.Table) -> pa.Table:
    """`items` in one piece, of which rows are taken quickly; column by column, so that nothing large is there twice."""
    schema, columns = items.schema, items.columns
    del items
    for place, name in enumerate(schema.names):
        columns[place] = pa.table([columns[place]], [name]).combine_chunks()[name]
        pa.default_memory_pool().release_unused()
    return pa.table(columns, schema)


def _kept_shards(lake: Lake, recipe: str, call: StageCall) -> Sequence[ShardEntry]:
    """The shards made by the same stage: this recipe's first, else any other recipe's."""
    refs = [ref for ref in lake.refs() if ref.name == call.name and ref.identity == call.identity]
    refs.sort(key=lambda ref: (ref.recipe != recipe, ref.recipe))
    snapshots = (lake.find_snapshot(call.name, ref.target) for ref in refs)
    last = next(filter(None, snapshots), None)
    return last.shards if last else ()


def _kept_job(call: StageCall, items: pa.Table, shard: ShardEntry, places: Places) -> ShardJob:
    """Of an earlier shard with all of its members: costs nothing but its key."""
    if len(places) < len(shard.members):
        return _job(call, items, places)
    return ShardJob(shard.key, members=shard.members, rows=ItemRows(items, places))


def _job(call: StageCall, items: pa.Table, places: Places) -> ShardJob:
    return inline_job(call.identity, items["key"].take(places).to_pylist(), ItemRows(items, places))
