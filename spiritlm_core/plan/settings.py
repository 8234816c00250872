"""By what name a recipe knows a field of a stage's configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal, get_origin

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from spiritlm_core.config import FrozenConfig

Path = tuple[str, ...]


class Settings:
    """The settings of a recipe, found by the class of the configuration that holds them, else by name and choices.

    A stage is given parts of the recipe, mostly as they are. What stands in a class that the recipe holds once is
    named by where it holds it; a choice that a stage's own class adds, such as the precision or the rate, by the one
    setting of that name with the same choices.
    """

    def __init__(self, recipe: FrozenConfig) -> None:
        """Look at `recipe`, a speech-LM or a fine-tuning one."""
        self._places: dict[type, list[Path]] = defaultdict(list)
        self._choices: dict[tuple[str, str], list[Path]] = defaultdict(list)
        for path, value, about in _walk(recipe):
            for kind in _kinds(value):
                self._places[kind].append(path)
            if choices := _choices(about):
                self._choices[path[-1], choices].append(path)
        self._values = recipe.model_dump(mode="json")

    def name(self, config: FrozenConfig, path: Path) -> str | None:
        """The dotted name of the field at `path` of a stage's configuration; null where no one setting is it."""
        inside: Any = config
        for depth, field in enumerate(path):
            if place := self._place(inside, field):
                return ".".join(place + path[depth:])
            about = type(inside).model_fields.get(field) if isinstance(inside, FrozenConfig) else None
            inside = getattr(inside, field, None)
        places = self._choices.get((path[-1], _choices(about)), []) if about else []
        return ".".join(places[0]) if len(places) == 1 else None

    def value(self, name: str) -> Any:
        """What the recipe says under a dotted name, as a JSON value; null where it says nothing."""
        value: Any = self._values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def _place(self, config: Any, field: str) -> Path | None:
        """Where the recipe holds the one configuration with `field` of the same class, or of one that it extends."""
        kinds = [kind for kind in _kinds(config) if field in kind.model_fields]
        return next((self._places[kind][0] for kind in kinds if len(self._places.get(kind, ())) == 1), None)


def _kinds(value: Any) -> list[type[FrozenConfig]]:
    """The class of a configuration and those that it extends, without the base of all; none of anything else."""
    kinds = type(value).__mro__
    return list(kinds[: kinds.index(FrozenConfig)]) if isinstance(value, FrozenConfig) else []


def _choices(about: FieldInfo) -> str:
    """What values a field takes, where that is written out or checked by a function; else empty."""
    checks = [check for check in about.metadata if isinstance(check, AfterValidator)]
    return repr((about.annotation, checks)) if checks or get_origin(about.annotation) is Literal else ""


def _walk(config: FrozenConfig, above: Path = ()) -> Iterator[tuple[Path, Any, FieldInfo]]:
    """Path, value and description of every field, those of configurations within configurations, too."""
    for name, about in type(config).model_fields.items():
        path, value = (*above, name), getattr(config, name)
        yield path, value, about
        if isinstance(value, FrozenConfig):
            yield from _walk(value, path)


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
