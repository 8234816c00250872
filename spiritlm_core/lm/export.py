"""The trained model as an ordinary Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from spiritlm_core.lm.config import ModelConfig
from spiritlm_core.lm.model import CausalLM, padded_rows
from spiritlm_core.lm.parallel import World
from spiritlm_core.tokens.hf import save_tokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary


def export_model(
    model: CausalLM,
    vocabulary: Vocabulary,
    tokenizer: Path,
    out: Path,
    *,
    world: World,
    rows: Sequence[dict[str, Any]],
    config: ModelConfig,
) -> None:
    """Write a folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load. Every rank must call this.

    It holds the weights (safetensors, bfloat16 if that was the arithmetic), the configurations, the full tokenizer,
    ``vocabulary.json``, ``training.json`` (what was trained, and how) and ``metrics.parquet`` (one row per step).
    """
    weights: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if world.first:
        out.mkdir(parents=True, exist_ok=True)
        _save_weights(model, weights, torch.bfloat16 if world.bf16 else torch.float32, out)
        save_tokenizer(tokenizer, vocabulary, out)
        record = {
            "config": config.model_dump(mode="json"),
            "vocabulary": vocabulary.fingerprint(),
            "vocabulary_size": vocabulary.size,
            "embedding_rows": padded_rows(vocabulary, config.lm.vocabulary_multiple),
            "steps": config.lm.steps,
            "tokens": rows[-1]["tokens"],
        }
        (out / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(list(rows)), out / "metrics.parquet")
    world.barrier()


def _save_weights(model: CausalLM, weights: dict[str, torch.Tensor], dtype: torch.dtype, out: Path) -> None:
    """Save through a model without FSDP and compilation, whose tensors are these weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain: CausalLM = AutoModelForCausalLM.from_config(model.config)  # type: ignore[no-untyped-call]
    plain.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(out)
