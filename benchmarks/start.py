"""Memory and time of starting a model that two CPU ranks share: each builds its share, or all of it first.

    python benchmarks/start.py [--shape 135m|1.3b] [--folder DIR] [--shared-only]

Two processes with gloo. `fresh` draws the weights, `base` reads them from safetensors files in bfloat16, which the
script writes into `folder` first. `peak` is the memory of a rank beyond what it has before (PyTorch alone is half a
gigabyte), in GB and as a share of the whole model in float32.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import typer
from lm import SHAPES
from machine import peak_memory
from torch.multiprocessing.spawn import spawn

from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lm.config import ArchitectureConfig, LmCompute, LmConfig
from spiritlm_core.lm.model.network import build_model
from spiritlm_core.lm.train.objective import Objective, place, share_blocks
from spiritlm_core.tokens.vocabulary import Vocabulary

TEXT = Vocabulary(text_size=32_000, bos=1, eos=2, hubert=1, pitch=0, style=0)
VOCABULARY = Vocabulary(text_size=32_000, bos=1, eos=2, hubert=501, pitch=0, style=0)


def build(shape: ArchitectureConfig, base: Path | None, vocabulary: Vocabulary = VOCABULARY, share: Any = None) -> Any:
    """The model of a rank."""
    return build_model(LmConfig(architecture=shape), vocabulary, context_length=2048, base=base, share=share)


def rank_main(rank: int, shape: ArchitectureConfig, base: Path | None, share: bool, store: Path) -> None:
    """Build, shard, and say what it took."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    ranks = Ranks.current(use_gpu=False)
    before, begun = peak_memory(), time.monotonic()
    lm = build(shape, base, share=partial(share_blocks, ranks=ranks) if share else None)
    objective = place(Objective(lm), ranks, LmCompute())
    seconds = time.monotonic() - begun
    peak = peak_memory() - before
    whole = 4 * sum(parameter.numel() for parameter in objective.parameters())
    what = f"{'base' if base else 'fresh'}, {'shared' if share else 'whole'}, rank {rank}"
    print(
        f"{what:28}{whole / 4e9:>8.2f} G weights{seconds:>9.1f} s{peak / 1e9:>9.2f} GB{peak / whole:>8.2f}", flush=True
    )
    dist.destroy_process_group()


def main(shape: str = "135m", folder: Path | None = None, *, shared_only: bool = False) -> None:
    """Start a model of this shape, perhaps without the ranks that build all of it first.

    The base model is written below this folder, else below a temporary one.
    """
    sizes = ArchitectureConfig(**SHAPES[shape])
    with tempfile.TemporaryDirectory(dir=folder) as name:
        base = Path(name) / "base"
        build(sizes, None, TEXT).to(torch.bfloat16).save_pretrained(base)
        ways = [(where, share) for where in (None, base) for share in (False, True) if share or not shared_only]
        for number, (where, share) in enumerate(ways):
            spawn(rank_main, args=(sizes, where, share, Path(name) / f"store-{number}"), nprocs=2)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    typer.run(main)
