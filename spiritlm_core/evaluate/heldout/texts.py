"""Held-out text documents, as a trained model and the base model that it started from find them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.lm.model.folder import is_own

if TYPE_CHECKING:
    from spiritlm_core.evaluate.config import EvaluateConfig
    from spiritlm_core.evaluate.heldout.answers import Evaluated
    from spiritlm_core.evaluate.heldout.losses import Scored
    from spiritlm_core.lake.view import TableView
    from spiritlm_core.tokens.documents import Document
    from spiritlm_core.tokens.vocabulary import Vocabulary


def text_metrics(evaluated: Evaluated, view: TableView, base: Path | None, config: EvaluateConfig) -> dict[str, Any]:
    """Figures of the held-out documents of a `text` table: ``documents`` of the model, ``documents.base`` of the base.

    Nothing where none is held out. Arguments and errors are those of the stage.
    """
    from spiritlm_core.evaluate.heldout.losses import score, stream_metrics

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
    from spiritlm_core.tokens.documents import Document
    from spiritlm_core.tokens.texts import TextPlanner, Texts

    vocabulary = evaluated.vocabulary
    planner = TextPlanner(Texts.of(view, split, vocabulary), vocabulary, evaluated.tokens, seed)
    plans = [planner.plans("text", int(run), 0)[0] for run in np.argsort(planner.keys("text", 0))[:most]]
    every = ((plan, planner.ids(plan)) for plan in plans)
    return [Document(ids, "text", str(plan.run), _predicted(ids, vocabulary)) for plan, ids in every]


def _predicted(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """bool[N], the text tokens; without BOS not the first of them, in front of which a base model sees nothing."""
    ends = [end for end in (vocabulary.bos, vocabulary.eos) if end is not None]
    text = (ids < vocabulary.text_size) & ~np.isin(ids, ends)
    text[: 2 if vocabulary.bos is None else 1] = False
    return text


def score_base(base: Path, documents: list[Document], evaluated: Evaluated) -> list[Scored]:
    """The documents under the base model, which knows no marker where it is no model of this project.

    Raises:
        ModelReferenceError: it cannot be loaded.
    """
    from spiritlm_core.evaluate.heldout.losses import score
    from spiritlm_core.lm.model.network import load_pretrained

    model = load_pretrained(base).to(evaluated.spirit.model.device).eval()
    shown = documents if is_own(base) else [_plain(document, evaluated.vocabulary) for document in documents]
    return score(model, shown, min(evaluated.context_length, int(model.config.max_position_embeddings)))


def _plain(document: Document, vocabulary: Vocabulary) -> Document:
    kept = document.ids != vocabulary.text_marker
    predicted = _predicted(document.ids, vocabulary)
    return replace(document, ids=document.ids[kept], predicted=predicted[kept])
