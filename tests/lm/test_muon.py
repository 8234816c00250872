"""Muon: what its steps are, how they are computed by several ranks, and what training gains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from spiritlm_core.fit.job import FitJob
from spiritlm_core.lm.config import LmConfig, LoraConfig, OptimizerConfig
from spiritlm_core.lm.model.network import load_pretrained
from spiritlm_core.lm.train.optimizer import (
    MOMENTUM,
    Muon,
    build_optimizer,
    learning_rate,
    orthogonalised,
    set_learning_rate,
)
from tests.lm.training import assert_same_weights, losses, run
from tests.support.small_model import tiny_config

MUON = OptimizerConfig(kind="muon", learning_rate=1e-2, warmup_steps=3)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16), (7, 1)])
def test_singular_values_of_a_step_are_about_one_and_its_directions_stay(shape: tuple[int, int]) -> None:
    """Whatever the length of the matrix, and down to a hundredth of its largest singular value."""
    generator = torch.Generator().manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.logspace(0, -2, min(shape))
    for length in (1e-12, 1.0, 1e12):
        found = u.T @ orthogonalised(length * (u * values) @ vt) @ vt.T
        assert (found - torch.diag(torch.diag(found))).abs().max() < 1e-4
        assert torch.diag(found).min() > 0.65
        assert torch.diag(found).max() < 1.25
    assert torch.equal(orthogonalised(torch.zeros(shape)), torch.zeros(shape))


def test_a_step_is_the_formula() -> None:
    """Two steps of a matrix and of a convolution, beside a gain that AdamW moves as ever."""
    torch.manual_seed(0)
    starts = [torch.randn(12, 6), torch.randn(6, 4, 3), torch.randn(5)]
    *matrices, gain = [nn.Parameter(start.clone()) for start in starts]
    alone = nn.Parameter(starts[-1].clone())
    groups = [
        {"params": matrices, "lr": 0.1, "momentum": MOMENTUM, "weight_decay": 0.5},
        {"params": [gain], "weight_decay": 0.0},
    ]
    muon, adam = Muon(groups, lr=0.01), torch.optim.AdamW([alone], lr=0.01, weight_decay=0.0)
    momenta = [torch.zeros_like(start) for start in starts]
    for _ in range(2):
        for index, parameter in enumerate([*matrices, gain]):
            gradient = torch.randn_like(parameter)
            parameter.grad = gradient
            momenta[index] = 0.95 * momenta[index] + 0.05 * gradient
            direction = 0.05 * gradient + 0.95 * momenta[index]
            scale = {0: 2**0.5, 1: 1.0}.get(index, 0.0)
            flat = direction.flatten(1) if index < 2 else direction[:, None]
            starts[index] = 0.95 * starts[index] - 0.1 * scale * orthogonalised(flat).view_as(direction)
        alone.grad = gain.grad
        muon.step()
        adam.step()
    for parameter, expected in zip(matrices, starts, strict=False):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(gain, alone)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'ranks'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_shared_out_or_not_the_step_is_the_same(mesh: Any) -> None:
    """In one process; test_train.py has two ranks."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    torch.manual_seed(0)
    start, gradient, moved = torch.randn(8, 6), torch.randn(8, 6), []
    for spread in (lambda tensor: tensor, lambda tensor: distribute_tensor(tensor, mesh, [Shard(0)])):
        parameter = nn.Parameter(spread(start.clone()))
        parameter.grad = spread(gradient)
        Muon([{"params": [parameter], "momentum": MOMENTUM}], lr=0.1).step()
        moved.append(parameter.detach())
    assert isinstance(moved[1], DTensor)
    assert torch.equal(moved[1].full_tensor(), moved[0])


def test_muon_takes_the_matrices_of_the_blocks_and_follows_the_schedule(published: Path) -> None:
    model = load_pretrained(published)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, MUON)
    set_learning_rate(optimizer, learning_rate(MUON, 0, 100), MUON)
    for group in optimizer.param_groups:
        mine = "momentum" in group
        assert group["lr"] == pytest.approx((0.02 if mine else 1e-2) / 3)
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert mine == name.endswith("proj.weight"), name
    assert not names


def test_the_rate_of_muon_is_nothing_to_adamw() -> None:
    adamw, muon = OptimizerConfig(), OptimizerConfig(kind="muon")
    other = {"muon_learning_rate": 0.01}
    assert adamw.model_copy(update=other).key() == adamw.key()
    assert not {"kind", "muon_learning_rate"} & adamw.key().keys()
    assert len({str(config.key()) for config in (adamw, muon, muon.model_copy(update=other))}) == 3


def test_adapters_are_no_matrices_of_their_own() -> None:
    with pytest.raises(ValueError, match="lora.*needs optimizer.kind adamw"):
        LmConfig(optimizer=MUON, lora=LoraConfig())


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_stopped_and_resumed_is_undisturbed_bit_for_bit(job: FitJob, kind: str) -> None:
    """Also from a checkpoint of the first phase, in which most weights have not been moved yet."""
    optimizer = MUON.model_copy(update={"kind": kind})
    whole = replace(job, config=tiny_config(optimizer=optimizer, new_tokens_first=6))
    whole = replace(whole, compute=job.compute.model_copy(update={"keep_checkpoints": 9}))
    run(whole)
    for step in (4, 8):
        there = replace(whole, resume_from=job.work / "checkpoints" / f"step-{step:08}")
        there = replace(there, work=job.work.parent / f"w{step}", out=job.out.parent / f"o{step}")
        run(there)
        assert losses(there.out) == losses(job.out)
        assert_same_weights(there.out, job.out)


def test_training_needs_fewer_steps_than_with_adamw(job: FitJob) -> None:
    """The same steps, with a learning rate of AdamW that is the best of three of its own."""
    reached = {}
    for kind, rate in (("adamw", 5e-3), ("adamw", 1e-2), ("adamw", 2e-2), ("muon", 1e-2)):
        optimizer = MUON.model_copy(update={"kind": kind, "learning_rate": rate})
        folder = job.work.parent / f"{kind}-{rate}"
        run(replace(job, config=tiny_config(steps=60, optimizer=optimizer), work=folder, out=folder / "out"))
        reached[kind, rate] = np.mean([loss for _, loss, _ in losses(folder / "out")[-10:]])
    muon = reached.pop(("muon", 1e-2))
    assert all(muon < loss for loss in reached.values()), (muon, reached)
