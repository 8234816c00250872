"""A language model with its speech vocabulary as a ``.gguf`` file, which llama.cpp and what is built on it run.

The file holds the weights of a Llama, its text tokenizer, and the markers and speech tokens as *user-defined* tokens,
which llama.cpp finds in any prompt: ``[Speech][Hu3][Hu71][Text]``. Rows that pad the embedding are left out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import new_file
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.text import plain_tokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary

Quantization = Literal["f32", "f16", "q8_0", "q4_k_m"]
Json = dict[str, Any]

_BLOCK = 32  # values of a row that Q8_0 gives one scale
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm", (_LLAMA_3, "ByteLevel"): "llama-bpe"}
"""How a byte-level BPE parts a text before it merges, and what llama.cpp calls that way."""


def export_gguf(folder: Path, out: Path, quantize: Quantization = "f16") -> int:
    """Write the model in `folder` to the file `out`, whole or not at all; returns its size in bytes.

    ``f32`` and ``f16`` keep the weights in that type, ``q8_0`` rounds each 32 of a row to 8 bits and one scale, and
    ``q4_k_m`` is llama.cpp's mixture of 4 and 6 bits. Norms stay float32 in all of them.

    Raises ModelReferenceError: `folder` holds no model of this project, or one that is no Llama or whose tokenizer
    llama.cpp does not know; MissingExtraError: ``q4_k_m`` without the package that brings llama.cpp; SpiritLMError:
    there is no room for the file.
    """
    vocabulary = load_vocabulary(folder)
    tokens = _tokens(folder, vocabulary)
    with new_file(out) as written:
        whole = written if quantize != "q4_k_m" else written.with_name("whole.gguf")
        _write(folder, vocabulary, tokens, whole, "f16" if quantize == "q4_k_m" else quantize)
        if quantize == "q4_k_m":
            _with_llama_cpp(whole, written)
    return out.stat().st_size


def _write(folder: Path, vocabulary: Vocabulary, tokens: Json, out: Path, kind: Quantization) -> None:
    from gguf import MODEL_ARCH_NAMES, GGUFWriter, LlamaFileType
    from gguf.constants import MODEL_ARCH

    from spiritlm_core.lm.model.network import load_pretrained

    model = load_pretrained(folder, dtype="auto")  # type: ignore[arg-type]  # as it was stored
    _check(model.config, folder)
    writer = GGUFWriter(out, MODEL_ARCH_NAMES[MODEL_ARCH.LLAMA])
    writer.add_name(folder.absolute().name)
    files = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
    writer.add_file_type(files[kind])
    _add_shape(writer, model.config)
    _add_tokenizer(writer, tokens, vocabulary)
    for name, weight in _weights(model, vocabulary.size):
        _add_weight(writer, name, weight, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check(config: Any, folder: Path) -> None:
    """Raise ModelReferenceError unless the model is a Llama without biases and without stretched positions."""
    scaling = getattr(config, "rope_scaling", None) or {}
    plain = scaling.get("rope_type", "default") == "default" and not (config.attention_bias or config.mlp_bias)
    if config.model_type != "llama" or not plain:
        raise ModelReferenceError(
            f"{folder}: only plain Llama models can be written as .gguf, this is {config.model_type}"
            f"{'' if plain else ' with biases or scaled positions'}"
        )


def _add_shape(writer: Any, config: Any) -> None:
    from spiritlm_core.lm.model.network import rope_base_of

    width = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope_base_of(config) or 10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _weights(model: Any, rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names of llama.cpp and arrays; the first `rows` rows of embedding and output layer, which is given if untied."""
    from gguf import get_tensor_name_map
    from gguf.constants import MODEL_ARCH

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.float().numpy()
        if name in ("lm_head.weight", "model.embed_tokens.weight"):
            values = values[:rows]
        if count := heads.get(name.split(".")[-2]):
            values = _paired(values, count)
        yield f"{names.get_name(name.removesuffix('.weight'))}.weight", values


def _paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix [heads * D, H] as llama.cpp rotates them.

    transformers rotates row i of a head together with row i + D/2, llama.cpp row 2i with row 2i + 1.
    """
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _add_weight(writer: Any, name: str, weight: np.ndarray, kind: Quantization) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    if weight.ndim == 1 or kind == "f32":
        writer.add_tensor(name, weight)
    elif kind == "q8_0" and weight.shape[1] % _BLOCK == 0:
        eight = GGMLQuantizationType.Q8_0
        writer.add_tensor(name, quantize(weight, eight), raw_dtype=eight)
    else:
        writer.add_tensor(name, weight.astype(np.float16))


def _tokens(folder: Path, vocabulary: Vocabulary) -> Json:
    """What llama.cpp must know of the text tokenizer: which it is, its tokens, their types, and how they merge.

    Raises ModelReferenceError: llama.cpp knows no tokenizer like it.
    """
    values = plain_tokenizer(folder)
    model = values["model"]
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model.get("merges", ())]
    how = _parts(values.get("pre_tokenizer"))
    if model["type"] == "BPE" and model.get("byte_fallback"):
        about: Json = {"model": "llama", "pre": "default", "ranks": _ranks(merges)}
    elif model["type"] == "BPE" and how in _BYTE_LEVEL:
        about = {"model": "gpt2", "pre": _BYTE_LEVEL[how], "merges": [" ".join(merge) for merge in merges]}
    else:
        raise ModelReferenceError(f"{folder}/tokenizer.json: llama.cpp knows no tokenizer like this {model['type']}")
    pieces = {i: (piece, _kind(piece, model)) for piece, i in model["vocab"].items()}
    for token in values["added_tokens"]:
        kind = pieces.get(token["id"], ("", ""))[1]
        added = kind if kind == "UNKNOWN" else "CONTROL" if token["special"] else "USER_DEFINED"
        pieces[token["id"]] = (token["content"], added)
    texts = [pieces[i] for i in range(vocabulary.text_size)]
    return {**about, "tokens": [*texts, *((token, "USER_DEFINED") for token in vocabulary.tokens)]}


def _parts(part: Json | None) -> tuple[str, ...]:
    """The steps of a pre-tokenizer: their types, and of one that follows a pattern the pattern."""
    if part is None:
        return ()
    if part["type"] == "Sequence":
        return tuple(name for member in part["pretokenizers"] for name in _parts(member))
    return (part["pattern"].get("Regex", "") if part["type"] == "Split" else part["type"],)


def _kind(piece: str, model: Json) -> str:
    if piece == model.get("unk_token"):
        return "UNKNOWN"
    is_byte = model.get("byte_fallback") and len(piece) == 6 and piece.startswith("<0x")
    return "BYTE" if is_byte else "NORMAL"


def _ranks(merges: list[tuple[str, ...]]) -> dict[str, float]:
    """The scores by which SentencePiece, and llama.cpp, merge: of two pieces the one that was learned first."""
    scores: dict[str, float] = {}
    for rank, merge in enumerate(merges):
        scores.setdefault("".join(merge), -float(rank))
    return scores


def _add_tokenizer(writer: Any, tokens: Json, vocabulary: Vocabulary) -> None:
    from gguf import TokenType

    names, kinds = zip(*tokens["tokens"], strict=True)
    writer.add_tokenizer_model(tokens["model"])
    writer.add_tokenizer_pre(tokens["pre"])
    writer.add_token_list(list(names))
    writer.add_token_types([TokenType[kind] for kind in kinds])
    if "merges" in tokens:
        writer.add_token_merges(tokens["merges"])
    else:
        lowest = -float(len(tokens["ranks"]) + len(names))  # of what nothing merges to
        writer.add_token_scores([tokens["ranks"].get(name, lowest) for name in names])
        writer.add_add_space_prefix(value=False)
    writer.add_add_bos_token(vocabulary.bos is not None)
    add: dict[Callable[[int], None], int | None] = {
        writer.add_bos_token_id: vocabulary.bos,
        writer.add_eos_token_id: vocabulary.eos,
        writer.add_pad_token_id: vocabulary.eos,
        writer.add_unk_token_id: kinds.index("UNKNOWN") if "UNKNOWN" in kinds else None,
    }
    for put, token_id in add.items():
        if token_id is not None:
            put(token_id)


def _with_llama_cpp(source: Path, out: Path) -> None:
    """Quantize to Q4_K_M by llama.cpp itself, out of the package cyllama. Raises OSError: it cannot, or not write."""
    from cyllama.llama import llama_cpp

    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype = 15  # LLAMA_FTYPE_MOSTLY_Q4_K_M
    try:
        llama_cpp.model_quantize(str(source), str(out), settings)
    except RuntimeError as error:
        raise OSError(f"llama.cpp could not quantize the model: {error}") from error
