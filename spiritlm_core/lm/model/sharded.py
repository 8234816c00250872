"""Weights of a model that several ranks share: built without any, then each rank gets its rows; none ever has all.

A model is made with parameters on the meta device, its blocks are sharded (FSDP2), and their parameters filled one by
one: with what the constructor would have drawn, in its order, so that weights do not depend on the number of ranks, or
with the rows of a safetensors file that belong to this rank. Embedding and output layer, which are extended for new
tokens, stay whole until the rest of the model is sharded, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.content import weight_files

Share: TypeAlias = Callable[[nn.Module], None]
"""Shards the blocks of a model over the ranks, and gives their parameters room on this rank's device."""

Rows: TypeAlias = Callable[[int, int], torch.Tensor]
"""The rows of a parameter from the first to the one behind the last."""

_OVERWRITE = ("normal_", "uniform_", "fill_", "zero_")


class _Draws(TorchDispatchMode):
    """Notes how parameters on the meta device would have been filled."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.noted: list[tuple[torch.Tensor, Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.removeprefix("aten::") in _OVERWRITE and args[0].is_meta:  # noqa: SLF001 - its only name
            self.noted.append((args[0], func, args[1:], kwargs or {}))
        return func(*args, **(kwargs or {}))


def drawn(make: Callable[[], Any], share: Share) -> Any:
    """The model that `make` gives, with the weights that it would have had, shared out.

    What a constructor draws and then draws again is drawn twice here, too: the random state ends where it would have.
    """
    with parameters_on_meta() as given, _Draws() as draws:
        model = make()
    names = {_storage(parameter): name for name, parameter in model.named_parameters()}
    share(model)
    last = {_storage(tensor): number for number, (tensor, *_) in enumerate(draws.noted)}
    for number, (tensor, func, arguments, options) in enumerate(draws.noted):
        value = torch.empty(tensor.shape, dtype=tensor.dtype)
        func(value, *arguments, **options)
        if number == last[_storage(tensor)] and (name := names.pop(_storage(tensor), None)):
            fill(model, name, lambda first, end, value=value: value[first:end])  # type: ignore[misc]
    for storage, name in names.items():
        fill(model, name, lambda first, end, value=given[storage]: value[first:end])  # type: ignore[misc]
    return model


def loaded(make: Callable[[], Any], folder: Path, share: Share) -> Any | None:
    """The model that `make` gives, shared out, with the weights of the safetensors files of `folder`.

    None if they have other names than its parameters have.

    Raises ModelReferenceError: a weight has another shape than the model's.
    """
    with parameters_on_meta():
        model = make()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    files = _files(folder)
    if not shapes.keys() <= files.keys():
        return None
    share(model)
    for name, shape in shapes.items():
        with safe_open(files[name], "pt") as weights:  # opened anew, so that no page stays in memory
            rows = weights.get_slice(name)
            if tuple(rows.get_shape()) != tuple(shape):
                raise ModelReferenceError(
                    f"{files[name]}: {name} has the shape {rows.get_shape()}, its config.json says {[*shape]}"
                )
            fill(model, name, lambda first, end, rows=rows: rows[first:end])  # type: ignore[misc]
    return model


def _files(folder: Path) -> dict[str, Path]:
    """The file that holds each weight."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.is_file():
        return weight_files(index)
    if not whole.is_file():
        return {}
    with safe_open(whole, "pt") as weights:
        return dict.fromkeys(weights.keys(), whole)


@torch.no_grad()
def fill(model: nn.Module, name: str, rows: Rows) -> None:
    """Give a parameter its values: this rank's rows of one that is sharded, else all of them on the CPU."""
    parameter = model.get_parameter(name)
    if isinstance(parameter, DTensor):
        local = parameter.to_local()
        chunk = -(-parameter.shape[0] // parameter.device_mesh.size())  # as torch.chunk cuts
        first = min(parameter.device_mesh.get_local_rank() * chunk, parameter.shape[0])
        local.copy_(rows(first, first + local.shape[0]))
        return
    value = nn.Parameter(rows(0, parameter.shape[0]).to(parameter.dtype), requires_grad=parameter.requires_grad)
    for module in model.modules():
        for own, other in module.named_parameters(recurse=False):
            if other is parameter:  # where embedding and output layer are one
                setattr(module, own, value)


@contextmanager
def parameters_on_meta() -> Iterator[dict[int, torch.Tensor]]:
    """Modules that are made here have their parameters on the meta device; buffers are as ever.

    Yields the values that vectors, such as gains of norms, were made with, by their storage.
    """
    register, given = nn.Module.register_parameter, dict[int, torch.Tensor]()

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            value, requires = parameter.detach(), parameter.requires_grad
            parameter = nn.Parameter(value.to("meta"), requires_grad=requires)
            if value.ndim < 2:
                given[_storage(parameter)] = value
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign,assignment]
    try:
        yield given
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _storage(tensor: torch.Tensor) -> int:
    """Names the memory that a tensor and its views would have."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - has no address on the meta device
