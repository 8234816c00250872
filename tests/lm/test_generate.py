from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.generate import Sampling, allowed_ids, generate
from spiritlm_core.lm.model import build_model
from spiritlm_core.lm.prompts import few_shot, parts_of, prompt_ids
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.lm.conftest import TINY

VOCABULARY = Vocabulary(100, hubert=20, pitch=4, style=3, bos=1, eos=2)
MODEL = build_model(LmConfig(architecture=TINY, vocabulary_multiple=64), VOCABULARY, context_length=64)
PROMPTS = [[1, 100, 5, 6, 7], [1, 101, 102, 103, 110, 121, 100], [1, 100]]
HOT = Sampling(temperature=50.0, seed=5)  # nearly uniform: every id that is allowed turns up


@pytest.mark.parametrize("modality", ["text", "speech", "any"])
def test_only_ids_of_the_modality_are_sampled(modality: str) -> None:
    found = {
        i
        for new in generate(MODEL, VOCABULARY, PROMPTS * 8, modality=modality, sampling=HOT, batch_size=24)
        for i in new
    }  # type: ignore[arg-type]
    text, speech, markers = set(range(100)) - {1, 2}, set(range(102, 129)), {100, 101}
    assert found <= {"text": text, "speech": speech, "any": text | speech | markers}[modality]
    assert len(found) > {"text": 80, "speech": 26, "any": 100}[modality]


def test_padding_rows_are_never_allowed_and_eos_always_is() -> None:
    for modality in ("text", "speech", "any"):
        allowed = allowed_ids(VOCABULARY, modality, 192, [VOCABULARY.eos])  # type: ignore[arg-type,list-item]
        assert allowed.shape == (192,)
        assert not allowed[VOCABULARY.size :].any()
        assert allowed[VOCABULARY.eos]
        assert not allowed[VOCABULARY.bos]


def test_greedy_with_cache_equals_recomputing_everything() -> None:
    together = generate(MODEL, VOCABULARY, PROMPTS, modality="any", max_new_tokens=12)
    allowed = allowed_ids(VOCABULARY, "any", 192, [2])
    for prompt, new in zip(PROMPTS, together, strict=True):
        ids = list(prompt)
        for _ in range(12):
            with torch.inference_mode():
                logits = MODEL(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            token = int(logits.masked_fill(~allowed, -torch.inf).argmax())
            if token == 2:
                break
            ids.append(token)
        assert new == ids[len(prompt) :]


def test_a_prompt_does_not_depend_on_what_shares_its_batch() -> None:
    sampling = Sampling(temperature=1.0, top_p=0.9, seed=3)
    alone = generate(MODEL, VOCABULARY, PROMPTS[:1], sampling=sampling, max_new_tokens=20)
    assert generate(MODEL, VOCABULARY, PROMPTS, sampling=sampling, max_new_tokens=20)[:1] == alone
    split = generate(MODEL, VOCABULARY, PROMPTS, sampling=sampling, max_new_tokens=20, batch_size=2)
    assert split == generate(MODEL, VOCABULARY, PROMPTS, sampling=sampling, max_new_tokens=20)
    assert alone != generate(MODEL, VOCABULARY, PROMPTS[:1], sampling=Sampling(1.0, 0.9, 4), max_new_tokens=20)


def test_top_p_keeps_the_likely_ones() -> None:
    narrow = Sampling(temperature=1.0, top_p=1e-6, seed=1)
    greedy = generate(MODEL, VOCABULARY, PROMPTS, max_new_tokens=10)
    assert generate(MODEL, VOCABULARY, PROMPTS, max_new_tokens=10, sampling=narrow) == greedy


def test_generation_ends_at_stops_limits_and_the_context() -> None:
    (free,) = generate(MODEL, VOCABULARY, PROMPTS[:1], modality="text", max_new_tokens=10)
    stop = free[4]
    (cut,) = generate(MODEL, VOCABULARY, PROMPTS[:1], modality="text", max_new_tokens=10, stop_ids=[stop])
    assert cut == free[: free.index(stop)]
    marked = generate(MODEL, VOCABULARY, PROMPTS[:1] * 30, modality="text", sampling=HOT, stop_ids=[101])
    assert any(len(new) < 59 for new in marked)
    assert 101 not in {i for new in marked for i in new}
    long = generate(MODEL, VOCABULARY, PROMPTS, modality="speech", max_new_tokens=1000)
    assert all(len(new) <= 64 - len(prompt) for new, prompt in zip(long, PROMPTS, strict=True))
    assert generate(MODEL, VOCABULARY, PROMPTS[:1], max_new_tokens=0) == [[]]


@pytest.mark.parametrize("prompt", [[], [1] * 64, [129], [-1]])
def test_impossible_prompts_are_errors(prompt: list[int]) -> None:
    with pytest.raises(SpiritLMError, match="prompt 1"):
        generate(MODEL, VOCABULARY, [[1], prompt])


def test_prompts_have_a_marker_wherever_the_modality_changes() -> None:
    parts = [("text", [5, 6]), ("text", [7]), ("speech", [110]), ("text", [8])]
    assert prompt_ids(parts, VOCABULARY, "any") == [1, 100, 5, 6, 7, 101, 110, 100, 8]  # type: ignore[arg-type]
    assert prompt_ids(parts, VOCABULARY, "text") == [1, 100, 5, 6, 7, 101, 110, 100, 8]  # type: ignore[arg-type]
    assert prompt_ids(parts, VOCABULARY, "speech")[-2:] == [8, 101]  # type: ignore[arg-type]
    assert prompt_ids([], VOCABULARY, "speech") == [1, 101]
    shots = [([110, 111], [5]), ([112], [6, 7])]
    assert few_shot(shots, [113], VOCABULARY, "text") == [1, 101, 110, 111, 100, 5, 101, 112, 100, 6, 7, 101, 113, 100]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY.size - 1), max_size=40))
def test_splitting_into_parts_loses_nothing_but_markers(ids: list[int]) -> None:
    parts = parts_of(ids, VOCABULARY)
    kept = [i for i in ids if i not in (1, 2, 100, 101)]
    assert [i for _, part in parts for i in part] == kept
    assert all(a[0] != b[0] for a, b in pairwise(parts))
    assert all((VOCABULARY.is_speech(np.array(part)) == (kind == "speech")).all() for kind, part in parts)
