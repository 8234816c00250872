"""What every task of the suite has in common, and what it is given: a model, and recordings as tokens."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.evaluate.config import SuiteConfig
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.speech.stage import encode_clips
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.tokens.counter import key_of

Tell = Callable[[str], None]  # told what is being done
_FILES_AT_ONCE = 256
T = TypeVar("T")
K = TypeVar("K", bound="Keyed")


class Recordings:
    """Sound files and their speech tokens, for one speech tokenizer; files that sound the same are encoded once."""

    def __init__(self) -> None:
        self._tokens: dict[Path, str | Rejection] = {}
        self._by_sound: dict[bytes, str | Rejection] = {}

    def tokens(self, path: Path) -> str:
        """Speech tokens such as ``[St3][Pi1][Hu7]``. Raises Rejection if the file is no good."""
        tokens = self._tokens[path]
        if isinstance(tokens, Rejection):
            raise tokens
        return tokens

    def refuse(self, paths: Sequence[Path], reason: str) -> None:
        """Give up on files that nothing is known of, all for one reason."""
        self._tokens |= {path: Rejection(reason) for path in paths if path not in self._tokens}

    def encode(self, tokenizer: SpeechTokenizer, paths: Sequence[Path], tell: Tell) -> None:
        """Encode the files that have not been encoded; a file that cannot be is remembered with the reason."""
        missing = [path for path in paths if path not in self._tokens]
        for start in range(0, len(missing), _FILES_AT_ONCE):
            tell(f"recordings: {start} of {len(missing)} encoded")
            self._encode(tokenizer, missing[start : start + _FILES_AT_ONCE])

    def _encode(self, tokenizer: SpeechTokenizer, paths: Sequence[Path]) -> None:
        clips = dict(self._read(paths))
        sounds = {path: blake2b(clip.tobytes(), digest_size=16).digest() for path, clip in clips.items()}
        new = {sound: clips[path] for path, sound in sounds.items() if sound not in self._by_sound}
        self._by_sound |= zip(new, encode_clips(tokenizer, list(new.values())), strict=True)
        for path, sound in sounds.items():
            tokens = self._by_sound[sound]
            self._tokens[path] = Rejection(f"{path}: {tokens}") if isinstance(tokens, Rejection) else tokens

    def _read(self, paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray]]:
        for path in paths:
            try:
                yield path, as_waveform(path)
            except SpiritLMError as problem:
                reason = str(problem)
                self._tokens[path] = Rejection(reason if reason.startswith(str(path)) else f"{path}: {reason}")


@dataclass(frozen=True)
class Skipped:
    """Something that cannot be scored, and why."""

    key: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """JSON-able."""
        return {"pair": self.key, "reason": self.reason}


class Keyed(Hashable, Protocol):
    """A row of a test set, which has a name."""

    @property
    def key(self) -> str:
        """Names it within its task."""


def usable(rows: Iterable[K], make: Callable[[K], T]) -> tuple[dict[K, T], list[Skipped]]:
    """What `make` makes of each row, and those that it refuses, with the reason."""
    made, skipped = dict[K, T](), list[Skipped]()
    for row in rows:
        try:
            made[row] = make(row)
        except (Rejection, SpiritLMError) as problem:
            skipped.append(Skipped(row.key, str(problem)))
    return made, skipped


@dataclass(frozen=True)
class Bench:
    """A model, and how it is measured."""

    spirit: SpiritLM
    heard: Recordings  # the speech tokens of all recordings of the tasks
    config: SuiteConfig  # what is asked
    batch_size: int = 8  # answers written at once
    tell: Tell = lambda _: None  # told of progress

    @property
    def draws(self) -> dict[str, int]:
        """Resamples and seed of every bootstrap."""
        return {"samples": self.config.bootstrap_samples, "seed": self.config.seed}


@dataclass(frozen=True)
class SuiteTask(ABC):
    """A task: a test set in a folder."""

    name: str  # as the user calls it
    layout: str  # how its folder is laid out
    folder: Path  # where it was read from
    skipped: tuple[Skipped, ...] = field(default=(), kw_only=True)  # what looked like an entry and is none

    counted: ClassVar[str] = ""  # the field that holds its questions
    drawn_by: ClassVar[str] = "key"  # what of a question says with which others it is drawn

    @property
    def entries(self) -> int:
        """How many questions it has, as far as that is known."""
        return len(getattr(self, self.counted, ()))

    @abstractmethod
    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """What :meth:`measure` makes, for each way of asking."""

    def drawn(self, limit: int | None, seed: int) -> Self:
        """With at most `limit` items, drawn by `seed` and the items alone."""
        rows, by = getattr(self, self.counted), attrgetter(self.drawn_by)
        kept = set(sorted(set(map(by, rows)), key=lambda name: key_of(seed, self.name, name))[:limit])
        chosen: dict[str, Any] = {self.counted: tuple(row for row in rows if by(row) in kept)}
        return replace(self, **chosen)

    def recordings(self) -> list[Path]:
        """Its sound files."""
        return []

    def measure(
        self,
        direction: str,
        items: int,
        figures: Iterable[Mapping[str, Any]],
        skipped: Iterable[Skipped],
        **more: Any,
    ) -> dict[str, Any]:
        """A way of asking the task, measured; JSON-able. `more` is kept in the JSON, and not in the table.

        `offered` in it says as what the task is offered to people, see :mod:`spiritlm_core.metrics.verdicts`.
        """
        return {
            "task": self.name,
            "direction": direction,
            "layout": self.layout,
            "items": items,
            "figures": [dict(one) for one in figures],
            "kinds": {},
            "skipped": [one.to_dict() for one in (*self.skipped, *skipped)],
            **more,
        }


def figure(
    metric: str,
    value: Estimate,
    *,
    chance: float | None = None,
    trivial: Mapping[str, float] | None = None,
    ceiling: float | None = None,
    lower: bool = False,
    published: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One figure, a share or an error rate (then `lower` is better), and what to compare it with; JSON-able.

    `chance` is what guessing evenly reaches, `trivial` what answers reach that need no model, or no question, of which
    the best one is shown, `ceiling` what whoever judges makes of right answers, `published` figures of others in per
    cent. `beats_trivial` says whether the interval lies beyond chance and the best trivial answer; None if nothing is
    known.
    """
    best = min if lower else max
    rates = {name: rate for name, rate in (trivial or {}).items() if np.isfinite(rate)}
    name = best(rates, key=rates.__getitem__, default=None)
    bars = [bar for bar in (chance, rates[name] if name else None) if bar is not None]
    beats = (value.high < min(bars) if lower else value.low > max(bars)) if bars and np.isfinite(value.low) else None
    return {
        "metric": metric,
        **value.to_dict("value"),
        "chance": chance,
        "trivial": rates.get(name) if name else None,
        "trivial_answer": name,
        "trivials": rates,
        "beats_trivial": beats,
        "ceiling": ceiling if ceiling is not None and np.isfinite(ceiling) else None,
        "better": "lower" if lower else "higher",
        "published": dict(published or {}),
    }


def summed_by(items: Iterable[str], values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """For a bootstrap over items: the sum of the values of each, float64[I], and how many it has, int64[I].

    There is an item for each of the float[N] `values`; ``""`` is an item of its own.
    """
    groups = grouped_by(item or f"\0{number}" for number, item in enumerate(items)).values()
    numbers = np.asarray(values, np.float64)
    return np.array([numbers[group].sum() for group in groups]), np.array([len(group) for group in groups], np.int64)


def grouped_by(keys: Iterable[str]) -> dict[str, list[int]]:
    """Key → positions, in order of first sight."""
    positions: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        positions[key].append(index)
    return dict(positions)
