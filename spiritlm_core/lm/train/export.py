"""The trained model as an ordinary Hugging Face folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from spiritlm_core.files import read_json
from spiritlm_core.lm.model.lora import merged, save_adapters
from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.lm.train.run import Run
from spiritlm_core.tokens.hf import TOKENIZER_FILES, copy_files, save_tokenizer, write_model_config
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE, Vocabulary


def export_model(run: Run) -> None:
    """Write a folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load. Every rank must call this.

    It holds the weights (safetensors, bfloat16 if that was the arithmetic), the configurations, the full tokenizer,
    ``vocabulary.json``, ``training.json`` (what was trained, and how), ``metrics.parquet`` (one row per step) and
    ``tensorboard/``. With LoRA and ``export: adapter``, adapters of peft are in place of the weights.
    """
    lm, out = run.training.config.lm, run.training.out
    weights: dict[str, Any] = get_model_state_dict(
        run.lm, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if run.ranks.first:
        out.mkdir(parents=True, exist_ok=True)
        dtype = torch.bfloat16 if run.ranks.bf16 else torch.float32
        if lm.lora is not None and lm.lora.export == "adapter":
            save_adapters(run.lm, weights, lm.lora, dtype, out)
        else:
            _save_weights(run.lm, merged(run.lm, weights), dtype, out)
        _save_tokenizer(run.training.tokenizer, run.vocabulary, out)
        _save_record(run, out)
    run.ranks.barrier()


def _save_tokenizer(folder: Path, vocabulary: Vocabulary, out: Path) -> None:
    """The full tokenizer: as it is in a model's folder, extended by the speech tokens otherwise."""
    if (folder / VOCABULARY_FILE).is_file():
        copy_files((*TOKENIZER_FILES, VOCABULARY_FILE), folder, out)
        write_model_config(out, read_json(folder / "tokenizer_config.json"))
    else:
        save_tokenizer(folder, vocabulary, out)


def _save_record(run: Run, out: Path) -> None:
    config, rows = run.training.config, run.state.rows
    record = {
        "config": config.model_dump(mode="json"),
        "vocabulary": run.vocabulary.fingerprint(),
        "vocabulary_size": run.vocabulary.size,
        "embedding_rows": run.lm.get_input_embeddings().weight.shape[0],
        "steps": run.state.step,
        "ended_early": run.ended_early,
        "tokens": rows[-1]["tokens"],
    }
    (out / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), out / "metrics.parquet")
    board = run.training.work / "tensorboard"
    if board.is_dir():
        shutil.copytree(board, out / "tensorboard", dirs_exist_ok=True)


def _save_weights(model: CausalLM, weights: dict[str, torch.Tensor], dtype: torch.dtype, out: Path) -> None:
    """Save through a model without FSDP and compilation, whose tensors are these weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain: CausalLM = AutoModelForCausalLM.from_config(model.config)  # type: ignore[no-untyped-call]
    plain.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(out)
