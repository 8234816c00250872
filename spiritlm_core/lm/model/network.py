"""The language model: a fresh Llama, or any causal LM with its vocabulary extended for speech tokens.

Rows of units may start where the quantizer's clusters lie: units that sound alike start alike.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from pydantic import Field
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from spiritlm_core.config import sentence_of
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.files import read_json
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.model.sharded import Share, drawn, loaded
from spiritlm_core.references.content import check_finite, check_weights
from spiritlm_core.speech.encoders.encoder import quiet_loading
from spiritlm_core.speech.quantizers.quantizer import load_quantizer
from spiritlm_core.speech.released.reading import Described, describe, read_archive, shapes
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
    share: Share | None = None,
) -> CausalLM:
    """The model before its first step, in float32 on the CPU; the same for the same config on any machine.

    With `share`, this rank has its share of the blocks alone; see :mod:`spiritlm_core.lm.model.sharded`.

    It gets one row for each token of `vocabulary`, plus padding rows. `base` is the local folder or ``.gguf`` file of
    the base model; None builds a fresh Llama for `context_length` positions. `quantizer` is the folder of that of the
    units, where their rows start from its centres.

    Raises ModelReferenceError: `base` cannot be loaded; SpiritLMError: the base model cannot take the vocabulary or the
    RoPE base.
    """
    torch.manual_seed(config.seed)
    new = base is None or not _speaks(base, vocabulary)
    if base is None:
        model = _fresh_llama(config, vocabulary, context_length, attention, share)
    else:
        model = load_pretrained(base, attention, share=share)
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


def _fresh_llama(
    config: LmConfig, vocabulary: Vocabulary, context_length: int, attention: str, share: Share | None
) -> CausalLM:
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
    fresh: Any = LlamaForCausalLM
    return drawn(lambda: fresh(llama), share) if share else fresh(llama)


def load_pretrained(
    path: Path,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    share: Share | None = None,
    *,
    exact: bool = False,
) -> CausalLM:
    """Load a causal LM, in float32 unless told otherwise, from a Hugging Face folder or a ``.gguf`` file, offline.

    With `share`, this rank's share of the blocks alone if the folder has safetensors files that name the weights as the
    model does, else all of it. With `exact`, the folder has no weights but those of the model.

    Raises ModelReferenceError: there is no such file or folder, transformers cannot load it, or weights are missing
    (transformers would draw them at random and go on), too many, or no numbers.
    """
    options: dict[str, Any] = {"attn_implementation": attention, "local_files_only": True, "dtype": dtype}
    folder = path
    if path.is_file() and path.suffix == ".gguf":
        folder, options["gguf_file"] = path.parent, path.name
    elif not path.is_dir():
        raise ModelReferenceError(f"{path}: neither a Hugging Face model folder nor a .gguf file")
    else:
        _check_folder(folder)
        if share and (shared := _shared(folder, attention, dtype, share)):
            return shared
    try:
        with quiet_loading():
            loading: Any = AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=False, output_loading_info=True, **options
            )
    except Exception as error:  # whatever transformers makes of a folder that is damaged
        reason = f"it does not know {error}" if isinstance(error, KeyError) else sentence_of(error)
        raise ModelReferenceError(f"{path}: {_said(reason, folder) if folder == path else reason}") from error
    model, info = loading
    _check_loaded(model, info, path, exact=exact)
    return model


class _Shape(Described):
    """What the ``config.json`` of any language model says of its size, if it does; a model is built from it at once."""

    vocab_size: int | None = Field(None, ge=1, le=1 << 24)
    hidden_size: int | None = Field(None, ge=1, le=1 << 20)
    intermediate_size: int | None = Field(None, ge=1, le=1 << 24)
    num_hidden_layers: int | None = Field(None, ge=1, le=1000)
    num_attention_heads: int | None = Field(None, ge=1, le=1 << 16)
    num_key_value_heads: int | None = Field(None, ge=1, le=1 << 16)
    max_position_embeddings: int | None = Field(None, ge=1)
    rope_theta: float | None = Field(None, gt=0)


def _check_folder(folder: Path) -> None:
    """Raises ModelReferenceError: the configuration or a file of weights is damaged; transformers says less."""
    check_weights(folder)
    describe(_Shape, read_json(folder / "config.json"), str(folder / "config.json"))
    if any(folder.glob("*.safetensors")):
        return
    if not (archives := sorted(folder.glob("pytorch_model*.bin"))):
        raise ModelReferenceError(f"{folder} has no weights, such as model.safetensors: copy or download it whole")
    for archive in archives:
        read_archive(archive)


def _said(reason: str, folder: Path) -> str:
    """What is wrong with a folder that transformers does not load for `reason`; names fields of its configuration."""
    config = read_json(folder / "config.json")
    if "size mismatch" in reason:
        make: Any = AutoModelForCausalLM
        wanted = shapes(lambda: make.from_config(AutoConfig.from_pretrained(folder, local_files_only=True)))
        for name, shape in _stored(folder):
            if differ := set(wanted.get(name, shape)) - set(shape):
                fields = ", ".join(f"{field} {value}" for field, value in config.items() if value in (*differ,))
                asks = f"config.json ({fields})" if fields else "config.json"
                return (
                    f"{name} has the shape {[*shape]}, and {asks} asks for {[*wanted[name]]}: they belong to "
                    "different models, download the folder again"
                )
    return f"cannot be loaded as the model_type {config.get('model_type')} that its config.json names: {reason}"


def _stored(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of the weights in a folder."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            yield from ((name, tuple(weights.get_slice(name).get_shape())) for name in weights.keys())  # noqa: SIM118
    for path in sorted(folder.glob("pytorch_model*.bin")):
        yield from ((name, tuple(weight.shape)) for name, weight in read_archive(path).items())


def _check_loaded(model: CausalLM, info: dict[str, Any], path: Path, *, exact: bool) -> None:
    """Raises ModelReferenceError: the weights are too few or too many for the configuration, or no numbers."""
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()  # noqa: SLF001
    if missing := sorted(set(info["missing_keys"]) - tied):
        raise ModelReferenceError(
            f"{path}: lacks the weights {missing[:5]} that its config.json (model_type {model.config.model_type}, "
            f"{model.config.num_hidden_layers} layers) asks for, {len(missing)} in all"
        )
    if exact and (spare := sorted(info["unexpected_keys"])):
        raise ModelReferenceError(f"{path}: has the weights {spare[:5]}, which its config.json does not have")
    check_finite(model.named_parameters(), path)


def _shared(folder: Path, attention: str, dtype: torch.dtype, share: Share) -> CausalLM | None:
    """See :func:`load_pretrained`."""
    make: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, dtype=dtype)
    except (OSError, ValueError, KeyError):
        return None  # loading it whole says what is wrong
    model = loaded(lambda: make.from_config(config, attn_implementation=attention, dtype=dtype), folder, share)
    if model is not None and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
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
