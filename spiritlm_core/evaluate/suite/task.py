"""What every task of the suite has in common, and what it is given: a model, and recordings as tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.evaluate.suite.config import SuiteConfig
from spiritlm_core.metrics.bootstrap import Estimate

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

Tell = Callable[[str], None]
"""Told what is being done."""

_FILES_AT_ONCE = 256


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
        from spiritlm_core.speech.stage import encode_clips

        clips = dict(self._read(paths))
        sounds = {path: blake2b(clip.tobytes(), digest_size=16).digest() for path, clip in clips.items()}
        new = {sound: clips[path] for path, sound in sounds.items() if sound not in self._by_sound}
        self._by_sound |= zip(new, encode_clips(tokenizer, list(new.values())), strict=True)
        for path, sound in sounds.items():
            tokens = self._by_sound[sound]
            self._tokens[path] = Rejection(f"{path}: {tokens}") if isinstance(tokens, Rejection) else tokens

    def _read(self, paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray]]:
        from spiritlm_core.audio.waveform import as_waveform

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


@dataclass(frozen=True)
class Bench:
    """A model, and how it is measured.

    Attributes:
        spirit: the model.
        heard: the speech tokens of all recordings of the tasks.
        config: what is asked.
        batch_size: answers written at once.
        tell: told of progress.
    """

    spirit: SpiritLM
    heard: Recordings
    config: SuiteConfig
    batch_size: int = 8
    tell: Tell = lambda _: None

    @property
    def draws(self) -> dict[str, int]:
        """Resamples and seed of every bootstrap."""
        return {"samples": self.config.bootstrap_samples, "seed": self.config.seed}


@dataclass(frozen=True)
class SuiteTask(ABC):
    """A task: a test set in a folder.

    Attributes:
        name: as the user calls it.
        layout: how its folder is laid out.
        folder: where it was read from.
        skipped: what looked like an entry and is none.
    """

    name: str
    layout: str
    folder: Path
    skipped: tuple[Skipped, ...] = field(default=(), kw_only=True)

    @property
    @abstractmethod
    def entries(self) -> int:
        """How many questions it has."""

    @abstractmethod
    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """What :meth:`measure` makes, for each way of asking."""

    def drawn(self, limit: int | None, seed: int) -> Self:
        """With at most `limit` items, drawn by `seed` and the items alone."""
        del limit, seed
        return self

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
    """One figure with its interval, and what to compare it with; JSON-able.

    `beats_trivial` says whether the interval lies beyond chance and the best trivial answer; None if nothing is known.

    Args:
        metric: what is measured.
        value: a share, or an error rate.
        chance: what guessing evenly reaches.
        trivial: name → what an answer reaches that needs no model, or no question. The best one is shown.
        ceiling: what whoever judges makes of right answers.
        lower: whether less is better, as of error rates.
        published: model → figure of others in per cent.
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

    Args:
        items: of each value; ``""`` is an item of its own.
        values: float[N].
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
