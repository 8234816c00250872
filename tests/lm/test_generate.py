from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.generate.decode import Sampling, continuations, generate, stream
from spiritlm_core.lm.generate.prompts import parts_of, prompt_ids, prompt_string
from spiritlm_core.lm.generate.sampling import ModalityLogitsProcessor, banned_ids, choose, draws, forbidden_ids
from spiritlm_core.lm.model.network import build_model
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.support.small_model import TINY

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


@pytest.mark.parametrize("modality", ["text", "speech", "any"])
def test_what_is_banned(modality: str) -> None:
    banned = set(np.flatnonzero(banned_ids(VOCABULARY, modality, 192, [101])).tolist())  # type: ignore[arg-type]
    forbidden = {"text": set(range(100, 129)), "speech": set(range(102)), "any": set()}[modality]
    padding = set(range(129, 192))
    assert forbidden_ids(VOCABULARY, modality) == sorted(forbidden)  # type: ignore[arg-type]
    assert banned == (forbidden | padding | {1}) - {2, 101}, "BOS and padding never, EOS and stops always"
    free = banned_ids(VOCABULARY, modality, 192, force=False)  # type: ignore[arg-type]
    assert set(np.flatnonzero(free).tolist()) == padding | {1}
    lacking = banned_ids(VOCABULARY, modality, 192, force=False, lacking=[110, 111])  # type: ignore[arg-type]
    assert set(np.flatnonzero(lacking).tolist()) == padding | {1, 110, 111}


def test_units_beyond_those_of_somebody_else() -> None:
    assert VOCABULARY.units_beyond({}) == VOCABULARY.units_beyond({"hubert": 20, "pitch": 9}) == []
    beyond = VOCABULARY.units_beyond({"hubert": 18, "pitch": 4, "style": 1})
    assert sorted(beyond) == [VOCABULARY.unit_id(*unit) for unit in (("Hu", 18), ("Hu", 19), ("St", 1), ("St", 2))]


def test_the_constraint_works_in_generate_of_transformers() -> None:
    constraint = ModalityLogitsProcessor(banned_ids(VOCABULARY, "speech", 192))
    ids = MODEL.generate(
        torch.tensor([PROMPTS[0]]),
        attention_mask=torch.ones(1, 5, dtype=torch.long),
        logits_processor=[constraint],
        do_sample=False,
        max_new_tokens=12,
    )
    new = ids[0, 5:].tolist()
    assert new[:12] == generate(MODEL, VOCABULARY, PROMPTS[:1], modality="speech", max_new_tokens=12)[0]


def test_without_force_an_answer_may_leave_its_modality() -> None:
    forced, free = (
        {i for new in generate(MODEL, VOCABULARY, PROMPTS * 8, modality="text", sampling=HOT, force=force) for i in new}
        for force in (True, False)
    )
    assert max(forced) < 100 <= max(free) < VOCABULARY.size


def test_greedy_with_cache_equals_recomputing_everything() -> None:
    together = generate(MODEL, VOCABULARY, PROMPTS, modality="any", max_new_tokens=12)
    banned = banned_ids(VOCABULARY, "any", 192)
    for prompt, new in zip(PROMPTS, together, strict=True):
        ids = list(prompt)
        for _ in range(12):
            with torch.inference_mode():
                logits = MODEL(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            token = int(logits.masked_fill(banned, -torch.inf).argmax())
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


def test_equal_prompts_draw_differently_and_each_always_the_same() -> None:
    sampling = Sampling(temperature=1.0, seed=3)
    many = generate(MODEL, VOCABULARY, [PROMPTS[0], PROMPTS[1], PROMPTS[0]], sampling=sampling, max_new_tokens=20)
    assert many[0] != many[2]
    assert generate(MODEL, VOCABULARY, PROMPTS[1:2], sampling=sampling, max_new_tokens=20) == many[1:2]
    short = generate(MODEL, VOCABULARY, PROMPTS[:1], sampling=sampling, max_new_tokens=7)
    assert short[0] == many[0][:7]


def test_top_k_of_one_is_greedy() -> None:
    greedy = generate(MODEL, VOCABULARY, PROMPTS, max_new_tokens=10)
    one = Sampling(temperature=2.0, top_k=1, seed=9)
    assert generate(MODEL, VOCABULARY, PROMPTS, max_new_tokens=10, sampling=one) == greedy


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique=True),
    st.floats(0.05, 1.0),
    st.integers(0, 12),
    st.floats(0, 1, exclude_max=True),
)
def test_choice_follows_the_definition(values: list[float], top_p: float, top_k: int, position: float) -> None:
    """Against sorting, cutting and adding up in plain Python."""
    logits = torch.tensor([values], dtype=torch.float32)
    chosen = int(choose(logits, Sampling(1.0, top_p, 0, top_k), torch.tensor([position], dtype=torch.float64)))
    cuts = bool(top_k and top_k < len(values)) or top_p < 1
    order = sorted(range(len(values)), key=lambda i: -logits[0, i]) if cuts else list(range(len(values)))
    order = order[:top_k] if top_k else order
    weights = np.exp(logits[0, order].double().numpy() - float(logits.max()))
    share = np.cumsum(weights) / weights.sum()
    kept = len(order) if top_p >= 1 else min(int(np.sum(share < top_p)) + 1, len(order))
    target = position * share[kept - 1]
    assert chosen in order[:kept]
    place = order.index(chosen)
    assert share[place] >= target - 1e-9
    assert place == 0 or share[place - 1] <= target + 1e-9


def test_probabilities_are_those_of_the_model() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    uniform = torch.from_numpy(draws([[i] for i in range(4000)], 1, seed=1)[:, 0])
    chosen = choose(probabilities.log().expand(4000, 4), Sampling(1.0), uniform)
    assert np.abs(np.bincount(chosen.numpy(), minlength=4) / 4000 - probabilities[0].numpy()).max() < 0.03
    cut = choose(probabilities.log().expand(4000, 4), Sampling(1.0, top_p=0.7), uniform)
    assert np.abs(np.bincount(cut.numpy(), minlength=4) / 4000 - np.array([0.625, 0.375, 0, 0])).max() < 0.03


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}, {"seed": -1}])
def test_impossible_sampling_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(SpiritLMError, match="sampling needs"):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_finished_prompts_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[1, 100, *range(5, 5 + n)] for n in (2, 30, 58)]  # the context has 64 places
    sizes: list[tuple[int, int]] = []
    forward = MODEL.forward

    def counted(**inputs: object) -> object:
        sizes.append(tuple(inputs["input_ids"].shape))  # type: ignore[attr-defined]
        return forward(**inputs)

    monkeypatch.setattr(MODEL, "forward", counted)
    found = continuations(MODEL, VOCABULARY, prompts, modality="speech", max_new_tokens=20)
    longest = [len(c.ids) + (c.finish == "eos") for c in found]
    assert sizes[0] == (3, 60)
    assert [rows for rows, _ in sizes[1:]] == [sum(n > step for n in longest) for step in range(1, max(longest))]
    monkeypatch.undo()
    alone = [generate(MODEL, VOCABULARY, [p], modality="speech", max_new_tokens=20)[0] for p in prompts]
    assert [c.ids for c in found] == alone


def test_streamed_tokens_are_the_generated_ones() -> None:
    steps = list(stream(MODEL, VOCABULARY, PROMPTS, max_new_tokens=15))
    wanted = continuations(MODEL, VOCABULARY, PROMPTS, max_new_tokens=15)
    for index, continuation in enumerate(wanted):
        mine = [step for step in steps if step.prompt == index]
        assert [step.token for step in mine] == [*continuation.ids, None]
        assert mine[-1].finish == continuation.finish


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
    (ended,) = continuations(MODEL, VOCABULARY, PROMPTS[:1], modality="text", max_new_tokens=10, stop_ids=[stop])
    assert (ended.ids, ended.finish) == (cut, "stop")
    with pytest.raises(SpiritLMError, match="stop_ids"):
        generate(MODEL, VOCABULARY, PROMPTS[:1], stop_ids=[129])


def test_a_transcript_has_no_more_tokens_than_its_speech() -> None:
    speech = [101, *[110] * 5]
    prompts = [[1, 101, *[111] * 9, 100, 5, *speech, 100], [1, *speech[:3], 100], [1, 7, 100]]
    free = generate(MODEL, VOCABULARY, prompts, modality="text", max_new_tokens=12)
    heard = generate(MODEL, VOCABULARY, prompts, modality="text", max_new_tokens=12, transcribes=True)
    assert [len(new) for new in free] == [12, 12, 12]  # this model never ends by itself
    assert heard == [free[0][:5], free[1][:2], free[2]]


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
    strings = [("text", "a "), ("text", "b"), ("speech", "[Hu1]"), ("text", " c")]
    assert prompt_string(strings, "any") == "[Text]a b[Speech][Hu1][Text] c"  # type: ignore[arg-type]
    assert prompt_string(strings, "speech") == "[Text]a b[Speech][Hu1][Text] c[Speech]"  # type: ignore[arg-type]
    assert [prompt_string([], kind) for kind in ("text", "speech", "any")] == ["[Text]", "[Speech]", ""]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY.size - 1), max_size=40))
def test_splitting_into_parts_loses_nothing_but_markers(ids: list[int]) -> None:
    parts = parts_of(ids, VOCABULARY)
    kept = [i for i in ids if i not in (1, 2, 100, 101)]
    assert [i for _, part in parts for i in part] == kept
    assert all(a[0] != b[0] for a, b in pairwise(parts))
    assert all((VOCABULARY.is_speech(np.array(part)) == (kind == "speech")).all() for kind, part in parts)
