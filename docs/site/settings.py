"""Write docs/settings.md: every setting of a recipe, out of the described fields. Run by ``make docs``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spiritlm_core.config import FrozenConfig
from spiritlm_core.finetune.config import FinetuneRecipe
from spiritlm_core.recipe import Recipe

PAGE = Path(__file__).parents[1] / "settings.md"
_START = """# Settings

Written by `make docs` out of the code; do not edit. `spiritlm recipes NAME` prints a recipe with these settings and
their descriptions, and `--set units.quantizer.units=100` changes one for a run. A name with dots is the way to a
setting in the file: `units.quantizer.units` is the key `units` below `quantizer:`, which is below `units:`. What a
recipe leaves out has its default.
"""
_RECIPES = (
    ("Recipes of `spiritlm run`", Recipe),
    ("Recipes of `spiritlm finetune`", FinetuneRecipe),
)
Schema = dict[str, Any]


def reference() -> str:
    """The whole page."""
    written: dict[str, str] = {}
    parts = [_START]
    for title, model in _RECIPES:
        parts += [f"\n## {title}\n", *_sections(model, written)]
    return "".join(parts)


def _sections(model: type[FrozenConfig], written: dict[str, str]) -> Iterator[str]:
    """A table for `model` and one for each section below it that is not among those `written`, name → place."""
    schema = model.model_json_schema()
    waiting = [("", schema)]
    while waiting:
        place, section = waiting.pop(0)
        kind = section["properties"].get("kind", {}).get("const")
        yield _heading(place, kind, section)
        below = []
        for key, field in section["properties"].items():
            if "const" in field:
                continue  # the kind, which the heading says
            inner = f"{place}.{key}".strip(".")
            names = [reference.removeprefix("#/$defs/") for reference in _references(field)]
            below += [(inner, schema["$defs"][name]) for name in names if name not in written]
            yield _row(inner, field, key in section.get("required", ()), written.get(names[0]) if names else None)
            written |= {name: inner for name in names if name not in written}
        waiting = below + waiting


def _heading(place: str, kind: str | None, section: Schema) -> str:
    title = f"\n### {place}{f' with `kind: {kind}`' if kind else ''}\n" if place else ""
    about = section.get("description", "").partition("\n\n")[0].replace("\n", " ")
    return f"{title}\n{_marked(about)}\n\n| setting | values | default | meaning |\n|---|---|---|---|\n"


def _row(place: str, field: Schema, required: bool, elsewhere: str | None) -> str:
    values, default = _values(field), "required" if required else _default(field)
    meaning = field.get("description", "")
    if _references(field):
        values = "section" if field.get("type") != "array" else "list of sections"
        meaning += f" As `{elsewhere}`." if elsewhere else ""
    cells = (f"`{place}`", values, default, _marked(meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _marked(text: str) -> str:
    """Text of a docstring as Markdown."""
    return re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`").replace("<", "&lt;").replace("*", "\\*")


def _references(field: Schema) -> list[str]:
    """The sections that a field may hold."""
    own = [field["$ref"]] if "$ref" in field else []
    parts = [*field.get("anyOf", ()), *field.get("oneOf", ()), *([field["items"]] if "items" in field else [])]
    return [*own, *(reference for part in parts for reference in _references(part))]


def _default(field: Schema) -> str:
    default = field.get("default")
    if isinstance(default, dict) and _references(field):
        return ""
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _values(field: Schema) -> str:
    """What a field may hold, in words."""
    if "anyOf" in field:
        return " or ".join(_values(part) for part in field["anyOf"])
    if choices := field.get("enum") or ("const" in field and [field["const"]]):
        return ", ".join(f"`{choice}`" for choice in choices)
    if field.get("type") == "array":
        return f"list of {_values(field['items'])}" if "items" in field else "list"
    names = {"integer": "whole number", "boolean": "`true`, `false`", "string": "text", "object": "mapping"}
    kind = field.get("type", "")
    return " ".join(filter(None, [names.get(kind, kind), _bounds(field)]))


def _bounds(field: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {field[name]}" for name, sign in signs.items() if name in field)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
