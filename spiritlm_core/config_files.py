"""Reading configurations from YAML files and ``KEY=VALUE`` overrides: safely, and with the place of every error."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from spiritlm_core.config import FrozenConfig, message_of
from spiritlm_core.errors import RecipeError

C = TypeVar("C", bound=FrozenConfig)
Lines = dict[tuple[str, ...], int]  # the line, from 1, on which each key or entry stands
MOST_CHARACTERS = 2**18
MOST_ENTRIES = 20_000
MOST_DEPTH = 50
_MOST_ERRORS = 20
_LONGEST = 80


@dataclass(frozen=True)
class Yaml:
    """The content of a YAML text: plain values, and the line of each key."""

    body: Any
    lines: Lines = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Plain values only; what Python cannot hold (the 31st of February, 5000 digits) is an error with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
            kind = node.tag.rpartition(":")[2]
            problem = f"{_short(node.value)} cannot be read as {kind}: {error}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def read_yaml(text: str, name: str) -> Yaml:
    """Read one YAML document. Aliases are followed as far as the whole stays small.

    Args:
        text: the document.
        name: the file's name, for messages.

    Raises:
        RecipeError: it is no YAML, too large or too deep when aliases are followed, gives a key twice, or asks for
            other than plain values; with the line.
    """
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(f"{name} has more than {MOST_CHARACTERS} characters, which no configuration has")
    try:
        _check_depth(text, name)
        loader = _Loader(text)
        node = loader.get_single_node()
        lines = dict(_lines(node, (), name))
        return Yaml(None if node is None else loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RecipeError(f"{name} is not YAML: {line}{_said(error)}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not YAML: {' '.join(str(error).split())}") from error


def _said(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


def _check_depth(text: str, name: str) -> None:
    """Refuse a text in which things are nested too deeply to be composed."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise _too_much(event.start_mark.line if event.start_mark else 0, name)


def _too_much(line: int, name: str) -> RecipeError:
    return RecipeError(
        f"{name}, line {line + 1}: more than {MOST_DEPTH} levels or {MOST_ENTRIES} entries, aliases counted as what "
        "they stand for"
    )


def _lines(root: yaml.Node | None, above: tuple[str, ...], name: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The line of every key and entry below `root`; refuses keys given twice, of which YAML keeps the last silently."""
    waiting, entries = [(above, root)], 0
    while waiting:
        path, node = waiting.pop()
        seen: set[str] = set()
        for key, line, value in _parts(node):
            if key in seen:
                raise RecipeError(f"{name}, line {line + 1}: {'.'.join((*path, key))} is given twice")
            seen.add(key)
            if (entries := entries + 1) > MOST_ENTRIES or len(path) > MOST_DEPTH:
                raise _too_much(line, name)
            yield (*path, key), line + 1
            waiting.append(((*path, key), value))


def _parts(node: yaml.Node | None) -> Iterator[tuple[str, int, yaml.Node]]:
    """Key or index, line from 0, and value of each part of `node`."""
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), key.start_mark.line, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((str(index), value.start_mark.line, value) for index, value in enumerate(node.value))


def load_config(model: type[C], text: str, name: str, overrides: Sequence[str] = ()) -> C:
    """Read a configuration from YAML.

    Args:
        model: its class.
        text: the YAML.
        name: the file's name, for messages.
        overrides: ``a.b=value`` assignments, applied in order; values are YAML.

    Raises:
        RecipeError: what is wrong, with the key and the line of every error.
    """
    read = read_yaml(text, name)
    body, lines = read.body, read.lines
    if not isinstance(body, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys to values, see `spiritlm recipes`")
    for override in overrides:
        _apply(body, override)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RecipeError(_explain(error, model, name, lines, overrides)) from None


def load_config_file(model: type[C], path: Path, kind: str, overrides: Sequence[str] = ()) -> C:
    """Read a file of some `kind`, such as "recipe"; see :func:`load_config`."""
    return load_config(model, read_text(path, kind), str(path), overrides)


def read_text(path: Path, kind: str) -> str:
    """The text of a small file of some `kind`. Raises RecipeError if there is none, or it is none."""
    if not path.exists():
        raise RecipeError(f"there is no {kind} file {path}")
    if not path.is_file():
        raise RecipeError(f"{path} cannot be read: it is not a file")
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MOST_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} cannot be read: it is not UTF-8 ({error})") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error


def _apply(body: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override!r}: write KEY=VALUE, for example --set lm.steps=100")
    parsed = read_yaml(value, f"--set {_short(override, str)}: the value").body
    target: Any = body
    for part in parts[:-1]:
        target = _enter(target, part, override)
    _assign(target, parts[-1], parsed, override)


def _enter(target: Any, part: str, override: str) -> Any:
    if isinstance(target, dict):
        if target.get(part) is None:
            target[part] = {}
        return target[part]
    if isinstance(target, list) and part.isdecimal() and int(part) < len(target):
        return target[int(part)]
    raise RecipeError(f"--set {override!r}: {part!r} cannot be reached, what is before it holds no such key")


def _assign(target: Any, part: str, value: Any, override: str) -> None:
    if isinstance(target, list) and part.isdecimal() and int(part) < len(target):
        target[int(part)] = value
    elif isinstance(target, dict):
        target[part] = value
    else:
        raise RecipeError(f"--set {override!r}: {part!r} cannot be set, what is before it is a single value")


def _explain(
    error: ValidationError, model: type[FrozenConfig], name: str, lines: Lines, overrides: Sequence[str]
) -> str:
    found, errors = [], error.errors(include_url=False)
    for item in errors[:_MOST_ERRORS]:
        loc = tuple(str(part) for part in item["loc"])
        key = ".".join(loc) or "recipe"
        found.append(f"{_place(loc, name, lines, overrides)}: {key}: {_problem(item, model)}")
    more = [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
    return "\n".join(dict.fromkeys([*found, *more]))


def _short(value: object, show: Callable[[object], str] = repr, most: int = _LONGEST) -> str:
    """`value` in few characters."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return "a huge number"
    shown = show(value)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def _problem(item: Any, model: type[FrozenConfig]) -> str:
    if item["type"] == "extra_forbidden":
        *above, wrong = map(str, item["loc"])
        close = get_close_matches(wrong, _keys(model, above), 1)
        return f"unknown key: {close[0]} may be meant" if close else "unknown key"
    if item["type"] == "model_type":
        return f"is a group of settings, and {_short(item['input'])} is none: set one of its keys"
    if item["type"] == "union_tag_not_found":
        return f"needs a key {item['ctx']['discriminator']}, which says what it is"
    if item["type"] == "missing":
        return "is required"
    shown = "" if isinstance(item["input"], dict | list) else f" (got {_short(item['input'])})"
    return f"{_short(message_of(item), str, 400)}{shown}"


def _keys(model: type[FrozenConfig], above: Sequence[str]) -> list[str]:
    """The keys that may stand below `above`; numbers of entries and tags of a union lead to no other model."""
    models = _models(model)
    for part in above:
        inner = [found for m in models if part in m.model_fields for found in _models(m.model_fields[part].annotation)]
        models = inner or models
    return [key for m in models for key in m.model_fields]


def _models(annotation: Any) -> list[type[FrozenConfig]]:
    """The configurations in a type such as ``tuple[A | B, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, FrozenConfig):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _place(loc: tuple[str, ...], name: str, lines: Lines, overrides: Sequence[str]) -> str:
    """The override or the line to blame: that of the key itself, or of the closest key around it.

    Discriminated unions put the chosen tag into the location; it stands in no file and is skipped.
    """
    dotted = ".".join(loc)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if dotted == key or dotted.startswith(key + ".") or (key.startswith(dotted + ".") and loc not in lines):
            return f"--set {_short(override, str)}"
    known: tuple[str, ...] = ()
    for part in loc:
        if (*known, part) in lines:
            known = (*known, part)
    return f"{name}, line {lines[known]}" if known else name
