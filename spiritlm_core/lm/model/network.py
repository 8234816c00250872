"""The language model: a fresh Llama, or any causal LM with its vocabulary extended for speech tokens.

Rows of units may start where the quantizer's clusters lie: units that sound alike start alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.references.content import check_weights
from spiritlm_core.speech.quantizers.quantizer import load_quantizer
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE, Vocabulary

CausalLM: TypeAlias = Any
"""A transformers model for causal language modelling; their types do not describe what it can do."""

_CLOSE = 0.1  # spread of new output rows: distinct, and the perplexity of SmolLM2 on text changes by 4e-5 only


def padded_rows(vocabulary: Vocabulary, multiple: int) -> int:
    """Rows of the embedding: the vocabulary's size rounded up to a `multiple` (fast matrix products, even shards)."""
    return -(-vocabulary.size // multiple) * multiple


def build_model(
    config: LmConfig,
    vocabulary: Vocabulary,
    *,
    context_length: int,
    base: Path | None = None,
    quantizer: Path | None = None,
    attention: str = "sdpa",
) -> CausalLM:
    """The model before its first step, in float32 on the CPU; the same for the same config on any machine.

    It gets one row for each token of `vocabulary`, plus padding rows. `base` is the local folder or ``.gguf`` file of
    the base model; None builds a fresh Llama for `context_length` positions. `quantizer` is the folder of that of the
    units, where their rows start from its centres.

    Raises ModelReferenceError: `base` cannot be loaded; SpiritLMError: the base model cannot take the vocabulary or the
    RoPE base.
    """
    torch.manual_seed(config.seed)
    new = base is None or not _speaks(base, vocabulary)
    if base is None:
        model = _fresh_llama(config, vocabulary, context_length, attention)
    else:
        model = load_pretrained(base, attention)
        if new:
            extend_vocabulary(model, vocabulary, multiple=config.vocabulary_multiple, init=config.new_token_init)
        _extend_context(model, context_length, config.rope_base)
    if new and config.from_centres:
        spread = 1.0 if base is None else _CLOSE
        start_from_centres(model, vocabulary, quantizer, seed=config.seed, spread=spread)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.eos_token_id = vocabulary.bos, vocabulary.eos
        settings.pad_token_id = vocabulary.eos  # generate() wants one; padding is masked, so any id will do
    return model


def _speaks(base: Path, vocabulary: Vocabulary) -> bool:
    """Whether a base model has been trained with this vocabulary already.

    Raises SpiritLMError: with another one that has speech tokens, too.
    """
    if not (base / VOCABULARY_FILE).is_file():
        return False
    have = load_vocabulary(base)
    if have.fingerprint() != vocabulary.fingerprint():
        raise SpiritLMError(
            f"{base} knows {have.hubert} [Hu], {have.pitch} [Pi] and {have.style} [St] tokens behind {have.text_size} "
            f"text tokens, the sequences {vocabulary.hubert}, {vocabulary.pitch} and {vocabulary.style} behind "
            f"{vocabulary.text_size}: use its own tokenizer and sizes of tokens.sequences"
        )
    return True


def _fresh_llama(config: LmConfig, vocabulary: Vocabulary, context_length: int, attention: str) -> CausalLM:
    shape = config.architecture
    make: Any = LlamaConfig
    llama = make(
        vocab_size=padded_rows(vocabulary, config.vocabulary_multiple),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=shape.tied_embeddings,
        attn_implementation=attention,
        rope_theta=config.rope_base or 10_000.0,
    )
    return LlamaForCausalLM(llama)  # type: ignore[no-untyped-call]


def load_pretrained(path: Path, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> CausalLM:
    """Load a causal LM, in float32 unless told otherwise, from a Hugging Face folder or a ``.gguf`` file, offline.

    Raises ModelReferenceError: there is no such file or folder, transformers cannot load it, or weights are missing
    (transformers would draw them at random and go on).
    """
    options: dict[str, Any] = {"attn_implementation": attention, "local_files_only": True, "dtype": dtype}
    folder = path
    if path.is_file() and path.suffix == ".gguf":
        folder, options["gguf_file"] = path.parent, path.name
    elif not path.is_dir():
        raise ModelReferenceError(f"{path}: neither a Hugging Face model folder nor a .gguf file")
    else:
        check_weights(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=False, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelReferenceError(f"{path}: cannot be loaded as a causal language model: {error}") from error
    model, info = loaded
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()  # noqa: SLF001
    if missing := sorted(set(info["missing_keys"]) - tied):
        raise ModelReferenceError(f"{path}: lacks the weights {missing[:5]} of a {type(model).__name__}")
    return model


def extend_vocabulary(model: CausalLM, vocabulary: Vocabulary, *, multiple: int, init: str) -> None:
    """Give the model one embedding and one output row for each token that follows the text tokens.

    Rows of text tokens stay as they are, so the logits of text before training do too. Rows behind the last
    text token may exist already (many models pad theirs); they were never trained and are drawn anew.

    Raises SpiritLMError: the model has fewer rows than the tokenizer has text tokens.
    """
    text = vocabulary.text_size
    have = model.get_input_embeddings().weight.shape[0]
    if have < text:
        raise SpiritLMError(
            f"the base model has {have} embedding rows but its tokenizer has {text} tokens: "
            "take the tokenizer of the base model (tokens.tokenizer)"
        )
    model.resize_token_embeddings(padded_rows(vocabulary, multiple), mean_resizing=False)
    entry, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    _init_rows(output, text, 0.0 if init == "mean" else _CLOSE)
    if entry is not output:
        _init_rows(entry, text, 0.0 if init == "mean" else 1.0)


@torch.no_grad()
def _init_rows(table: nn.Parameter, first: int, spread: float) -> None:
    """Draw the rows from `first` on around the mean of the trained ones, with a share `spread` of their spread.

    What the rows of a trained output layer have in common is what makes most tokens unlikely. Rows that lack it, such
    as normal ones around zero, take a good part of the probability of text before they have learned anything.
    """
    trained, new = table[:first], table[first:]
    noise = torch.randn(new.shape, dtype=table.dtype) * trained.std(dim=0)
    new.copy_(trained.mean(dim=0) + spread * noise)


def _extend_context(model: CausalLM, context_length: int, rope_base: float | None) -> None:
    """Raise the number of positions if needed, and change the RoPE base (the paper: 10k → 100k for 4k positions)."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    if window is not None and window < context_length:
        raise SpiritLMError(
            f"{type(model).__name__} sees {window} tokens at a time: lower tokens.context_length {context_length}"
        )
    config.max_position_embeddings = max(context_length, config.max_position_embeddings)
    if rope_base is None or rope_base == rope_base_of(config):
        return
    inner = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    rotary = getattr(inner, "rotary_emb", None)
    if rotary is None:
        raise SpiritLMError(f"{type(model).__name__} has no rotary embedding to change: set lm.rope_base to null")
    if getattr(config, "rope_parameters", None):
        config.rope_parameters = {**config.rope_parameters, "rope_theta": rope_base}
    else:
        config.rope_theta = rope_base
    inner.rotary_emb = type(rotary)(config=config)


def rope_base_of(config: Any) -> float | None:
    """Base of the rotary embedding; transformers 5 keeps it in ``rope_parameters``, 4 in ``rope_theta``."""
    parameters = getattr(config, "rope_parameters", None)
    return parameters.get("rope_theta") if parameters else getattr(config, "rope_theta", None)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def start_from_centres(model: Any, vocabulary: Vocabulary, quantizer: Path | None, *, seed: int, spread: float) -> None:
    """Put the rows of [Hu] tokens where a random orthogonal map puts the centres of the units; others stay.

    With c the standardised centres and P the map (from D features to H, its rows or columns orthonormal, so that
    distances between centres are kept as far as H allows), row k is ``mean + spread * s * c[k] @ P``. Here `mean` is
    that of the text rows, and s makes the rows as long as the text rows are, less their mean.

    Args:
        model: its embedding and output layer have a row for each id.
        vocabulary: tells which rows are text, and which are units; units that the quantizer lacks stay as they are.
        quantizer: its folder.
        seed: of the map.
        spread: of the rows of the output layer; those of an embedding of its own have a spread of 1.

    Raises SpiritLMError: no quantizer is given; ModelReferenceError: it cannot be loaded.
    """
    if quantizer is None:
        raise SpiritLMError("lm.new_token_init: centres needs the quantizer of the units, its folder as `quantizer`")
    centres = load_quantizer(quantizer).unit_vectors[: vocabulary.hubert].astype(np.float64)
    standardised = torch.from_numpy((centres - centres.mean(axis=0)) / (centres.std(axis=0) + 1e-8))
    entry, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    projection = torch.empty(standardised.shape[1], entry.shape[1], dtype=torch.float64)
    nn.init.orthogonal_(projection, generator=torch.Generator().manual_seed(seed))
    projected = standardised @ projection
    _put(output, vocabulary, projected, spread)
    if entry is not output:
        _put(entry, vocabulary, projected, 1.0)


@torch.no_grad()
def _put(table: nn.Parameter, vocabulary: Vocabulary, projected: torch.Tensor, spread: float) -> None:
    text, first = table[: vocabulary.text_size], vocabulary.unit_id("Hu", 0)
    mean = text.mean(dim=0)
    scale = (text - mean).square().sum(dim=1).mean().sqrt() / projected.square().sum(dim=1).mean().sqrt()
    table[first : first + len(projected)] = mean + spread * (scale * projected).to(table.dtype)
