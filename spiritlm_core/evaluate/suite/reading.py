"""Files of test sets: texts, tables, and JSON lines of which bad ones are skipped with a reason."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from spiritlm_core.errors import Rejection, SourceError
from spiritlm_core.evaluate.suite.task import Skipped

Row = Mapping[str, str]
_T = TypeVar("_T")


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without a byte order mark. Raises SourceError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read as text: {error}") from error


def read_table(path: Path, needed: Iterable[str]) -> list[Row]:
    """The rows of a CSV table, column → value; ``""`` where a row is too short.

    Raises:
        SourceError: it cannot be read, or lacks a column of `needed`.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)), restval="")
    try:
        columns = reader.fieldnames or ()
        if missing := [column for column in needed if column not in columns]:
            raise SourceError(f"{path}: no column {missing[0]!r}; it has {', '.join(columns) or 'none'}")
        return list(reader)
    except csv.Error as error:
        raise SourceError(f"{path}: cannot be read as a table: {error}") from error


def read_lines(path: Path, parse: Callable[[dict[str, Any], int], _T]) -> tuple[list[_T], list[Skipped]]:
    """What `parse` makes of the JSON object in each line and its number from 1, and the lines that are none.

    Args:
        path: a file of JSON lines; empty lines are passed over.
        parse: raises Rejection for an object that is not what it should be.

    Raises:
        SourceError: the file cannot be read.
    """
    found, skipped = [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                found.append(parse(_object(line), number))
            except Rejection as problem:
                skipped.append(Skipped(f"{path.name}:{number}", f"{path.name}, line {number}: {problem}"))
    return found, skipped


def _object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Rejection(f"no JSON: {error}") from error
    if not isinstance(row, dict):
        raise Rejection("no JSON object")
    return row
