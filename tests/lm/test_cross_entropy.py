from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.lm.losses import cross_entropy
from spiritlm_core.lm.losses.cross_entropy import linear_cross_entropy


def problem(count: int, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = 3 * torch.randn(count, 6, generator=generator)
    weight = torch.randn(rows, 6, generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(0, rows, (count,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 150), st.integers(1, 50), st.floats(0.01, 10), st.integers(0, 99))
def test_loss_and_gradients_are_those_of_torch(count: int, rows: int, scale: float, seed: int) -> None:
    """Several chunks of 32 positions."""
    hidden, weight, targets = problem(count, rows, seed)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setattr(cross_entropy, "CHUNK_BYTES", 1)
        loss, nats = linear_cross_entropy(hidden, weight, targets, scale)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(nats, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, scale * expected.sum())
    ours = torch.autograd.grad(2 * loss, (hidden, weight))
    theirs = torch.autograd.grad(2 * scale * expected.sum(), (hidden, weight))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_bf16_products_keep_float32_weights_and_sums() -> None:
    hidden, weight, targets = problem(200, 40, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, nats = linear_cross_entropy(hidden, weight, targets)
    assert loss.dtype == nats.dtype == torch.float32
    gradient = torch.autograd.grad(loss, (hidden, weight))
    assert [g.dtype for g in gradient] == [torch.float32] * 2
    exact = torch.autograd.grad(torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum"), weight)
    torch.testing.assert_close(gradient[1], exact[0], rtol=0.1, atol=0.3)


def test_large_logits_do_not_overflow() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    loss, nats = linear_cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0]))
    assert nats.tolist() == [0.0, 20_000.0]
    loss.backward()
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_nothing_but_the_losses_is_computed_without_gradients() -> None:
    hidden, weight, targets = problem(10, 7, 1)
    with torch.no_grad():
        loss, _ = linear_cross_entropy(hidden, weight, targets)
    assert not loss.requires_grad
