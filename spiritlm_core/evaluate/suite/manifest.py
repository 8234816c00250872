"""A task as JSON lines, one pair a line: the plain layout of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spiritlm_core.errors import Rejection, SourceError
from spiritlm_core.evaluate.suite.pairs import Pair, Side, Task
from spiritlm_core.evaluate.suite.task import Skipped

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
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    pairs, skipped = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                pairs.append(_pair(line, number, folder))
            except Rejection as problem:
                skipped.append(Skipped(f"line {number}", f"{MANIFEST}, line {number}: {problem}"))
    return [Task(name, "pairs.jsonl", folder, tuple(pairs), tuple(skipped))]


def _pair(line: str, number: int, folder: Path) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Rejection(f"no JSON: {error}") from error
    if not isinstance(row, dict):
        raise Rejection("not an object with good and bad")
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
