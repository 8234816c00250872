"""ABX: can minimal pairs of triphones be told apart?

Schatz et al. 2013 ("Evaluating speech features with the minimal-pair ABX task"), with the categories of the ZeroSpeech
challenges (Nguyen et al. 2020, arXiv 2011.11588): triphones that differ in the middle phone alone, such as "bag" and
"beg". A and X are occurrences of one, B of the other; an error is d(X, B) < d(X, A), half an error a tie. Within
speakers all three come from one speaker; across speakers X comes from another one than A and B. Chance is 0.5.

A cell is one ordered pair of phones in one context with fixed speakers; its error is the mean over all its triples.
Cells are averaged over contexts (and speakers of X), then over speakers of A and B, then over pairs of phones.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.evaluate.units.labels import SILENCE, Labels, unit_centres
from spiritlm_core.fit.clips import Clip

Floats = NDArray[np.float64]
FrameDistance = Callable[[NDArray[Any], NDArray[Any]], Floats]
"""Distances float64[P, N, M] between the frames of P pairs of padded sequences [P, N, ...] and [P, M, ...]."""

_CELLS = 400_000  # frame distances held at a time


def warp(distances: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """Mean frame distance along the cheapest path, float64[P] (Sakoe & Chiba 1978, steps (1,1), (1,0), (0,1)).

    The cost of the cheapest path from corner to corner is divided by its number of cells, as usual in ABX; among
    paths of equal cost the shorter one counts.

    Args:
        distances: float64[P, N, M], padded.
        rows: int64[P], length of the first sequence of each pair, 1 to N.
        columns: int64[P], length of the second.
    """
    pairs, height, width = distances.shape
    cost = np.full((height + 1, width + 1, pairs), np.inf)
    length = np.zeros((height + 1, width + 1, pairs))
    cost[0, 0] = 0.0
    for i in range(1, height + 1):
        for j in range(1, width + 1):
            cost[i, j], length[i, j] = _step(cost, length, i, j)
            cost[i, j] += distances[:, i - 1, j - 1]
    index = np.arange(pairs)
    return cost[rows, columns, index] / length[rows, columns, index]


def _step(cost: Floats, length: Floats, i: int, j: int) -> tuple[Floats, Floats]:
    """Cheapest way into cell (i, j) and the cells it has with it; the shorter one on a tie."""
    best, cells = cost[i - 1, j - 1], length[i - 1, j - 1]
    for a, b in ((i - 1, j), (i, j - 1)):
        better = (cost[a, b] < best) | ((cost[a, b] == best) & (length[a, b] < cells))
        best, cells = np.where(better, cost[a, b], best), np.where(better, length[a, b], cells)
    return best, cells + 1


def pair_distances(sequences: Sequence[NDArray[Any]], pairs: NDArray[np.int64], distance: FrameDistance) -> Floats:
    """Warped distance of each pair, float64[P], of int64[P, 2] indices into `sequences`, [N] or [N, D] with N > 0."""
    lengths = np.array([len(sequence) for sequence in sequences])
    result = np.zeros(len(pairs))
    for batch in _batches(lengths[pairs]):
        first, second = pairs[batch].T
        frames = distance(_padded(sequences, first), _padded(sequences, second))
        result[batch] = warp(frames, lengths[first], lengths[second])
    return result


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of similar size together, as many as `_CELLS` allow."""
    order, start = np.lexsort((lengths[:, 1], lengths[:, 0])), 0
    while start < len(order):
        end = start + 1
        area = lengths[order[start]].copy()
        while end < len(order):
            area = np.maximum(area, lengths[order[end]])
            if (end + 1 - start) * area[0] * area[1] > _CELLS:
                break
            end += 1
        yield order[start:end]
        start = end


def _padded(sequences: Sequence[NDArray[Any]], chosen: NDArray[np.int64]) -> NDArray[Any]:
    longest = max(len(sequences[i]) for i in chosen)
    example = sequences[chosen[0]]
    padded = np.zeros((len(chosen), longest, *example.shape[1:]), example.dtype)
    for row, i in enumerate(chosen):
        padded[row, : len(sequences[i])] = sequences[i]
    return padded


def unequal(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """0 for equal units and 1 for others: half the squared distance of one-hot vectors."""
    return (first[:, :, None] != second[:, None, :]).astype(np.float64)


def angular(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """Angle between feature vectors over pi, 0 to 1; vectors of length one are expected."""
    cosine = np.matmul(first.astype(np.float64), second.astype(np.float64).transpose(0, 2, 1))
    return np.arccos(np.clip(cosine, -1.0, 1.0)) / np.pi


Context = tuple[str, str]


@dataclass(frozen=True)
class Token:
    """One occurrence of a triphone: frames ``start <= t < end`` at 25 Hz of one clip."""

    phone: str
    context: Context
    speaker: str
    clip: str
    start: int
    end: int


@dataclass(frozen=True)
class Cell:
    """Indices of tokens: `a` and `b` of one speaker, `x` of the same phone as `a`; `x` is `a` within speakers."""

    phones: tuple[str, str]
    speaker: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    x: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """The tokens and cells of a test; the same for every tokenizer."""

    tokens: tuple[Token, ...]
    cells: Mapping[str, tuple[Cell, ...]]  # "within" and "across"


def make_task(clips: Sequence[Clip], labels: Labels, *, most_cells: int, most_tokens: int, seed: int) -> Task:
    """Draw tokens and cells from held-out clips; those without labels or speaker take no part.

    At most `most_cells` cells are kept, within and across speakers each, and `most_tokens` occurrences of a triphone
    for each speaker.
    """
    rng = np.random.default_rng(seed)
    tokens = _thinned([token for clip in clips for token in _tokens(clip, labels)], most_tokens, rng)
    groups: dict[Context, dict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for index, token in enumerate(tokens):
        groups[token.context][token.phone][token.speaker].append(index)
    cells = {"within": list(_cells(groups, across=False)), "across": list(_cells(groups, across=True))}
    return Task(tuple(tokens), {name: _drawn(found, most_cells, rng) for name, found in cells.items()})


def _drawn(cells: list[Cell], most: int, rng: np.random.Generator) -> tuple[Cell, ...]:
    if len(cells) <= most:
        return tuple(cells)
    return tuple(cells[i] for i in sorted(rng.choice(len(cells), most, replace=False)))


def _tokens(clip: Clip, labels: Labels) -> Iterator[Token]:
    """Triphones of a clip without silence that cover at least one frame."""
    phones = labels.phones.get(clip.key, [])
    centres = unit_centres(len(clip.waveform))
    for before, middle, after in zip(phones, phones[1:], phones[2:], strict=False):
        start, end = np.searchsorted(centres, [before.start, after.end])
        if SILENCE not in (before.name, middle.name, after.name) and clip.speaker and end > start:
            context = (before.name, after.name)
            yield Token(middle.name, context, clip.speaker, clip.key, int(start), int(end))


def _thinned(tokens: list[Token], most: int, rng: np.random.Generator) -> list[Token]:
    """At most `most` tokens of each triphone and speaker."""
    kept: dict[tuple[Context, str, str], list[Token]] = defaultdict(list)
    for i in rng.permutation(len(tokens)):
        same = kept[tokens[i].context, tokens[i].phone, tokens[i].speaker]
        if len(same) < most:
            same.append(tokens[i])
    found = [token for same in kept.values() for token in same]
    return sorted(found, key=lambda token: (token.clip, token.start, token.end))


def _cells(groups: Mapping[Context, Mapping[str, Mapping[str, list[int]]]], *, across: bool) -> Iterator[Cell]:
    for phones in groups.values():
        for first, second in permutations(sorted(phones), 2):
            for speaker in sorted(phones[first].keys() & phones[second].keys()):
                a, b = tuple(phones[first][speaker]), tuple(phones[second][speaker])
                others = sorted(phones[first].keys() - {speaker}) if across else [speaker] if len(a) > 1 else []
                for other in others:
                    yield Cell((first, second), speaker, a, b, tuple(phones[first][other]))


def error_rates(task: Task, frames: Mapping[str, NDArray[Any]], distance: FrameDistance) -> dict[str, float | None]:
    """ABX error within and across speakers, 0 to 1; None where there is no cell.

    `frames`: utterance id → units int[N], or features float[N, D], at 25 Hz.
    """
    sequences = [frames[token.clip][token.start : token.end] for token in task.tokens]
    cells = [cell for group in task.cells.values() for cell in group]
    wanted = sorted({pair for cell in cells for pair in _pairs(cell)})
    if not wanted:
        return dict.fromkeys(task.cells)
    pairs = np.array(wanted)
    distances = dict(zip(wanted, pair_distances(sequences, pairs, distance).tolist(), strict=True))
    return {name: _average(group, distances) for name, group in task.cells.items()}


def _pairs(cell: Cell) -> Iterator[tuple[int, int]]:
    """Pairs (smaller index first) whose distances a cell needs."""
    for x in cell.x:
        yield from ((min(x, other), max(x, other)) for other in (*cell.a, *cell.b) if other != x)


def _average(cells: Sequence[Cell], distances: Mapping[tuple[int, int], float]) -> float | None:
    """Mean over contexts, then speakers, then pairs of phones."""
    if not cells:
        return None
    errors: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        errors[cell.phones][cell.speaker].append(_error(cell, distances))
    by_pair = [np.mean([np.mean(found) for found in speakers.values()]) for speakers in errors.values()]
    return float(np.mean(by_pair))


def _error(cell: Cell, distances: Mapping[tuple[int, int], float]) -> float:
    def of(first: int, second: int) -> float:
        return distances[min(first, second), max(first, second)]

    verdicts = [_verdict(of(x, a), of(x, b)) for x, a, b in product(cell.x, cell.a, cell.b) if x != a]
    return float(np.mean(verdicts))


def _verdict(same: float, other: float) -> float:
    return 0.5 if same == other else float(other < same)
