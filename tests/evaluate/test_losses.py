from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spiritlm_core.evaluate.heldout.answers import Evaluated
from spiritlm_core.evaluate.heldout.losses import Scored, Unigram, kinds, score, stream_metrics
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(text_size=10, hubert=8, pitch=0, style=0)


class Bigram(nn.Module):
    """A causal model that knows the probabilities of the next token exactly."""

    def __init__(self, transitions: np.ndarray) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.log(torch.tensor(transitions, dtype=torch.float32) + 1e-9))

    def get_output_embeddings(self) -> SimpleNamespace:
        return SimpleNamespace(weight=self.logits)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids])


def chain(transitions: np.ndarray, count: int, length: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        ids = [int(generator.integers(len(transitions)))]
        while len(ids) < length:
            ids.append(int(generator.choice(len(transitions), p=transitions[ids[-1]])))
        documents.append(np.array(ids))
    return documents


def documents_of(ids: list[np.ndarray]) -> list[Document]:
    return [Document(one, "text", str(number)) for number, one in enumerate(ids)]


def cyclic(strength: float) -> np.ndarray:
    """Token i is followed by i + 1 with probability `strength`, otherwise by anything."""
    size = VOCABULARY.size
    return strength * np.roll(np.eye(size), 1, axis=1) + (1 - strength) / size


def figures(model: Bigram, truth: np.ndarray, within: str = "") -> dict:
    scored = score(model, documents_of(chain(truth, 40, 30, seed=1)), 64)
    train = [document.targets for document in documents_of(chain(truth, 200, 30, seed=2))]
    return stream_metrics(scored, train, VOCABULARY, samples=300, seed=0, within=within)


def test_a_model_that_knows_the_order_beats_the_unigram() -> None:
    found = figures(Bigram(cyclic(0.9)), cyclic(0.9))
    entropy = -float((cyclic(0.9)[0] * np.log2(cyclic(0.9)[0])).sum())
    assert found["beats_baseline"]
    assert found["bits_per_token"] == pytest.approx(entropy, abs=0.2)
    assert found["gain_bits"] == pytest.approx(found["baseline_bits_per_token"] - found["bits_per_token"], abs=1e-5)
    assert found["gain_bits"] > 2


@pytest.mark.parametrize("model", [cyclic(0.0), cyclic(0.5)], ids=["uniform", "wrong order"])
def test_no_model_beats_the_unigram_where_there_is_no_order(model: np.ndarray) -> None:
    found = figures(Bigram(model), cyclic(0.0))
    assert not found["beats_baseline"]
    assert found["gain_bits"] < 0.02


def test_a_model_that_learned_nothing_loses_on_ordered_but_uneven_data() -> None:
    uneven = np.tile(np.r_[[0.5, 0.3], np.full(VOCABULARY.size - 2, 0.2 / (VOCABULARY.size - 2))], (VOCABULARY.size, 1))
    assert not figures(Bigram(cyclic(0.0)), uneven)["beats_baseline"]


@pytest.mark.parametrize("kind", ["text", "speech"])
def test_kinds_within_a_stream_are_told_apart(kind: str) -> None:
    found, whole = (figures(Bigram(cyclic(0.9)), cyclic(0.9), within) for within in (kind, ""))
    assert 0 < found["tokens"] < whole["tokens"]
    assert found["baseline_bits_per_token"] < whole["baseline_bits_per_token"]  # it is told the kind
    assert found["beats_baseline"]


@pytest.mark.parametrize("length", [5, 7, 64])
def test_windows_predict_every_token_but_the_first_once(evaluated: Evaluated, length: int) -> None:
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, evaluated.vocabulary.size, size=n) for n in (1, 2, 5, 6, 9, 23, 0)]
    scored = score(evaluated.spirit.model, documents_of(documents), length)
    for ids, found in zip(documents, scored, strict=True):
        assert len(found.nats) == len(found.ids) == max(len(ids) - 1, 0)
        assert found.ids.tolist() == ids[1:].tolist()
    assert min(nats for found in scored for nats in found.nats) > 0


def test_scores_are_those_of_each_document_alone(evaluated: Evaluated) -> None:
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, evaluated.vocabulary.size, size=n) for n in (3, 40, 12, 40)]
    together = score(evaluated.spirit.model, documents_of(documents), 64)
    for ids, found in zip(documents, together, strict=True):
        np.testing.assert_allclose(
            score(evaluated.spirit.model, documents_of([ids]), 64)[0].nats, found.nats, rtol=1e-4
        )
        loss = evaluated.spirit.model(torch.tensor(ids)[None], labels=torch.tensor(ids)[None]).loss
        assert found.nats.mean() == pytest.approx(float(loss.detach()), rel=1e-4)


def test_of_examples_the_answers_alone_are_scored(evaluated: Evaluated) -> None:
    ids = np.arange(3, 23)
    counted = np.isin(np.arange(20), [5, 6, 19])
    (whole,) = score(evaluated.spirit.model, documents_of([ids]), 64)
    (found,) = score(evaluated.spirit.model, [Document(ids, "asr", "r", counted)], 64)
    assert found.ids.tolist() == [8, 9, 22]
    assert found.nats.tolist() == whole.nats[counted[1:]].tolist()


def test_kinds_of_ids() -> None:
    vocabulary = Vocabulary(text_size=10, hubert=8, pitch=0, style=0, bos=1, eos=2)
    assert kinds(np.array([0, 1, 2, 9, 10, 11, 12, 19]), vocabulary).tolist() == [
        "text", "marker", "marker", "text", "marker", "marker", "speech", "speech",
    ]  # fmt: skip


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.sampled_from([1.0, 0.1]))
def test_the_unigram_is_a_distribution_over_its_support(ids: list[int], smoothing: float) -> None:
    support = np.arange(12) < 10
    nats = Unigram.fit([np.array(ids)], support).nats(smoothing)
    assert np.exp(-nats).sum() == pytest.approx(1.0)
    assert np.isinf(nats[~support]).all()
    expected = (ids.count(ids[0]) + smoothing) / (len(ids) + 10 * smoothing)
    assert np.exp(-nats[ids[0]]) == pytest.approx(expected)


def test_the_baseline_gets_the_smoothing_that_suits_it() -> None:
    support = np.ones(1000, dtype=bool)
    unigram = Unigram.fit([np.repeat(np.arange(5), 20)], support)
    best = unigram.best_smoothing(np.arange(5))
    assert best == 0.01
    assert unigram.nats(best)[:5].sum() < unigram.nats(1.0)[:5].sum()


def test_a_stream_without_tokens_claims_nothing() -> None:
    found = stream_metrics([Scored(np.empty(0, np.int64), np.empty(0))], [], VOCABULARY, samples=100, seed=0, within="")
    assert found["bits_per_token"] is None
    assert found["nats_per_token"] is None
    assert found["beats_baseline"] is False
