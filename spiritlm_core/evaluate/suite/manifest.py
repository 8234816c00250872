"""A task as JSON lines, one pair a line: the plain layout of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.suite.pairs import Pair, Side, Task
from spiritlm_core.evaluate.suite.reading import read_lines

MANIFEST = "pairs.jsonl"
_FORMS = {"text", "audio"}


def read_manifest(name: str, folder: Path) -> list[Task]:
    """The task of ``pairs.jsonl``; nothing if there is none. A line that is no pair is skipped with a reason.

    Raises:
        SourceError: the file cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return []
    pairs, skipped = read_lines(path, lambda row, number: _pair(row, number, folder))
    return [Task(name, MANIFEST, folder, tuple(pairs), tuple(skipped))]


def _pair(row: dict[str, Any], number: int, folder: Path) -> Pair:
    key = str(row.get("id", number))
    prefix = None if row.get("prefix") is None else _side(row["prefix"], "prefix", folder)
    good, bad = (_side(row.get(field), field, folder) for field in ("good", "bad"))
    return Pair(key, good, bad, prefix, str(row.get("kind", "")), str(row.get("item", key)))


def _side(value: Any, field: str, folder: Path) -> Side:
    if not isinstance(value, dict) or not value.keys() & _FORMS:
        raise Rejection(f'{field} is not an object such as {{"text": …, "audio": …}}')
    if wrong := [form for form in _FORMS & value.keys() if not isinstance(value[form], str)]:
        raise Rejection(f"{field}: {wrong[0]} is not a string")
    text, audio = value.get("text"), value.get("audio")
    if audio is not None and audio.startswith("["):
        return Side(text, None, audio)
    return Side(text, None if audio is None else folder / audio)
