"""A pipeline as a graph of values: a node is one stage of one recipe, and an edge is a Python variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError
from spiritlm_core.intake.listing import Listing
from spiritlm_core.lake.plan import ModelSource, Plan
from spiritlm_core.lake.stage import ArtifactStage, TableStage

Stage = type[TableStage] | type[ArtifactStage]

Lineage = Callable[[Mapping[str, Plan]], Any]
"""Given the plans of all that a stage is made from, by name, returns the small JSON that the stage is told."""


@dataclass(frozen=True, eq=False)
class Node:
    """One stage of one recipe.

    Attributes:
        stage: the class.
        config: its configuration: what changes its result, and nothing else.
        tables: the tables that it reads.
        models: role → the artifact of another node, a model reference (it has ``://``), an artifact of the lake, or a
            function that tells the lineage.
        listing: what the first table is made of; None for all other stages.
        on_request: is no part of the road from recordings to a model, and runs where it is asked for by name.
    """

    stage: Stage
    config: FrozenConfig
    tables: tuple[Node, ...] = ()
    models: Mapping[str, Model] = field(default_factory=dict)
    listing: Listing | None = None
    on_request: bool = False

    @property
    def name(self) -> str:
        """The stage's name, which is that of its table or artifact."""
        return self.stage.name

    @property
    def parents(self) -> list[Node]:
        """The nodes that this one is made from directly."""
        return [*self.tables, *(model for model in self.models.values() if isinstance(model, Node))]


Model = Node | str | ModelSource | Lineage
"""What a role of a stage is given; see :class:`Node`."""


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

        Raises:
            RecipeError: there is no such stage.
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
    read = {table.name: table for table in tables if table is not None}
    wanted = [item.table for item in stage.inputs if item.table in read or not item.optional]
    if read.keys() != set(wanted):
        raise RecipeError(f"stage {stage.name} reads {wanted}, the graph gives it {sorted(read)}")
    return Node(stage, config, tuple(read[name] for name in wanted), _given(models))


def _given(models: Mapping[str, Any]) -> dict[str, Any]:
    return {role: model for role, model in models.items() if model is not None}
