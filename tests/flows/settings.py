"""Every field of a configuration, and a recipe with another value in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import pytest
from pydantic import ValidationError

from flows.recipes import find_recipe
from spiritlm_core.config import FrozenConfig
from spiritlm_core.recipe import Recipe

C = TypeVar("C", bound=FrozenConfig)

OTHER: dict[str, Any] = {
    "language": "fr",
    "sources.0.language": "fr",
    "lm.lora.targets": ["q_proj"],
    "name": "another",
    "texts": [{"path": "TEXTS"}],
    "sources.0.path": "COPY",
    "sources.0.licence": "CC0-1.0",
    "sources.0.consent": "yes",
    "sources.0.expires": "2000-01-01",
    "rights.licences": ["CC0-1.0"],
    "units.hubert.conv_channels": [256, 192, 128],
    "units.hubert.conv_kernels": [200, 7, 1],
    "units.hubert.clusters": [64, 128],
    "units.hubert.perturb.snr": [1.0, 20.0],
    "units.quantizer.linear.augment.snr": [1.0, 20.0],
    "units.copies.speeds": [1.1],
    "units.copies.snr": [1.0, 20.0],
    "vocoder.adversarial_from": 1,
    "filters": ["snr >= 9"],
    "lm.loss": "smoothed",
    "lm.rope_base": 20_000.0,
    "lm.stream_weights": {"speech": 0.5},
    "publish.languages": ["en"],
    "suite.sets": ["words"],
    "suite.ask.lm_eval": ["mmlu"],
    "compute.stages": {"units": {"gpus": 0.5}},
}
"""Another value where one step up or down, the other choices, one entry more or less are not valid ones."""


def fields(config: FrozenConfig, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below `config`: its path and its annotation. A part that may be null is a field itself, too."""
    for name, about in type(config).model_fields.items():
        value, path = getattr(config, name), f"{above}{name}"
        if isinstance(value, FrozenConfig):
            if type(None) in get_args(about.annotation):
                yield path, about.annotation
            yield from fields(value, f"{path}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], FrozenConfig):
            for index, part in enumerate(value):
                yield from fields(part, f"{path}.{index}.")
        else:
            yield path, about.annotation


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def others(value: Any, annotation: Any) -> list[Any]:
    """Values to try in place of `value`, not all of them valid."""
    found = [choice for choice in _choices(annotation) if choice != value]
    if isinstance(value, bool):
        return [*found, not value]
    if isinstance(value, int | float):
        return [*found, *(2 * value, value + 1, value / 2, value // 2, value - 1, value + 0.01, value - 0.01)]
    if isinstance(value, str):
        return [*found, f"{value}x", "file:///another", "hf://some/other"]
    if isinstance(value, list):
        return [*found, value[:-1], value[::-1], value + value[-1:], [*value[:-1], *(2 * v for v in value[-1:])]]
    if isinstance(value, dict):
        return [*found, None] if value else [{"another": "file:///another"}, {"another": 0.5}]
    return [*found, 2, 64, 0.5, True, "hf://some/other", {}]


def changed(recipe: C, path: str, annotation: Any, place: Path) -> C:
    """`recipe` with another value at `path`. Fails where none is valid."""
    given = OTHER.get(path)
    old, tries = _at(recipe.model_dump(mode="json"), path), [given] if given is not None else []
    for value in [*tries, *others(old, annotation)]:
        body = recipe.model_dump(mode="json")
        _put(body, path, _placed(value, place))
        if path == "units.encoder":
            _put(body, "units.hubert.model", None)  # its other name
        if path == "units.hubert.model":
            _put(body, "units.encoder", None)
        if path == "units.quantizer.kind":
            _put(body, "tokens.sequences.hubert", 32_767)  # the blank is a unit more
        if path == "lm.optimizer.kind":
            _put(body, "lm.lora", None)  # which only AdamW trains
        if path == "lm.lora":
            _put(body, "lm.optimizer.kind", "adamw")
        try:
            new = type(recipe).model_validate(body)
        except ValidationError:
            continue
        if _at(new.model_dump(mode="json"), path) != old:
            return new
    pytest.fail(f"{path}: no other valid value than {old!r} was found; name one in OTHER")


def _placed(value: Any, place: Path) -> Any:
    if value == "COPY":
        return str(place / value)
    return [{"path": str(place / "TEXTS")}] if value == [{"path": "TEXTS"}] else value


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body[int(part)] if isinstance(body, list) else body[part]
    return body


def _put(body: Any, path: str, value: Any) -> None:
    *above, last = path.split(".")
    target = _at(body, ".".join(above)) if above else body
    target[last] = value


NOT_TRIED = {
    "sources.0.kind": "another kind of source lists other recordings",
    "vocoder.generator.kind": "the other kind has other fields",
    "tokens.text_span.kind": "the other kinds have other fields",
    "tokens.speech_span.kind": "the other kinds have other fields",
    "tokens.pairs.crop_words.kind": "the other kinds have other fields",
}


def shipped(name: str, place: Path, overrides: list[str]) -> Recipe:
    """A recipe of the package on the recordings of the test."""
    return find_recipe(name, [*overrides, f"sources=[{{kind: folder, path: {place / 'clips'}}}]"])
