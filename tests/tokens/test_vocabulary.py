from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.tokens.vocabulary import Vocabulary

VOCABULARIES = st.builds(
    Vocabulary,
    st.integers(10, 200_000),
    st.integers(1, 900),
    st.integers(0, 80),
    st.integers(0, 120),
    st.none(),
    st.none(),
)


def test_llama_2_gets_the_released_ids() -> None:
    vocabulary = Vocabulary(32000)
    assert (vocabulary.text_marker, vocabulary.speech_marker) == (32000, 32001)
    assert (vocabulary.unit_id("Hu", 0), vocabulary.unit_id("Hu", 500)) == (32002, 32502)
    assert (vocabulary.unit_id("Pi", 0), vocabulary.unit_id("Pi", 63)) == (32503, 32566)
    assert (vocabulary.unit_id("St", 0), vocabulary.unit_id("St", 99)) == (32567, 32666)
    assert vocabulary.size == 32667
    assert Vocabulary(32000, pitch=0, style=0).size == 32503


@given(VOCABULARIES)
def test_tokens_are_listed_in_the_order_of_their_ids(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == vocabulary.size - vocabulary.text_size
    names = dict(enumerate(vocabulary.tokens, vocabulary.text_size))
    assert names[vocabulary.speech_marker] == "[Speech]"
    assert names[vocabulary.unit_id("Hu", vocabulary.hubert - 1)] == f"[Hu{vocabulary.hubert - 1}]"
    if vocabulary.pitch:
        assert names[vocabulary.unit_id("Pi", 0)] == "[Pi0]"
    if vocabulary.style:
        assert names[vocabulary.unit_id("St", vocabulary.style - 1)] == f"[St{vocabulary.style - 1}]"
    speech = vocabulary.is_speech(np.arange(-1, vocabulary.size + 3))
    assert speech.sum() == vocabulary.size - vocabulary.text_size - 2
    assert not speech[: vocabulary.speech_marker + 2].any()


@given(VOCABULARIES, VOCABULARIES)
def test_fingerprints_are_equal_only_for_the_same_layout(one: Vocabulary, other: Vocabulary) -> None:
    assert Vocabulary.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert (one.fingerprint() == other.fingerprint()) == (one == other)


def test_the_fingerprint_never_changes() -> None:
    assert Vocabulary(32000).fingerprint() == "d6fe0d4b4873fdf52bbc4f21d3ff3b5256b65ce0b43e6503543e6688020f39b3"


def test_ids_outside_are_refused() -> None:
    vocabulary = Vocabulary(10, hubert=3, pitch=0, style=0)
    with pytest.raises(ValueError, match="Hu3"):
        vocabulary.unit_id("Hu", 3)
    with pytest.raises(ValueError, match="Pi0"):
        vocabulary.unit_id("Pi", 0)
    with pytest.raises(SpiritLMError, match=r"\[Hu3\] is outside"):
        vocabulary.speech_ids(np.array([2, 2]), np.array([0, 3]))
    with pytest.raises(SpiritLMError, match="eos 10"):
        Vocabulary(10, eos=10)
