"""The released language models: a Llama 2 in a Hugging Face folder, its vocabulary, and where its parts lie.

Read without running anything of theirs: plain tensors only, and every shape is that of the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from transformers import LlamaConfig, LlamaForCausalLM

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json
from spiritlm_core.references.content import weight_files
from spiritlm_core.speech.released.layout import LANGUAGE_MODELS, Variant
from spiritlm_core.speech.released.reading import CheckpointError, Described, Tensors, describe, read_archive, take
from spiritlm_core.tokens.released import ReleasedTextTokenizer
from spiritlm_core.tokens.vocabulary import TEXT_MARKER, Vocabulary

_SIZES = {"base": {"pitch": 0, "style": 0}, "expressive": {"pitch": 64, "style": 100}}
_BUFFER = re.compile(r"(model\.layers\.[0-9]+\.self_attn\.)?(model\.)?rotary_emb\.inv_freq")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

Width = Annotated[int, Field(ge=1, le=65_536)]


class LanguageModelConfig(Described):
    """The fields of ``config.json`` that decide the shapes, within bounds."""

    model_type: Literal["llama"]
    vocab_size: int = Field(ge=1, le=1_000_000)
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: int = Field(ge=1, le=256)
    num_attention_heads: int = Field(ge=1, le=512)
    num_key_value_heads: int | None = Field(default=None, ge=1, le=512)
    max_position_embeddings: int = Field(ge=1, le=10_000_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, value, of in (
            ("num_attention_heads", self.num_attention_heads, self.hidden_size),
            ("num_key_value_heads", self.num_key_value_heads or 1, self.num_attention_heads),
        ):
            if of % value:
                raise ValueError(f"{name} {value} does not divide {of}")
        return self


@dataclass(frozen=True)
class ReleasedLanguageModel:
    """A released language model, loaded."""

    model: Any  # a ``LlamaForCausalLM`` in evaluation mode on the CPU
    tokenizer: ReleasedTextTokenizer  # of its prompts
    vocabulary: Vocabulary  # the layout of its ids

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.bfloat16, variant: Variant | None = None) -> Self:
        """Load a folder such as ``spirit-lm-base-7b``, with ``config.json``, ``tokenizer.model`` and the weights.

        Raises ModelReferenceError: a file is missing, damaged, hostile, or does not fit the others.
        """
        tokenizer = ReleasedTextTokenizer.load(folder)
        vocabulary = vocabulary_of(tokenizer, folder)
        if variant is not None and _SIZES[variant]["pitch"] != vocabulary.pitch:
            raise ModelReferenceError(
                f"{folder} is not the {variant} model: its tokenizer has {vocabulary.pitch} [Pi…]"
            )
        return cls(load_llama(folder, vocabulary.size, dtype), tokenizer, vocabulary)


def vocabulary_of(tokenizer: ReleasedTextTokenizer, folder: Path) -> Vocabulary:
    """The layout of the tokenizer's ids, checked token by token.

    Raises ModelReferenceError: the tokens are not those of Spirit LM, or not in their order.
    """
    first = tokenizer.id_of(TEXT_MARKER)
    if first is None:
        raise ModelReferenceError(f"{folder}: its tokenizer has no {TEXT_MARKER}: this is no Spirit LM")
    sizes = _SIZES["base" if tokenizer.id_of("[Pi0]") is None else "expressive"]
    vocabulary = Vocabulary(first, hubert=501, **sizes, bos=tokenizer.bos, eos=tokenizer.eos)
    for i, token in enumerate(vocabulary.tokens, start=first):
        if tokenizer.id_of(token) != i:
            raise ModelReferenceError(
                f"{folder}: {token} should have id {i} in its tokenizer, not {tokenizer.id_of(token)}"
            )
    return vocabulary


def speech_tokenizer_root(folder: Path) -> Path | None:
    """The folder that holds the speech tokenizer of the language model in `folder`, if it lies where it should."""
    parent = folder.absolute().parent
    roots = [folder, parent.parent] if parent.name == LANGUAGE_MODELS else [folder]
    return next((root for root in roots if (root / "speech_tokenizer").is_dir()), None)


def load_llama(folder: Path, tokens: int, dtype: torch.dtype) -> Any:
    """The model of a Hugging Face folder, whole and in `dtype`, on the CPU, with rows for so many `tokens`.

    Its weights lie in one file or several, safetensors or ``pytorch_model.bin``.

    Raises CheckpointError: a file is missing, damaged, hostile, or does not fit the configuration.
    """
    path = folder / "config.json"
    described = describe(LanguageModelConfig, read_json(path), str(path))
    if described.vocab_size < tokens:
        raise CheckpointError(f"{path}: vocab_size is {described.vocab_size}, but its tokenizer has {tokens} tokens")
    config: Any = LlamaConfig.from_pretrained(folder, local_files_only=True)
    build: Any = LlamaForCausalLM
    with torch.device("meta"):
        model = build(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = _weights(folder, expected, tied=bool(config.tie_word_embeddings), dtype=dtype)
    model.load_state_dict(weights, strict=False, assign=True)
    if config.tie_word_embeddings:
        model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)  # its buffer is not among the weights
    return model.eval()


def _weights(folder: Path, expected: dict[str, tuple[int, ...]], *, tied: bool, dtype: torch.dtype) -> Tensors:
    if tied:
        expected.pop("lm_head.weight")
    weights: Tensors = {}
    for path, names in _files(folder, expected):
        content = _read(path)
        leftovers = [name for name in content if _BUFFER.fullmatch(name) or (tied and name == "lm_head.weight")]
        weights |= take(content, {name: expected[name] for name in names}, path, leftovers=leftovers, dtype=dtype)
    return weights


def _files(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[Path, list[str]]]:
    """The files of the weights, and which of the expected weights each must hold."""
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            yield folder / name, list(expected)
            return
        if index.is_file():
            yield from _shards(index, expected)
            return
    raise CheckpointError(f"{folder} has neither {' nor '.join(_WEIGHTS)}: complete the download")


def _shards(index: Path, expected: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[Path, list[str]]]:
    where = weight_files(index)
    if missing := sorted(set(expected) - set(where)):
        raise CheckpointError(f"{index} lacks {missing[0]}: it is incomplete, or not of its configuration")
    for file in sorted({where[name] for name in expected}):
        yield file, [name for name in expected if where[name] == file]


def _read(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        return read_archive(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or missing ({error}): download it again") from error
