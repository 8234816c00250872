"""The settings of the last run of a recipe, kept beside its outputs, and what they changed since."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.graph import Graph, Node
from spiritlm_core.plan.reasons import CONFIG, LISTING, Reason
from spiritlm_core.plan.settings import Path, differences

R = TypeVar("R", bound=FrozenConfig)

APART = frozenset({"name", "description", "compute", "sharding", "sources", "texts"})
"""Parts of a recipe that change no result, and the sources: what these list is compared itself."""


@dataclass(frozen=True)
class Since:
    """What of a recipe is other than in its last run.

    Attributes:
        settings: that changed.
        stages: stage → its configuration, its listing or a role → the settings that change it.
    """

    settings: tuple[Reason, ...] = ()
    stages: Mapping[str, Mapping[str, list[Reason]]] = field(default_factory=dict)


NOTHING = Since()


def keep_settings(lake: Lake, name: str, recipe: FrozenConfig) -> None:
    """Let the lake hold the settings with which the recipe called `name` ran last."""
    lake.store.update(_path(name), json.dumps(recipe.model_dump(mode="json"), indent=1).encode())


def since_last_run(lake: Lake, name: str, recipe: R, graph_of: Callable[[R], Graph]) -> Since:
    """Compare `recipe` with that of the last run; nothing where the lake keeps none that can be read.

    A setting changes a part of a stage if that is another once the setting alone is put back.
    """
    try:
        last = type(recipe).model_validate_json(lake.store.read(_path(name)))
    except (FileNotFoundError, ValidationError):
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
