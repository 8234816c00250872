"""The contract of a stage: what it reads, what it writes, and the pure function between them.

A :class:`TableStage` maps aligned input shards to one output shard. An :class:`ArtifactStage` reads whole
tables and builds one artifact (a fitted model, a report). Neither knows where the lake is, what Prefect
or Ray are, or on which machine it runs.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import pyarrow as pa

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import attempt
from spiritlm_core.lake.schema import Row, rejected
from spiritlm_core.lake.view import TableView

T = TypeVar("T")


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage wants from the scheduler; `num_gpus` may be fractional."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass(frozen=True)
class TableInput:
    """A table that a stage reads; ``columns=None`` reads all of them.

    An `optional` one is left out by recipes that do not make it.
    """

    table: str
    columns: tuple[str, ...] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Output:
    """Something of an artifact that people look at when a run has ended."""

    name: str  # under which the result of the run has it
    file: str | None = None  # of the artifact; None: all of them
    # where it is copied to below ``outputs/RECIPE/``; None: the result holds what the file says, as JSON
    path: str | None = None


NOTE = "note:"
"""A message of :data:`Progress` that begins so is for people to keep: it is printed, not only shown for a while."""


Progress = Callable[[float, str], None]
"""Called now and then with the fraction done (0 to 1) and a short line on what is happening."""


def silent(fraction: float, message: str) -> None:
    """The progress that nobody hears of."""


def noting(progress: Callable[[float, str], None]) -> Callable[[str], None]:
    """Tells `progress` what people should keep."""
    return lambda message: progress(0.0, f"{NOTE} {message}")


def within(progress: Callable[[float, str], None], start: float, end: float) -> Progress:
    """Tells `progress` of a part of the work, which takes it from `start` to `end`."""
    return lambda fraction, message: progress(start + (end - start) * fraction, message)


class TableStage(ABC):
    """A pure function from aligned shards to one shard of the table called `name`.

    Results may depend on the arguments of the constructor and the input rows alone: not on the order of
    shards, the number of workers, the clock or a global random state. Every input row stays a row.
    """

    name: ClassVar[str]
    about: ClassVar[str]  # a line on what it makes, for people
    version: ClassVar[int]
    inputs: ClassVar[tuple[TableInput, ...]]
    schema: ClassVar[pa.Schema]
    aligned: ClassVar[bool] = True  # one output row for every row of the first input
    resources: ClassVar[Resources] = Resources()

    def __init__(self, config: FrozenConfig, models: Mapping[str, Path]) -> None:
        """`models` maps a role (``"hubert"``) to a local folder or file with that model."""
        self.config = config
        self.models = models
        self.progress: Progress = silent

    def counted(self, rows: Sequence[T]) -> Iterator[T]:
        """`rows`, one after the other, while it is told how far the shard is, about once a second."""
        told = time.monotonic()
        for number, row in enumerate(rows):
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                self.progress(number / len(rows), "")
            yield row

    def tried(self, row: Row, work: Callable[[], Row]) -> Row:
        """`row` with what `work` makes of it, or rejected with the reason; errors of the machine are raised."""
        made = attempt(work)
        return rejected(row, self.name, made) if isinstance(made, Exception) else {**row, **made}

    def setup(self) -> None:  # noqa: B027 - a stage without models has nothing to set up
        """Load models; called once per worker, before the first shard."""

    @abstractmethod
    def process(self, *tables: pa.Table) -> pa.Table:
        """Compute the output rows of one shard from its input tables, in the order of `inputs`."""


class ArtifactStage(ABC):
    """Builds one artifact from whole tables: a fitted model, a trained model, a report."""

    name: ClassVar[str]
    about: ClassVar[str]  # a line on what it makes, for people
    version: ClassVar[int]
    inputs: ClassVar[tuple[TableInput, ...]]
    outputs: ClassVar[tuple[Output, ...]] = ()
    pinned: ClassVar[bool] = False  # built once per recipe, and kept when the corpus grows
    processes: ClassVar[Literal["units", "training"] | None] = None  # section of `compute` on processes of its own
    shared: ClassVar[bool] = True  # whether several of these can build it together
    resources: ClassVar[Resources] = Resources()

    def __init__(self, config: FrozenConfig, models: Mapping[str, Path]) -> None:
        """`models` maps a role to a local folder or file with that model."""
        self.config = config
        self.models = models

    @abstractmethod
    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Write the artifact's files below `out` (an empty folder) and return a small JSON-able summary.

        `work` survives a kill: checkpoints put there let the next attempt resume. It is deleted once the
        artifact is committed.
        """

    @classmethod  # noqa: B027 - few stages have anything to check
    def check(cls, tables: Mapping[str, TableView], say: Callable[[str], None]) -> None:
        """Look at the tables before the build: raise what makes it pointless, and say what it will lack."""
