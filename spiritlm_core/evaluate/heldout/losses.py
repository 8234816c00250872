"""Loss of a language model on held-out documents, per stream, beside a unigram baseline.

Every document is scored on its own, nothing in front of it. One longer than the context is cut into windows
that share one token, so that every token but the first of the document is predicted exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.lm.generate.likelihood import predict
from spiritlm_core.metrics.bootstrap import ratio

if TYPE_CHECKING:
    from spiritlm_core.tokens.documents import Document
    from spiritlm_core.tokens.vocabulary import Vocabulary

SMOOTHING = (1.0, 0.5, 0.1, 0.05, 0.01)
"""Candidates for the additive constant, Lidstone's law (Manning & Schütze 1999, section 6.2.2)."""


@dataclass(frozen=True)
class Unigram:
    """Counts of token ids, int64[V]; additive smoothing turns them into probabilities over `support`.

    Attributes:
        counts: int64[V] occurrences in the train documents of one stream.
        support: bool[V] ids that can occur; the smoothing mass is spread over these alone.
    """

    counts: np.ndarray
    support: np.ndarray

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
    """The predicted tokens of one document, and what each of them cost.

    Attributes:
        ids: int64[N] every token of the document but its first, or those that its loss counts.
        nats: float64[N] negative log probability of each under the model.
    """

    ids: np.ndarray
    nats: np.ndarray


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
    """Loss, baseline and gain of one stream, as flat entries.

    Args:
        scored: The held-out documents of the stream.
        train: The predicted tokens of its train documents, int[N] each, from which the unigram baseline is counted.
        vocabulary: Tells text from speech ids.
        samples: Bootstrap resamples.
        seed: Seed of the bootstrap.
        within: "" for all tokens, or "text" or "speech" for the tokens of that kind alone. The baseline then
            knows the kind of every token beforehand, which the model has to find out.
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
