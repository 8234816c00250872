"""Conditions on columns, such as ``duration > 5 and text ~ hello``, as SQL whose values are bound, never pasted."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.explore.duck import quoted

COMPARISONS = {
    "=": "{0} = ?",
    "==": "{0} = ?",  # as the filters of a recipe have it
    "!=": "{0} IS DISTINCT FROM ?",
    "<=": "{0} <= ?",
    ">=": "{0} >= ?",
    "<": "{0} < ?",
    ">": "{0} > ?",
    "~": "contains(lower({0}::VARCHAR), lower(?))",
    "!~": "NOT contains(lower(coalesce({0}::VARCHAR, '')), lower(?))",
    "is empty": "{0} IS NULL",
    "is not empty": "{0} IS NOT NULL",
}
"""What a condition says → SQL of the column and the value; ``~`` finds a part of a text, whatever its case."""

_COMPARED = r"(\w+)\s*(is\s+not\s+empty|is\s+empty|[<>!=]=|!~|[=~<>])"
_CONDITION = re.compile(
    rf"""\s*{_COMPARED}\s*("[^"]*"|'[^']*'|.*?)\s*(?:$|(?<=\s)and\s+(?={_COMPARED}))""", re.DOTALL | re.IGNORECASE
)
_NUMBERS = ("INT", "DOUBLE", "FLOAT", "DECIMAL")


@dataclass(frozen=True)
class Column:
    """A column as a question sees it."""

    name: str
    type: str  # as DuckDB calls it

    @property
    def sql(self) -> str:
        """Its value."""
        return quoted(self.name)

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers."""
        return any(part in self.type for part in _NUMBERS)

    def value(self, text: str) -> Any:
        """What a condition compares it with. Raises SpiritLMError if it is none of its kind."""
        if self.type == "BOOLEAN":
            if text.lower() not in ("true", "false"):
                raise SpiritLMError(f"{self.name} is true or false, and {text!r} is neither")
            return text.lower() == "true"
        if not self.numeric:
            return text
        with suppress(ValueError):
            if isfinite(number := float(text)):
                return number
        raise SpiritLMError(f"{self.name} is a number, and {text!r} is none")


def where(text: str, columns: Mapping[str, Column]) -> tuple[str, list[Any]]:
    """The SQL of conditions joined by ``and``, and its values; of an empty text it is ``true``.

    Raises SpiritLMError: one cannot be read, or names no column of `columns`.
    """
    parts: list[str] = []
    values: list[Any] = []
    start = 0
    while text[start:].strip():
        found = _CONDITION.match(text, start)
        if found is None:
            known = ", ".join(COMPARISONS)
            raise SpiritLMError(
                f"{text[start:].strip()!r} is no condition: write a column, one of {known}, and a value"
            )
        part, compared = _condition(found, columns)
        parts, values, start = [*parts, part], [*values, *compared], found.end()
    return " AND ".join(parts) or "true", values


def _condition(found: re.Match[str], columns: Mapping[str, Column]) -> tuple[str, list[Any]]:
    name, comparison, given = found[1], " ".join(found[2].lower().split()), found[3]
    name = name if name in columns else name.lower()  # telephones begin with a capital
    if name not in columns:
        raise SpiritLMError(f"there is no column {name!r}; there are {', '.join(columns)}")
    column, sql = columns[name], COMPARISONS[comparison]
    if "?" not in sql:
        if given:
            raise SpiritLMError(f"{given!r} stands behind {comparison!r}, which takes no value")
        return sql.format(column.sql), []
    if not given:
        raise SpiritLMError(f"a value is missing behind {name} {comparison}")
    if given[0] in "<>=~":
        raise SpiritLMError(
            f"{comparison} {given} is no comparison; a value that begins with {given[0]} stands in quotes"
        )
    if len(given) > 1 and given[0] == given[-1] and given[0] in "'\"":
        given = given[1:-1]
    return sql.format(column.sql), [given if "~" in comparison else column.value(given)]
