"""Tasks made of pairs: how often the good side is the more likely one, and what others have published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.suite.pairs import DIRECTIONS, Direction, Pair, Side, content_of
from spiritlm_core.evaluate.suite.task import Bench, Recordings, Skipped, SuiteTask, figure, grouped_by, usable
from spiritlm_core.lm.generate.fewshot import Judged, judged, log_likelihoods
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.bootstrap import Estimate, ratio

CHANCE = 0.5
_ROUNDING = 1e-6  # of float32, relative: sides that are nearer to each other are equally likely


@dataclass(frozen=True)
class PairTask(SuiteTask):
    """A task made of `pairs`, in the order of the folder."""

    counted: ClassVar[str] = "pairs"
    drawn_by: ClassVar[str] = "item"
    pairs: tuple[Pair, ...] = ()

    @property
    def directions(self) -> list[Direction]:
        """Those that at least one pair has the forms for."""
        return [direction for direction in DIRECTIONS if any(pair.has(direction) for pair in self.pairs)]

    def recordings(self) -> list[Path]:
        """Its sound files."""
        sides = (side for pair in self.pairs for side in (pair.prefix, pair.good, pair.bad) if side)
        return [side.audio for side in sides if side.audio is not None]

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """Accuracy in each direction, by sums and by means of log-likelihoods."""
        for direction in self.directions:
            bench.tell(f"{self.name} {direction.name}")
            yield self._measure(direction, score(bench.spirit, self.pairs, direction, bench.heard), bench.draws)

    def _measure(self, direction: Direction, scores: Scores, draws: Mapping[str, int]) -> dict[str, Any]:
        verdicts = {
            "sum": preferred(scores.sums),
            "mean": preferred(scores.means),
            "shorter": preferred(-scores.tokens.astype(float)),
        }
        flat = _figures(verdicts, scores.pairs, range(len(scores.pairs)), draws)
        others = published(self.name, self.layout, direction.name)
        return {
            **self.measure(direction.name, flat["items"], _shown(flat, others), scores.skipped),
            **flat,
            "kinds": _kinds(verdicts, scores.pairs, draws),
            "published": others,
        }


def _shown(flat: Mapping[str, Any], others: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    trivial = {"shorter": flat["shorter"]} if flat["items"] else {}
    for name in ("sum", "mean"):
        value = Estimate(*(np.nan if flat[key] is None else flat[key] for key in (name, f"{name}_low", f"{name}_high")))
        yield figure(f"accuracy, {name}", value, chance=CHANCE, trivial=trivial, published=others)


def _kinds(verdicts: Mapping[str, np.ndarray], pairs: Sequence[Pair], draws: Mapping[str, int]) -> dict[str, Any]:
    """The figures of each class of pairs, if there are several."""
    members = grouped_by(pair.kind for pair in pairs)
    if len(members) < 2:
        return {}
    return {kind or "other": _figures(verdicts, pairs, chosen, draws) for kind, chosen in sorted(members.items())}


def _figures(
    verdicts: Mapping[str, np.ndarray], pairs: Sequence[Pair], chosen: Iterable[int], draws: Mapping[str, int]
) -> dict[str, Any]:
    """Accuracies over the chosen pairs: those of one item are averaged first, and items are resampled."""
    indices = np.array(list(chosen), int)
    members = [indices[group] for group in grouped_by(pairs[index].item for index in indices).values()]
    figures: dict[str, Any] = {"items": len(members), "pairs": len(indices), "chance": CHANCE}
    for name, values in verdicts.items():
        by_item = [float(values[group].mean()) for group in members]
        estimate = ratio(by_item, [1] * len(by_item), **draws)
        figures |= estimate.to_dict(name)
    ties = {name: int(np.count_nonzero(verdicts[name][indices] == 0.5)) for name in ("sum", "mean")}
    return {**figures, "ties": ties}


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of the pairs that could be scored."""

    pairs: tuple[Pair, ...]  # these pairs, P of them
    sums: np.ndarray  # float64[P, 2], log-likelihood in nats of the good and of the bad side, summed over tokens
    tokens: np.ndarray  # int64[P, 2], how many tokens they have
    skipped: tuple[Skipped, ...]

    @property
    def means(self) -> np.ndarray:
        """float64[P, 2], the same by the number of tokens."""
        return self.sums / self.tokens


def preferred(values: np.ndarray) -> np.ndarray:
    """1 where the first of two is larger, 0.5 where both are equal but for rounding, else 0: float64[P] of [P, 2]."""
    good, bad = values[:, 0], values[:, 1]
    return np.where(np.isclose(good, bad, rtol=_ROUNDING, atol=0), 0.5, (good > bad).astype(float))


def score(spirit: SpiritLM, pairs: Sequence[Pair], direction: Direction, recordings: Recordings) -> Scores:
    """Log-likelihoods of both sides of each pair, in the forms of `direction`.

    The marker in front of a side is given, not judged; so is the prefix, see
    :func:`spiritlm_core.lm.generate.fewshot.judged`.
    """

    def both(pair: Pair) -> list[Judged]:
        return [_sequence(spirit, pair, side, direction, recordings) for side in (pair.good, pair.bad)]

    kept, skipped = usable(pairs, both)
    sides = [side for judged_sides in kept.values() for side in judged_sides]
    sums = log_likelihoods(spirit, sides).reshape(-1, 2)
    tokens = np.array([len(side.answer) for side in sides], np.int64).reshape(-1, 2)
    return Scores(tuple(kept), sums, tokens, tuple(skipped))


def _sequence(spirit: SpiritLM, pair: Pair, side: Side, direction: Direction, recordings: Recordings) -> Judged:
    layout = spirit.layout
    parts: list[tuple[Kind, str]] = []
    if pair.prefix is not None:
        parts.append((direction.prefix, content_of(layout, pair.prefix, direction.prefix, recordings)))
    elif direction.crosses:
        raise Rejection("nothing stands in front of the sides")
    content = content_of(layout, side, direction.sides, recordings)
    return judged(spirit, parts, direction.sides, content)


_BASE, _EXPRESSIVE = "Spirit LM Base 7B", "Spirit LM Expressive 7B"

# arXiv 2402.05755, as quoted in arXiv 2502.15814; speech alone
_SPEECH = {"sblimp": 58.3, "storycloze": 61.0, "topicstorycloze": 82.9}

# the leaderboard of SALMon, arXiv 2409.07437
_SALMON = {
    "bg_alignment": (51.5, 59.5),
    "bg_all_consistency": (55.5, 64.0),
    "bg_domain_consistency": (53.5, 55.0),
    "gender_consistency": (67.0, 85.0),
    "rir_consistency": (54.5, 54.5),
    "sentiment_alignment": (48.0, 52.0),
    "sentiment_consistency": (54.5, 73.5),
    "speaker_consistency": (69.5, 81.0),
}
_ALIASES = {
    "sstorycloze": "storycloze",
    "ssc": "storycloze",
    "tstorycloze": "topicstorycloze",
    "tsc": "topicstorycloze",
}


def published(task: str, layout: str, direction: str) -> dict[str, float]:
    """Published accuracy in per cent by model; empty where none is known, and for every set of one's own.

    A part of SALMon is known by what follows the last ``/`` of the task's name.
    """
    if direction != "S" or layout == "pairs.jsonl":
        return {}
    if layout == "SALMon":
        return dict(zip((_BASE, _EXPRESSIVE), _SALMON.get(task.rpartition("/")[2], ()), strict=False))
    plain = "".join(letter for letter in task.lower() if letter.isalnum())
    rates = _SPEECH.get(_ALIASES.get(plain, plain))
    return {} if rates is None else {_BASE: rates}
