"""Configurations as YAML with what each setting means above it."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent, wrap
from typing import Any

import yaml

from spiritlm_core.config import FrozenConfig

_WIDTH = 120


def commented_yaml(config: FrozenConfig) -> str:
    """All settings of `config` as YAML that reads back to the same, with their descriptions as comments."""
    return "".join(_settings(config))


def _settings(config: FrozenConfig) -> Iterator[str]:
    plain = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        yield _comment(field.description or "")
        value = getattr(config, name)
        parts = value if isinstance(value, tuple) else ()
        if isinstance(value, FrozenConfig):
            yield f"{name}:\n{_indented(value, '  ')}"
        elif parts and isinstance(parts[0], FrozenConfig):
            yield f"{name}:\n" + "".join(f"  -\n{_indented(part, '    ')}" for part in parts)
        else:
            yield _plain(name, plain[name])


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in wrap(text, _WIDTH - 2))


def _indented(config: FrozenConfig, by: str) -> str:
    return indent("".join(_settings(config)), by)


def _plain(name: str, value: Any) -> str:
    """A setting that has no descriptions of its own: lists and mappings in one line, where they fit."""
    if isinstance(value, list | dict):
        return f"{name}: {_dumped(value, flow=True)}"
    return _dumped({name: value}, flow=False)


def _dumped(value: Any, *, flow: bool) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=_WIDTH)
