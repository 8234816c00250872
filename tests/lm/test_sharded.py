"""Two ranks that each build their share of a model have together what one process builds."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lm.config import ArchitectureConfig, LmCompute, LmConfig
from spiritlm_core.lm.model.network import build_model
from spiritlm_core.lm.model.sharded import parameters_on_meta
from spiritlm_core.lm.train.objective import Objective, blocks, place, share_blocks
from spiritlm_core.tokens.vocabulary import Vocabulary

SMALL = ArchitectureConfig(hidden_size=24, layers=3, heads=3, kv_heads=1, ffn_size=41)  # no even shares
UNTIED = SMALL.model_copy(update={"tied_embeddings": False})
TEXT = Vocabulary(97, bos=1, eos=2, hubert=1, pitch=0, style=0)
VOCABULARY = Vocabulary(97, bos=1, eos=2, hubert=20, pitch=5, style=3)


def build(case: str, folder: Path, ranks: Ranks | None = None) -> torch.nn.Module:
    share = partial(share_blocks, ranks=ranks) if ranks else None
    if case.startswith("fresh"):
        shape = UNTIED if case == "fresh-untied" else SMALL
        return build_model(LmConfig(architecture=shape, seed=3), VOCABULARY, context_length=64, share=share)
    config = LmConfig(seed=3, rope_base=50_000.0, vocabulary_multiple=8)
    return build_model(config, VOCABULARY, context_length=64, base=folder / case, share=share)


def save_bases(folder: Path) -> None:
    for name, shape in (("tied", SMALL), ("untied", UNTIED)):
        model = build_model(LmConfig(architecture=shape, vocabulary_multiple=1), TEXT, context_length=32)
        model.to(torch.bfloat16).save_pretrained(folder / name, max_shard_size="20KB")
    model.base_model.save_pretrained(folder / "inner")  # names without the prefix


CASES = ("fresh", "fresh-untied", "tied", "untied")


def rank_main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    ranks = Ranks.current(use_gpu=False)
    for case in CASES:
        torch.manual_seed(0)
        model = build(case, folder, ranks)
        state = torch.random.get_rng_state()
        assert all(isinstance(p, DTensor) for p in blocks(model).parameters())
        assert not any(p.is_meta for p in model.parameters())
        objective = place(Objective(model), ranks, LmCompute())
        found = {name: p.full_tensor() for name, p in objective.lm.named_parameters()}
        whole = build(case, folder)
        wanted = dict(whole.named_parameters())
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), case
        assert (torch.random.get_rng_state() == state).all()
        for name, buffer in whole.named_buffers():
            assert torch.equal(buffer, objective.lm.get_buffer(name))
        assert objective.lm.generation_config.to_dict() == whole.generation_config.to_dict()
        assert objective.lm.config.to_dict() == whole.config.to_dict()
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_two_ranks_have_together_the_weights_that_one_has(tmp_path: Path) -> None:
    save_bases(tmp_path)
    mp.spawn(rank_main, args=(tmp_path,), nprocs=2)


def test_a_folder_with_other_names_is_loaded_whole_and_another_shape_refused(tmp_path: Path) -> None:
    save_bases(tmp_path)
    shared: list[torch.nn.Module] = []
    config = LmConfig(seed=3)
    assert build_model(config, VOCABULARY, context_length=64, base=tmp_path / "tied", share=shared.append)
    assert len(shared) == 1
    import json

    path = tmp_path / "tied" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 40}))
    with pytest.raises(ModelReferenceError, match=r"mlp.*has the shape"):
        build_model(config, VOCABULARY, context_length=64, base=tmp_path / "tied", share=shared.append)


def test_modules_are_made_as_ever_afterwards() -> None:
    with parameters_on_meta():
        assert torch.nn.Linear(2, 3).weight.is_meta
    assert not torch.nn.Linear(2, 3).weight.is_meta
