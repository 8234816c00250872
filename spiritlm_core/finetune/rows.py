"""A row of a user's data set: its texts, where its recordings are, and to which split it belongs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from spiritlm_core.finetune.config import SplitConfig
from spiritlm_core.split import draw_split

TASK_ROWS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("place", pa.int64()),  # line or row in its file, from 1
        pa.field("split", pa.string()),  # where a column says it
        pa.field("texts", pa.string()),  # JSON: field → text
        pa.field("recordings", pa.string()),  # JSON: field → where the recording is, see `Recording`
        pa.field("size", pa.int64()),  # bytes of audio
        pa.field("error", pa.string()),  # why the row cannot be used
    ]
)
"""Input rows of :class:`spiritlm_core.finetune.stage.TaskUnitsStage`."""


@dataclass(frozen=True)
class Recording:
    """Where the speech of one field is: in a file, in a column of the data file, or given as speech tokens."""

    uri: str | None = None
    column: str | None = None
    tokens: str | None = None
    sha256: str | None = None

    @property
    def content(self) -> str:
        """Identifies what is said."""
        return str(self.sha256 or self.tokens)


@dataclass(frozen=True)
class TaskRow:
    """One row; see `TASK_ROWS`. `key` covers all that its example is made from, never a path or a time."""

    key: str
    name: str
    source_uri: str
    place: int
    split: str | None = None
    texts: str = "{}"
    recordings: str = "{}"
    size: int = 0
    error: str | None = None

    @property
    def sha256(self) -> str:
        """Orders rows by content."""
        return self.key

    @property
    def start(self) -> float:
        """Where it stands in its file."""
        return float(self.place)

    @property
    def end(self) -> None:
        """Rows have no end."""

    @property
    def cost(self) -> int:
        """Bytes of audio to work through."""
        return self.size

    def text_fields(self) -> dict[str, str]:
        """Field → text."""
        texts: dict[str, str] = json.loads(self.texts)
        return texts

    def recording_fields(self) -> dict[str, Recording]:
        """Field → where the recording is."""
        return {field: Recording(**where) for field, where in json.loads(self.recordings).items()}


def commonest(reasons: Mapping[str, int], most: int = 3) -> str:
    """Why rows were rejected, on one line: the commonest reasons and how often each was met."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} times: {reason}" for reason, count in ranked[:most]]
    return "; ".join([*told, *([f"and {len(ranked) - most} other reasons"] if ranked[most:] else [])])


def split_of(key: str, said: str | None, config: SplitConfig) -> str:
    """Either "train" or "held_out": what the data says, else drawn from the row's content alone."""
    return draw_split(key, config.salt, config.held_out_share) if said is None else said
