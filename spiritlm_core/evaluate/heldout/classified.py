"""Choosing the label of held-out recordings, as ``spiritlm classify`` does: without solved examples, by likelihood."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.clips import rank, rows_of
from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.corpus import labels_of
from spiritlm_core.evaluate.heldout.fewshot import HELD_OUT
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.fewshot import Asked, FewShot
from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.metrics.verdicts import Verdict

if TYPE_CHECKING:
    from spiritlm_core.evaluate.heldout.answers import Evaluated

MOST_LABELS = 100
"""Where there are more, the labels are names rather than classes, and nothing is asked."""


@dataclass(frozen=True)
class Classified:
    """Recordings with a label, asked.

    Attributes:
        keys: utterance_id of each.
        right: the label of each.
        given: the label that the model finds likeliest.
        labels: all that were chosen from.
    """

    keys: tuple[str, ...]
    right: tuple[str, ...]
    given: tuple[str, ...]
    labels: tuple[str, ...]

    def verdicts(self, samples: int, seed: int) -> list[Verdict]:
        """Accuracy beside that of the commonest label; then of the recordings of each label, beside guessing evenly."""
        shown = [label for label in self.labels if label in self.right]
        groups = {"": list(range(len(self.right)))}
        groups |= {label: [i for i, right in enumerate(self.right) if right == label] for label in shown}
        return [self._verdict(name, places, samples, seed) for name, places in groups.items()]

    def _verdict(self, group: str, places: Sequence[int], samples: int, seed: int) -> Verdict:
        common = Counter(self.right).most_common(1)[0][0]
        right = np.array([self.given[i] == self.right[i] for i in places], float)
        trivial = np.array([common == self.right[i] for i in places], float)
        ones = np.ones(len(places))
        gain = ratio(right - trivial, ones, samples=samples, seed=seed)
        shares = {"chance": 1 / len(self.labels), **({} if group else {"majority": float(trivial.mean())})}
        estimate = ratio(right, ones, samples=samples, seed=seed)
        better = estimate.low > shares["chance"] and (bool(group) or gain.low > 0)
        about = {"on": HELD_OUT, "items": len(places), "group": group, "labels": self.labels}
        return Verdict.of("classify", "accuracy", estimate, shares, better=better, **about)

    def confusions(self) -> list[list[int]]:
        """How often each right label (rows) was given each label (columns)."""
        counts = Counter(zip(self.right, self.given, strict=True))
        return [[counts[right, given] for given in self.labels] for right in self.labels]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        answers = zip(self.keys, self.right, self.given, strict=True)
        return {
            "labels": list(self.labels),
            "confusions": self.confusions(),
            "answers": [{"key": key, "label": right, "answer": given} for key, right, given in answers],
        }


def classify(tables: Mapping[str, TableView], evaluated: Evaluated, config: EvaluateConfig) -> Classified | None:
    """Ask for the labels of held-out recordings; None where there are no two labels to choose from."""
    wanted, train = labels_of(tables["audio"], "held_out"), labels_of(tables["audio"], "train")
    labels = tuple(sorted({*train.values(), *wanted.values()}))
    keys = heapq.nsmallest(config.fewshot_utterances, wanted, key=lambda key: rank(config.seed, key))
    if not keys or not 1 < len(labels) <= MOST_LABELS:
        return None
    rows = rows_of(tables["sequences"], set(keys), ["speech_ids"])
    fewshot = FewShot(evaluated.spirit, "speech", "text", labels=labels, context=evaluated.context_length)
    asked = {key: one for key in keys if (one := _asked(fewshot, evaluated, rows[key]["speech_ids"]))}
    if not asked:
        return None
    given = fewshot.answers(list(asked.values()))
    return Classified(tuple(asked), tuple(wanted[key] for key in asked), tuple(given), labels)


def _asked(fewshot: FewShot, evaluated: Evaluated, ids: Sequence[int] | None) -> Asked | None:
    """None for a recording without units, or one that does not fit into the context."""
    try:
        return fewshot.lay_out((("speech", evaluated.speech(ids)),)) if ids else None
    except Rejection:
        return None
