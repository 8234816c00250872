"""Speaker leakage: how well a linear probe tells who speaks from a few seconds of units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STRENGTH = 1.0


def windows(
    units: Mapping[str, NDArray[np.integer[Any]]], rates: Mapping[str, float], seconds: float
) -> list[dict[str, NDArray[np.integer[Any]]]]:
    """Cut the streams of a clip, of `rates` a second, into pieces of equal time; one that is not full is left out."""
    full = min(int(len(stream) / (rates[name] * seconds)) for name, stream in units.items())
    edges = {name: np.round(np.arange(full + 1) * rates[name] * seconds).astype(int) for name in units}
    return [{name: stream[edges[name][i] : edges[name][i + 1]] for name, stream in units.items()} for i in range(full)]


def histograms(units: Sequence[NDArray[np.integer[Any]]], size: int) -> NDArray[np.float64]:
    """Share of each unit in each piece, float64[pieces, size]; a piece without units is a row of zeros."""
    counts = np.array([np.bincount(piece.astype(np.int64), minlength=size) for piece in units]).reshape(-1, size)
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def speaker_probe(
    features: NDArray[np.float64], speakers: Sequence[str | None], clips: Sequence[str], *, folds: int, seed: int
) -> dict[str, Any]:
    """Balanced accuracy of logistic regression from features to speakers, cross-validated over clips.

    Every piece is judged by a probe that was fitted on other clips, features standardised on these; the accuracy is
    the mean over speakers of the share of their pieces that are recognised, so chance is one over their number.
    Speakers with fewer clips than folds take no part.

    Args:
        features: float64[pieces, D].
        speakers: Who speaks in each piece.
        clips: The clip of each piece; all pieces of a clip are in one fold.
        folds: Folds of the cross-validation.
        seed: Seed of the folds.

    Returns:
        ``accuracy``, ``chance``, ``speakers``, ``pieces``; or ``missing``, why there is no figure.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    usable = _speakers_with(folds, speakers, clips)
    if len(usable) < 2:
        return {"missing": f"fewer than two speakers with {folds} clips"}
    kept = [i for i, name in enumerate(speakers) if name in usable]
    names, groups = np.array([str(speakers[i]) for i in kept]), np.array([clips[i] for i in kept])
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=2000, class_weight="balanced", random_state=seed)
    )
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    guessed = cross_val_predict(probe, features[kept], names, groups=groups, cv=splits)
    accuracy = float(balanced_accuracy_score(names, guessed))
    counts = {"speakers": len(usable), "pieces": len(kept)}
    return {"accuracy": round(accuracy, 4), "chance": round(1 / len(usable), 4), **counts}


def _speakers_with(count: int, speakers: Sequence[str | None], clips: Sequence[str]) -> set[str]:
    """Speakers of at least `count` clips."""
    pieces_of: dict[str, set[str]] = defaultdict(set)
    for speaker, clip in zip(speakers, clips, strict=True):
        if speaker:
            pieces_of[speaker].add(clip)
    return {speaker for speaker, theirs in pieces_of.items() if len(theirs) >= count}
