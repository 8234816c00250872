"""Held-out text documents, under a trained model and under the base model that it started from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spiritlm_core.evaluate.heldout.answers import Evaluated
from spiritlm_core.evaluate.heldout.losses import score, score_base, text_documents, text_metrics
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.model.network import load_pretrained
from spiritlm_core.tokens.text_stage import TEXT
from tests.evaluate.corpora import CONFIG, Corpus, evaluate


@pytest.fixture(scope="module")
def rows(evaluated: Evaluated) -> list[dict]:
    """Twelve documents, one longer than the context of 256 tokens; every third is held out."""
    rng = np.random.default_rng(0)
    ends = {evaluated.vocabulary.bos, evaluated.vocabulary.eos}
    words = [token for token in range(evaluated.vocabulary.text_size) if token not in ends]
    sizes = [300, *range(4, 15)]
    splits = ["train" if i % 3 else "held_out" for i in range(12)]
    return [
        {"document_id": f"d{i:02}", "split": split, "text_ids": rng.choice(words, size).tolist()}
        for i, (split, size) in enumerate(zip(splits, sizes, strict=True))
    ]


@pytest.fixture(scope="module")
def plain(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, which has no row for a marker or a unit."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("plain")
    config = LlamaConfig(vocab_size=evaluated.vocabulary.text_size, max_position_embeddings=64, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_both_models_predict_the_same_text_tokens_each_in_its_own_format(
    evaluated: Evaluated, rows: list[dict], plain: Path
) -> None:
    vocabulary, held_out = evaluated.vocabulary, [row["text_ids"] for row in rows if row["split"] == "held_out"]
    documents = text_documents(evaluated, TableView.of(table_of(rows, TEXT)), "held_out", 100, 0)
    assert len(documents) == len(held_out) + 1, "the long one is two"
    after = score(evaluated.spirit.model, documents, evaluated.context_length)
    before = score_base(plain, documents, evaluated)
    base, start = load_pretrained(plain), [] if vocabulary.bos is None else [vocabulary.bos]
    whole = {tuple(ids[-len(ids) + 1 - len(start) :]): ids for ids in held_out}
    compared = 0
    for mine, theirs in zip(after, before, strict=True):
        assert mine.ids.tolist() == theirs.ids.tolist()
        if ids := whole.get(tuple(mine.ids.tolist())):
            shown = torch.tensor([start + ids])
            with torch.inference_mode():
                logits = base(input_ids=shown).logits[0, :-1]
            nats = torch.nn.functional.cross_entropy(logits, shown[0, 1:], reduction="none")
            np.testing.assert_allclose(theirs.nats, nats.numpy(), rtol=1e-4)
            compared += 1
    assert compared == len(held_out) - 1
    assert sum(len(one.ids) for one in after) == sum(map(len, held_out)) - (0 if start else len(documents))


def test_the_evaluation_scores_texts_before_and_after(
    corpus: Corpus, model_folder: Path, evaluated: Evaluated, rows: list[dict], plain: Path, tmp_path: Path
) -> None:
    texts = TableView.of(table_of(rows, TEXT))
    corpus.tables["text"] = texts
    try:
        evaluate(corpus, model_folder, tmp_path / "out", base=plain)
    finally:
        del corpus.tables["text"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = text_metrics(evaluated, texts, plain, CONFIG)
    for name in ("documents", "documents.base"):
        assert metrics[f"loss/{name}/bits_per_token"] == expected[name]["bits_per_token"]
    assert expected["documents"]["bits_per_token"] != expected["documents.base"]["bits_per_token"]
    assert expected["documents"]["tokens"] == expected["documents.base"]["tokens"] > 300
    assert "documents: base" in (tmp_path / "out" / "report.html").read_text()
    assert set(text_metrics(evaluated, texts, None, CONFIG)) == {"documents"}
    train = TableView.of(table_of([{"document_id": "a", "split": "train", "text_ids": [5]}], TEXT))
    assert text_metrics(evaluated, train, None, CONFIG) == {}
