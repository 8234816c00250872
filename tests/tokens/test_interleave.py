from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from spiritlm_core.lake.schema import Row
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import FixedLaw, PoissonLaw, SharesConfig, SpanLaw, TokensConfig, UniformLaw
from spiritlm_core.tokens.counter import combine, key_of, mix, uniform
from spiritlm_core.tokens.documents import spans
from spiritlm_core.tokens.mix import training_batches
from tests.tokens.corpora import VOCABULARY, read_spans, segment, table

LAWS = st.one_of(
    st.builds(lambda low, more: UniformLaw(minimum=low, maximum=low + more), st.integers(1, 9), st.integers(0, 9)),
    st.builds(PoissonLaw, mean=st.floats(1, 12)),
    st.builds(FixedLaw, words=st.integers(1, 9)),
)


def probabilities(law: SpanLaw, most: int) -> np.ndarray:
    """P(length = 0 … most - 1)."""
    lengths = np.arange(most)
    if isinstance(law, UniformLaw):
        return ((lengths >= law.minimum) & (lengths <= law.maximum)) / (law.maximum - law.minimum + 1)
    if isinstance(law, PoissonLaw):
        return stats.poisson.pmf(lengths - 1, law.mean - 1)
    return (lengths == law.words).astype(float)


def pvalue(lengths: np.ndarray, law: SpanLaw) -> float:
    """Chi-square test of drawn lengths against their law, rare lengths taken together."""
    most = int(lengths.max()) + 2
    expected = probabilities(law, most) * len(lengths)
    observed = np.bincount(lengths, minlength=most)
    assert observed[expected == 0].sum() == 0
    common = expected >= 5
    rest = [[observed[~common].sum()], [len(lengths) - expected[common].sum()]]
    seen = np.append(observed[common], rest[0] if rest[1][0] > 1e-6 else [])
    due = np.append(expected[common], rest[1] if rest[1][0] > 1e-6 else [])
    return stats.chisquare(seen, due * seen.sum() / due.sum()).pvalue if len(seen) > 1 else 1.0


@pytest.mark.parametrize(
    ("text", "speech"),
    [
        (UniformLaw(minimum=10, maximum=30), UniformLaw(minimum=5, maximum=15)),
        (PoissonLaw(mean=8), PoissonLaw(mean=3.5)),
        (FixedLaw(words=4), UniformLaw(minimum=1, maximum=2)),
    ],
)
def test_spans_follow_their_laws(text: SpanLaw, speech: SpanLaw) -> None:
    drawn: dict[bool, list[int]] = {True: [], False: []}
    firsts = []
    for run in range(200):
        starts, speech_first = spans(np.ones(1000, bool), text, speech, key_of("run", run))
        lengths = np.diff(starts)  # without the last, which the end of the run cuts
        drawn[speech_first] += lengths[0::2].tolist()
        drawn[not speech_first] += lengths[1::2].tolist()
        firsts.append(speech_first)
    assert len(drawn[True]) > 3000
    assert pvalue(np.array(drawn[True]), speech) > 0.001
    assert pvalue(np.array(drawn[False]), text) > 0.001
    assert stats.binomtest(sum(firsts), len(firsts)).pvalue > 0.001


def test_the_law_test_can_fail() -> None:
    lengths = np.random.default_rng(0).integers(10, 30, 5000)  # 30 never comes
    assert pvalue(lengths, UniformLaw(minimum=10, maximum=30)) < 0.001


@given(st.lists(st.booleans(), min_size=1, max_size=80), LAWS, LAWS, st.integers(0, 2**64 - 1))
def test_spans_cover_the_run_and_start_where_allowed(
    allowed: list[bool], text: SpanLaw, speech: SpanLaw, key: int
) -> None:
    can_switch = np.array([True, *allowed[1:]])
    starts, speech_first = spans(can_switch, text, speech, key)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] < len(can_switch)
    assert can_switch[starts].all()
    assert (len(starts) == 1) == (not can_switch[1:].any())
    assert spans(can_switch, text, speech, key) == (starts, speech_first)


def test_a_short_run_shows_both_modalities_at_any_place() -> None:
    law = UniformLaw(minimum=10, maximum=30)
    cuts = {spans(np.ones(5, bool), law, law, key_of(i))[0][1] for i in range(100)}
    assert cuts == {1, 2, 3, 4}
    assert spans(np.ones(1, bool), law, law, 0)[0] == [0]


def test_draws_are_even_and_never_change() -> None:
    u = np.array([uniform(key_of("a", 1), number) for number in range(20_000)])
    assert stats.kstest(u, "uniform").pvalue > 0.001
    assert u.min() >= 0
    assert u.max() < 1
    # SplitMix64 seeded with 1234567, as published with the reference implementation
    stream = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    counts = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix(np.uint64(1234567) + counts).tolist() == stream
    assert [uniform(1234567, number) for number in range(3)] == [(draw >> 11) * 2.0**-53 for draw in stream]


def test_keys_are_told_apart() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    keys = np.arange(1000, dtype=np.uint64)
    both = np.concatenate([combine(keys, key_of(0)), combine(keys, key_of(1))])
    assert len(set(both.tolist())) == 2000


def test_bad_laws_name_the_field() -> None:
    with pytest.raises(ValidationError, match="maximum 3 is below minimum 5"):
        TokensConfig.model_validate({"text_span": {"kind": "uniform", "minimum": 5, "maximum": 3}})
    with pytest.raises(ValidationError, match=r"text_span\.uniform\.minimum"):
        TokensConfig.model_validate({"text_span": {"kind": "uniform", "minimum": 0, "maximum": 3}})
    with pytest.raises(ValidationError, match=r"text_span\.poisson\.mean"):
        TokensConfig.model_validate({"text_span": {"kind": "poisson", "mean": 0.5}})
    with pytest.raises(ValidationError, match="at least one stream"):
        TokensConfig.model_validate({"shares": {"text": 0, "speech": 0, "interleaved": 0}})


@pytest.mark.parametrize(
    ("text", "speech"),
    [
        (UniformLaw(minimum=10, maximum=30), UniformLaw(minimum=5, maximum=15)),
        (PoissonLaw(mean=6), FixedLaw(words=3)),
    ],
)
def test_sequences_have_spans_of_their_laws_behind_one_marker_each(text: SpanLaw, speech: SpanLaw) -> None:
    """The whole way: rows, mixture, packing. Every word has one text token and two speech tokens."""
    rng, rows, words = np.random.default_rng(0), [], 60
    for recording in range(40):
        for index in range(20):
            row = segment(rng, f"r{recording:03}", index, words, straddle=0, empty=0)
            ids = rng.integers(VOCABULARY.speech_marker + 1, VOCABULARY.size, 2 * words)
            word_ids = rng.integers(3, VOCABULARY.text_size, words)
            offsets = np.arange(words + 1)
            laid: Row = {
                "text_ids": word_ids,
                "text_offsets": offsets,
                "speech_ids": ids,
                "speech_offsets": 2 * offsets,
            }
            rows.append({**row, **laid, "can_switch": np.ones(words, bool)})
    config = TokensConfig(context_length=4096, text_span=text, speech_span=speech, window=16)
    config = config.model_copy(update={"shares": SharesConfig(text=0, speech=0)})
    drawn: dict[str, list[int]] = {"text": [], "speech": []}
    stream = training_batches(TableView.of(table(rows)), VOCABULARY, config, seed=5)
    for packed, _ in islice(stream, 60):
        for i in range(len(packed.streams)):
            spans_of = read_spans(packed.input_ids[packed.document_ids == i])
            kinds = [kind for kind, _ in spans_of]
            assert all(one != other for one, other in pairwise(kinds)), "a marker without a switch"
            for kind, ids_of in spans_of[1:-1]:  # the first and the last may be cut
                assert kind == "text" or len(ids_of) % 2 == 0, "a word was split"
                drawn[kind].append(len(ids_of) // (1 + (kind == "speech")))
    for kind, law in (("text", text), ("speech", speech)):
        lengths = np.array(drawn[kind])
        assert len(lengths) > 1500
        assert pvalue(lengths, law) > 0.001
        if isinstance(law, UniformLaw):
            assert (lengths.min(), lengths.max()) == (law.minimum, law.maximum)
            mean, spread = (law.minimum + law.maximum) / 2, (law.maximum - law.minimum + 1) / 12**0.5
            assert abs(lengths.mean() - mean) < 4 * spread / len(lengths) ** 0.5
