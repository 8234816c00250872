"""The convolutions of a HuBERT, written in its configuration as a Python list expression."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple

_LONGEST_TEXT = 1000
_MOST_LAYERS = 32
_LARGEST = 8192


class Convolution(NamedTuple):
    """One layer of the front end."""

    channels: int
    kernel: int
    stride: int


def parse_convolutions(text: str) -> list[Convolution]:
    """Read ``"[(512,10,5)] + [(512,3,2)] * 4"``: lists of three integers, joined by + and repeated by *.

    Raises:
        ValueError: It is anything else; nothing in it is ever evaluated as Python.
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"it has {len(text)} characters, more than {_LONGEST_TEXT}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        layers = _value(tree.body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("it is not a list of (channels, kernel, stride)") from error
    if not isinstance(layers, list) or not layers:
        raise ValueError("it is not a list of (channels, kernel, stride)")
    return [_layer(layer) for layer in layers]


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        return _combine(node.op, _value(node.left), _value(node.right))
    raise ValueError(f"{ast.unparse(node)[:60]!r} is not a list, a tuple, an integer, + or *")


def _combine(operator: ast.operator, left: Any, right: Any) -> list[Any]:
    lists = [part for part in (left, right) if isinstance(part, list)]
    if isinstance(operator, ast.Add) and len(lists) == 2:
        total, times = lists[0] + lists[1], 1
    elif isinstance(operator, ast.Mult) and len(lists) == 1 and {type(left), type(right)} == {int, list}:
        total, times = lists[0], left if isinstance(left, int) else right
    else:
        raise ValueError("+ joins two lists, and * repeats a list")
    if len(total) * times > _MOST_LAYERS:
        raise ValueError(f"it has more than {_MOST_LAYERS} layers")
    return total * times


def _layer(layer: Any) -> Convolution:
    numbers = isinstance(layer, tuple | list) and all(type(n) is int and 1 <= n <= _LARGEST for n in layer)
    if not numbers or len(layer) != 3:
        raise ValueError(f"{str(layer)[:60]} is not (channels, kernel, stride), each from 1 to {_LARGEST}")
    return Convolution(*layer)
