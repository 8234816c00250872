"""Loss of a language model on held-out documents, per stream, beside a unigram baseline.

Every document is scored on its own, nothing in front of it. One longer than the context is cut into windows
that share one token, so that every token but the first of the document is predicted exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.answers import Evaluated
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.fewshot import predict
from spiritlm_core.lm.model.folder import is_own
from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.texts import TextPlanner, Texts
from spiritlm_core.tokens.vocabulary import Vocabulary

SMOOTHING = (1.0, 0.5, 0.1, 0.05, 0.01)
"""Candidates for the additive constant, Lidstone's law (Manning & Schütze 1999, section 6.2.2)."""


@dataclass(frozen=True)
class Unigram:
    """Counts of token ids, int64[V]; additive smoothing turns them into probabilities over `support`."""

    counts: np.ndarray  # int64[V] occurrences in the train documents of one stream
    support: np.ndarray  # bool[V] ids that can occur; the smoothing mass is spread over these alone

    @classmethod
    def fit(cls, documents: Iterable[np.ndarray], support: np.ndarray) -> Unigram:
        """Count the ids of all documents that lie in `support`."""
        counts = np.zeros(len(support), dtype=np.int64)
        for ids in documents:
            counts += np.bincount(ids, minlength=len(support))
        return cls(np.where(support, counts, 0), support)

    def nats(self, smoothing: float) -> np.ndarray:
        """float64[V] negative log probability of each id; infinite outside the support."""
        weights = np.where(self.support, self.counts + smoothing, 0.0)
        with np.errstate(divide="ignore"):
            nats: np.ndarray = -np.log(weights / weights.sum())
        return nats

    def best_smoothing(self, held_out: np.ndarray) -> float:
        """The candidate under which the held-out ids, int[N], are most likely.

        Choosing it on the very data it is measured on favours the baseline, never the model.
        """
        return min(SMOOTHING, key=lambda constant: float(self.nats(constant)[held_out].sum()))


@dataclass(frozen=True)
class Scored:
    """The predicted tokens of one document, and what each of them cost."""

    ids: np.ndarray  # int64[N] every token of the document but its first, or those that its loss counts
    nats: np.ndarray  # float64[N] negative log probability of each under the model


def score(model: Any, documents: Sequence[Document], length: int) -> list[Scored]:
    """Score each document in windows of at most `length` tokens; of one of examples, what its loss counts."""
    windows = [(index, window) for index, one in enumerate(documents) for window in _windows(one.ids, length)]
    parts: list[list[np.ndarray]] = [[] for _ in documents]
    for (index, _), predicted in zip(windows, predict(model, [window for _, window in windows]), strict=True):
        parts[index].append(predicted.nats)
    joined = [np.concatenate(nats) if nats else np.empty(0) for nats in parts]
    return [_counted(document, nats) for document, nats in zip(documents, joined, strict=True)]


def _counted(document: Document, nats: np.ndarray) -> Scored:
    kept = nats if document.predicted is None else nats[document.predicted[1:]]
    return Scored(document.targets.astype(np.int64), kept)


def _windows(ids: np.ndarray, length: int) -> Iterator[np.ndarray]:
    for start in range(0, max(len(ids) - 1, 0), length - 1):
        yield np.asarray(ids[start : start + length], dtype=np.int64)


def kinds(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Of each id, int[N]: "text", "speech" or "marker" ([Text], [Speech] and the ends of documents)."""
    named = np.where(np.asarray(vocabulary.is_speech(ids)), "speech", "text").astype("U6")
    ends = [end for end in (vocabulary.bos, vocabulary.eos) if end is not None]
    named[np.isin(ids, [vocabulary.text_marker, vocabulary.speech_marker, *ends])] = "marker"
    return named


def stream_metrics(
    scored: Sequence[Scored],
    train: Iterable[np.ndarray],
    vocabulary: Vocabulary,
    *,
    samples: int,
    seed: int,
    within: str,
) -> dict[str, Any]:
    """Loss, baseline and gain of the held-out documents of one stream, as flat entries.

    From `train`, the predicted tokens of its train documents, int[N] each, the unigram baseline is counted. `within` is
    "" for all tokens, or "text" or "speech" for the tokens of that kind alone: then the baseline knows the kind of
    every token beforehand, which the model has to find out.
    """
    everything = kinds(np.arange(vocabulary.size), vocabulary)
    support = everything == within if within else np.ones(vocabulary.size, dtype=bool)
    chosen = [_within(document, support) for document in scored]
    unigram = Unigram.fit(train, support)
    smoothing = unigram.best_smoothing(np.concatenate([d.ids for d in chosen] or [np.empty(0, np.int64)]))
    costs = unigram.nats(smoothing)
    return {
        **_figures(chosen, [costs[document.ids] for document in chosen], samples=samples, seed=seed),
        "baseline_smoothing": smoothing,
        "baseline_train_tokens": int(unigram.counts.sum()),
    }


def _within(document: Scored, support: np.ndarray) -> Scored:
    keep = support[document.ids]
    return Scored(document.ids[keep], document.nats[keep])


def _figures(scored: Sequence[Scored], baseline: Sequence[np.ndarray], *, samples: int, seed: int) -> dict[str, Any]:
    tokens = np.array([len(document.ids) for document in scored])
    bits = np.array([document.nats.sum() for document in scored]) / math.log(2)
    base = np.array([costs.sum() for costs in baseline]) / math.log(2)
    loss, floor, gain = (ratio(sums, tokens, samples=samples, seed=seed) for sums in (bits, base, base - bits))
    return {
        "nats_per_token": round(loss.value * math.log(2), 6) if math.isfinite(loss.value) else None,
        **loss.to_dict("bits_per_token"),
        **floor.to_dict("baseline_bits_per_token"),
        **gain.to_dict("gain_bits"),
        "beats_baseline": bool(gain.low > 0),
        "tokens": int(tokens.sum()),
        "documents": int(np.count_nonzero(tokens)),
    }


def text_metrics(evaluated: Evaluated, view: TableView, base: Path | None, config: EvaluateConfig) -> dict[str, Any]:
    """Figures of the held-out documents of a `text` table: ``documents`` of the model, ``documents.base`` of the base.

    Nothing where none is held out. Arguments and errors are those of the stage.
    """
    seed = config.seed
    held_out = text_documents(evaluated, view, "held_out", config.documents, seed)
    if not held_out:
        return {}
    train = text_documents(evaluated, view, "train", config.baseline_documents, seed)
    scored = {"documents": score(evaluated.spirit.model, held_out, evaluated.context_length)}
    if base is not None:
        scored["documents.base"] = score_base(base, held_out, evaluated)
    draws = {"samples": config.bootstrap_samples, "seed": seed}
    targets = [document.targets for document in train]
    return {
        name: stream_metrics(found, targets, evaluated.vocabulary, **draws, within="text")
        for name, found in scored.items()
    }


def text_documents(evaluated: Evaluated, view: TableView, split: str, most: int, seed: int) -> list[Document]:
    """At most `most` documents of a `text` table, drawn by `seed`, long ones in chunks, as training lays them out.

    Text tokens alone are predicted, neither markers nor ends: a base model predicts the same ones.
    """
    vocabulary = evaluated.vocabulary
    planner = TextPlanner(Texts.of(view, split, vocabulary), vocabulary, evaluated.tokens, seed)
    plans = [planner.plans("text", int(run), 0)[0] for run in np.argsort(planner.keys("text", 0))[:most]]
    every = ((plan, planner.ids(plan)) for plan in plans)
    return [Document(ids, "text", str(plan.run), _predicted(ids, vocabulary)) for plan, ids in every]


def _predicted(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """bool[N], the text tokens; without BOS not the first of them, in front of which a base model sees nothing."""
    text = kinds(ids, vocabulary) == "text"
    text[: 2 if vocabulary.bos is None else 1] = False
    return text


def score_base(base: Path, documents: list[Document], evaluated: Evaluated) -> list[Scored]:
    """The documents under the base model, which knows no marker where it is no model of this project.

    Raises ModelReferenceError: it cannot be loaded.
    """
    from spiritlm_core.lm.model.network import load_pretrained

    model = load_pretrained(base).to(evaluated.spirit.model.device).eval()
    shown = documents if is_own(base) else [_plain(document, evaluated.vocabulary) for document in documents]
    return score(model, shown, min(evaluated.context_length, int(model.config.max_position_embeddings)))


def _plain(document: Document, vocabulary: Vocabulary) -> Document:
    kept = document.ids != vocabulary.text_marker
    predicted = _predicted(document.ids, vocabulary)
    return replace(document, ids=document.ids[kept], predicted=predicted[kept])
