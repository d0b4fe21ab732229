"""Operators that are not written in torch here: ONNX's reference runs them, and what they touch must stay whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.record import Recorder, rule
from compress.onnx_model.arrays import Numbers, to_array, to_tensor
from compress.onnx_model.file import Node

LIBRARY = torch.library.Library("compress_onnx", "DEF")
LIBRARY.define("not_understood(Tensor[] given, Tensor[] made, str name) -> Tensor[]")


def _made(given: Sequence[Tensor], made: Sequence[Tensor], name: str) -> list[Tensor]:
    return [each.clone() for each in made]


LIBRARY.impl("not_understood", _made, "CompositeExplicitAutograd")


@rule("not_understood")
def not_understood(recorder: Recorder, op, args, kwargs, output) -> None:
    """Axes end at it."""
    operands = [x for x in tree_leaves(args[0]) if isinstance(x, Tensor)]
    recorder.opaque(args[2], operands, list(output), "no rule for it")


def by_reference(node: Node, numbers: Numbers, given: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs by ONNX's reference; of zeros, where there are no values. Raises ModelError where it has none."""
    tensors = [each for each in given if each is not None]
    meta = any(each.is_meta for each in tensors)
    arrays = [None if each is None else _array(each) for each in given]
    made = [np.asarray(each) for each in numbers(node, arrays)]
    found = [torch.empty_like(to_tensor(each), device="meta") if meta else to_tensor(each) for each in made]
    placed = [each.to(tensors[0].device) for each in found] if tensors else found
    return tuple(torch.ops.compress_onnx.not_understood(tensors, placed, str(node)))


def _array(tensor: Tensor) -> np.ndarray:
    if not tensor.is_meta:
        return to_array(tensor.cpu())
    return np.zeros(tuple(tensor.shape), to_array(torch.zeros(1, dtype=tensor.dtype, device="cpu")).dtype)
