from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.cores import large_products
from spiritlm_core.lm.model.attention import Documents, block_mask, documents_attention

lengths = st.lists(st.integers(1, 70), min_size=1, max_size=12)


def bounds(row: list[int]) -> Documents:
    return Documents.of(np.repeat(np.arange(len(row)), row))


def inputs(count: int, heads: int, kv_heads: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    shapes = [(1, h, count, 8) for h in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row: list[int]) -> torch.Tensor:
    """The definition: a softmax over the earlier tokens of the same document."""
    owner = torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row))
    seen = (owner[:, None] == owner[None]).tril()
    k, v = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    scores = (query @ k.transpose(-1, -2) * 0.3).masked_fill(~seen, -torch.inf)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2)


@settings(max_examples=40, deadline=None)
@given(lengths, st.sampled_from([(4, 4), (4, 2)]), st.booleans())
def test_attention_and_its_gradients_are_those_of_a_mask(row: list[int], heads: tuple[int, int], large: bool) -> None:
    """Also where training lets large products be computed otherwise than small ones."""
    given_ = inputs(sum(row), *heads)
    with large_products(large=large):
        found, _ = documents_attention(torch.nn.Identity(), *given_, None, 0.3, documents=bounds(row))
        expected = masked(*given_, row)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        weights = torch.randn_like(found)
        ours, theirs = (torch.autograd.grad((x * weights).sum(), given_) for x in (found, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", [[5], [40, 3, 90, 7]])
def test_flex_attention_sees_the_same(row: list[int]) -> None:
    """What GPUs use whose torch has no variable-length kernel; here it runs uncompiled."""
    documents = bounds(row)
    given_ = inputs(sum(row), 4, 2)
    with torch.inference_mode():
        masks = replace(documents, mask=block_mask(documents.offsets))
        found, _ = documents_attention(torch.nn.Identity(), *given_, None, 0.3, documents=masks)
        torch.testing.assert_close(found, masked(*given_, row), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(lengths)
def test_every_token_has_one_slot_and_calls_are_few_and_full(row: list[int]) -> None:
    documents = bounds(row)
    count = sum(row)
    assert documents.offsets.tolist() == [0, *np.cumsum(row).tolist()]
    assert documents.longest == max(row)
    assert documents.gather[documents.scatter].tolist() == list(range(count))
    assert int((documents.gather < count).sum()) == count
    assert sum(members * length for members, length in documents.groups) == len(documents.gather)
    assert documents.pairs == sum(n * (n + 1) // 2 for n in row)
    assert len(documents.groups) <= 8


def test_large_products_are_as_exact_and_end() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, generator=generator) for size in ((300, 700), (700, 200)))
    true = left.double() @ right.double()
    plain = (left @ right - true).abs().max()
    with large_products():
        large = (left @ right - true).abs().max()
        with large_products(large=False):
            assert torch.get_float32_matmul_precision() == "highest"
    assert large < 2 * plain
    assert torch.get_float32_matmul_precision() == "highest"
