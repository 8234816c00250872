"""Reading `torch.save` archives of unknown origin: plain data only, and nothing that the file cannot back."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from spiritlm_core.config import sentence_of
from spiritlm_core.config_files import read_text, read_yaml
from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.references.content import check_finite

Tensors = dict[str, torch.Tensor]
_SHOWN = 5
_LONGEST_CONFIG = 1_000_000
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


class CheckpointError(ModelReferenceError):
    """A checkpoint file is missing, damaged, hostile, or does not fit its configuration."""


class Described(BaseModel):
    """Fields of a foreign configuration that matter here; others are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def read_config(path: Path, otherwise: str = "") -> Any:
    """A foreign configuration, JSON or YAML by its name; `otherwise` ends the message when there is none.

    Raises CheckpointError: missing, far too long, or not what its name says.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: complete the download{otherwise}")
    if path.stat().st_size > _LONGEST_CONFIG:
        raise CheckpointError(f"{path} has more than {_LONGEST_CONFIG} bytes, which no such configuration has")
    try:
        if path.suffix == ".yaml":
            return read_yaml(read_text(path, "configuration"), str(path)).body
        return json.loads(path.read_text(encoding="utf-8"))
    except RecipeError as error:
        raise CheckpointError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error


Description = TypeVar("Description", bound=Described)
Ours = TypeVar("Ours")


def read_archive(path: Path) -> dict[str, Any]:
    """The dict in a `torch.save` file, tensors on the CPU; code in it is never run.

    Raises CheckpointError: the file is missing, truncated, compressed, or holds objects other than plain data.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: complete the download, or name the folder that holds it")
    stored = _stored(path)
    try:
        # mapped storages are slices of the file, so a storage that claims to be longer than the file is an error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd about a pickle is an error right below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=stored)
    except pickle.UnpicklingError as error:
        match = _GLOBAL.search(str(error))
        what = f"objects of {match[1]}" if match else "objects other than tensors and plain values"
        raise CheckpointError(
            f"{path} holds {what}; it is not read, since that could run code: get a copy with tensors only"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or truncated ({_first_line(error)}): download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict: this is another kind of file")
    return content


def _stored(path: Path) -> bool:
    """Whether the file is a zip archive (all since PyTorch 1.6); entries must be stored, so a small file is small."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or truncated ({_first_line(error)}): download it again") from error
    if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
        raise CheckpointError(f"{path} is a compressed archive ({packed[0]}), which torch.save never writes")
    return True


def field(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """The dict under `name`. Raises CheckpointError: there is no such dict."""
    value = content.get(name)
    if not isinstance(value, dict):
        have = ", ".join(sorted(str(key) for key in content)[:_SHOWN])
        raise CheckpointError(f"{path} has no dict {name!r} (it has {have or 'nothing'}): this is another kind of file")
    return value


def describe(model: type[Description], values: Any, where: str) -> Description:
    """Check a foreign configuration.

    Raises CheckpointError: a field is missing or has a value that no released checkpoint can have.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        given = f" (it is {first['input']!r})"[:80] if isinstance(first["input"], str | int | float) else ""
        raise CheckpointError(f"{where}: {sentence_of(error)}{given}") from error


def in_our_terms(translate: Callable[[], Ours], path: Path) -> Ours:
    """What `translate` makes of a foreign configuration. Raises CheckpointError: its fields do not fit each other."""
    try:
        return translate()
    except ValueError as error:
        raise CheckpointError(f"{path}: {sentence_of(error)}") from error


def take(
    weights: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    path: Path,
    *,
    leftovers: Collection[str] = (),
) -> Tensors:
    """The tensors that the configuration implies, contiguous, in float32.

    Args:
        weights: What the file holds.
        expected: Name → shape.
        path: The file, for messages.
        leftovers: Names that may be there as well and are dropped.

    Raises CheckpointError: a tensor is missing, unexpected, or of another shape or type; ModelReferenceError: one holds
    NaN or infinity.
    """
    names = {str(name) for name in weights}
    if missing := sorted(set(expected) - names):
        raise CheckpointError(f"{path} lacks {_few(missing)}: it is incomplete, or not of its configuration")
    if unexpected := sorted(names - set(expected) - set(leftovers)):
        raise CheckpointError(f"{path} has {_few(unexpected)}, which its configuration does not have")
    for name, shape in expected.items():
        _check(weights[name], shape, f"{path}: tensor {name}")
    _check_size([weights[name] for name in expected], path)
    check_finite(((name, weights[name]) for name in expected), path)
    return {name: weights[name].detach().to(torch.float32, copy=True).contiguous() for name in expected}


def _check(tensor: Any, shape: tuple[int, ...], where: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise CheckpointError(f"{where} is a {type(tensor).__name__}, not a tensor")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"{where} is not an ordinary dense tensor: save it as one")
    if tuple(tensor.shape) != tuple(shape):
        raise CheckpointError(
            f"{where} has shape {list(tensor.shape)}, but its configuration asks for {list(shape)}: "
            "they belong to different models"
        )
    if not tensor.is_floating_point():
        raise CheckpointError(f"{where} is {str(tensor.dtype).removeprefix('torch.')}, but weights are floating point")


def _check_size(tensors: list[torch.Tensor], path: Path) -> None:
    """A tensor can claim to be larger than its data (stride 0), and data can be shared: both are refused."""
    claimed, there = sum(tensor.numel() * tensor.element_size() for tensor in tensors), path.stat().st_size
    if claimed > there:
        raise CheckpointError(f"{path} claims {claimed} bytes of weights, but the file has only {there}")


def shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of a model, which is built without memory for them."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the tensor{'s' if len(names) > 1 else ''} {', '.join(names[:_SHOWN])}{more}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
