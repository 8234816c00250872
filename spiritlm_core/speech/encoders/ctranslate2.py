"""``model.bin`` of a Whisper converted for CTranslate2 (faster-whisper), read into a `transformers` encoder.

The file is a list of named arrays behind a short header, little-endian throughout: version 6 of the format that
``ctranslate2.converters`` writes.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from spiritlm_core.errors import ModelReferenceError

WEIGHTS = "model.bin"
_VERSION = 6
_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
_LAYER = re.compile(r"encoder/layer_(\d+)/")

_RENAMES = (
    ("self_attention/layer_norm/", "self_attn_layer_norm."),
    ("self_attention/linear_1/", "self_attn.out_proj."),
    ("ffn/layer_norm/", "final_layer_norm."),
    ("ffn/linear_0/", "fc1."),
    ("ffn/linear_1/", "fc2."),
    ("gamma", "weight"),
    ("beta", "bias"),
    ("position_encodings/encodings", "embed_positions.weight"),
)
_TOGETHER = "self_attention/linear_0/"  # query, key and value one above the other


def layers_in_file(path: Path) -> int:
    """Number of encoder layers. Raises ModelReferenceError: it is not such a file."""
    return 1 + max(int(match[1]) for name in _arrays(path, lambda _: False) if (match := _LAYER.match(name)))


def read_whisper(path: Path, depth: int) -> Any:
    """The encoder with its first `depth` layers, a `transformers` WhisperEncoder in float32.

    Raises ModelReferenceError: it is not such a file, or damaged.
    """
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    def wanted(name: str) -> bool:
        layer = _LAYER.match(name)
        return name.startswith("encoder/") and (layer is None or int(layer[1]) < depth)

    arrays = {name: array for name, array in _arrays(path, wanted).items() if array is not None}
    try:
        heads = int(arrays.pop("encoder/num_heads"))
        width, bands, _ = arrays["encoder/conv1/weight"].shape
        settings = {
            "d_model": width,
            "num_mel_bins": bands,
            "encoder_layers": depth,
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": len(arrays["encoder/layer_0/ffn/linear_0/weight"]),
            "max_source_positions": len(arrays["encoder/position_encodings/encodings"]),
        }
        encoder = WhisperEncoder(WhisperConfig.from_dict(settings))
        encoder.load_state_dict(dict(_named(arrays)))
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelReferenceError(f"{path} holds no Whisper as CTranslate2 writes it: {error}") from error
    return encoder


def _named(arrays: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The arrays in float32 under the names that `transformers` gives them."""
    for name, array in arrays.items():
        if name.endswith("_scale"):
            continue
        scale = arrays.get(f"{name}_scale")
        value = array.float() if scale is None else array.float() / scale.float().reshape(-1, 1)
        place = name.removeprefix("encoder/")
        place = re.sub(r"^layer_(\d+)/", r"layers.\1.", place)
        if _TOGETHER in place:
            stem, _, kind = place.partition(_TOGETHER)
            parts = zip("qkv", value.chunk(3), strict=True)
            yield from ((f"{stem}self_attn.{x}_proj.{kind}", part) for x, part in parts if (x, kind) != ("k", "bias"))
            continue
        for ours, theirs in _RENAMES:
            place = place.replace(ours, theirs)
        yield place.replace("/", "."), value


def _arrays(path: Path, wanted: Any) -> dict[str, torch.Tensor | None]:
    """Names of all arrays; those `wanted` are read, the others are None."""
    try:
        with path.open("rb") as file:
            if (version := _number(file, "I")) != _VERSION:
                raise ModelReferenceError(f"{path} is version {version} of CTranslate2's format, not {_VERSION}")
            if (kind := _text(file)) != "WhisperSpec":
                raise ModelReferenceError(f"{path} holds a {kind}, not a WhisperSpec")
            _number(file, "I")
            return dict(_array(file, wanted) for _ in range(_number(file, "I")))
    except (OSError, struct.error, ValueError, IndexError, RuntimeError) as error:
        raise ModelReferenceError(f"{path}: copy or download it anew, it is damaged: {error}") from error


def _array(file: IO[bytes], wanted: Any) -> tuple[str, torch.Tensor | None]:
    name, dimensions = _text(file), _number(file, "B")
    shape = struct.unpack(f"<{dimensions}I", file.read(4 * dimensions))
    kind, size = _TYPES[_number(file, "B")], _number(file, "I")
    if not wanted(name):
        file.seek(size, 1)
        return name, None
    return name, torch.frombuffer(bytearray(file.read(size)), dtype=kind).reshape(shape)


def _number(file: IO[bytes], kind: str) -> int:
    (number,) = struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))
    return int(number)


def _text(file: IO[bytes]) -> str:
    """A string, whose length includes the zero at its end."""
    return file.read(_number(file, "H"))[:-1].decode()
