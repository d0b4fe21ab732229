"""Reductions over some dimensions, softmax, running sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compress.onnx_model.file import Node
from compress.onnx_model.registry import operator

Reduction = Callable[[Tensor, list[int], bool], Tensor]

REDUCTIONS: dict[str, Reduction] = {
    "ReduceMean": lambda value, dims, keep: value.mean(dims, keep),
    "ReduceSum": lambda value, dims, keep: value.sum(dims, keep, dtype=value.dtype),
    "ReduceMax": lambda value, dims, keep: value.amax(dims, keep),
    "ReduceMin": lambda value, dims, keep: value.amin(dims, keep),
    "ReduceL1": lambda value, dims, keep: value.abs().sum(dims, keep),
    "ReduceL2": lambda value, dims, keep: value.square().sum(dims, keep).sqrt(),
    "ReduceSumSquare": lambda value, dims, keep: value.square().sum(dims, keep),
    "ReduceLogSumExp": lambda value, dims, keep: torch.logsumexp(value, dims, keep),
    "ReduceLogSum": lambda value, dims, keep: value.sum(dims, keep).log(),
}


@operator(*REDUCTIONS, numbers=(1,))
def reduction(node: Node, value: Tensor, axes: np.ndarray | None = None) -> Tensor:
    """Axes are an attribute or, in newer files, an operand; without any all of them go."""
    found = node.get("axes") if axes is None else [int(axis) for axis in axes]
    if not found and node.get("noop_with_empty_axes", 0):
        return value
    dims = [axis % value.dim() for axis in found] if found else list(range(value.dim()))
    return REDUCTIONS[node.kind](value, dims, bool(node.get("keepdims", 1)))


@operator("ReduceProd", numbers=(1,))
def product(node: Node, value: Tensor, axes: np.ndarray | None = None) -> Tensor:
    found = node.get("axes") if axes is None else [int(axis) for axis in axes]
    for axis in sorted((axis % value.dim() for axis in found or range(value.dim())), reverse=True):
        value = value.prod(axis, keepdim=bool(node.get("keepdims", 1)))
    return value


@operator("ArgMax", "ArgMin")
def position(node: Node, value: Tensor) -> Tensor:
    if node.get("select_last_index", 0):
        raise NotImplementedError("select_last_index")
    return (torch.argmax if node.kind == "ArgMax" else torch.argmin)(
        value, node.get("axis", 0), keepdim=bool(node.get("keepdims", 1))
    )


@operator("Softmax", "LogSoftmax")
def softmax(node: Node, value: Tensor) -> Tensor:
    """Up to opset 12 all dimensions from the axis on are one."""
    run = torch.softmax if node.kind == "Softmax" else torch.log_softmax
    axis = node.get("axis", -1 if node.version >= 13 else 1) % value.dim()
    if node.version >= 13 or axis == value.dim() - 1:
        return run(value, axis)
    return run(value.flatten(axis), axis).view(value.shape)


@operator("CumSum", numbers=(1,))
def running_sum(node: Node, value: Tensor, axis: np.ndarray) -> Tensor:
    place = int(axis) % value.dim()
    value = value.flip(place) if node.get("reverse", 0) else value
    found = value.cumsum(place, dtype=value.dtype)
    found = found - value if node.get("exclusive", 0) else found
    return found.flip(place) if node.get("reverse", 0) else found


@operator("TopK", numbers=(1,))
def largest(node: Node, value: Tensor, count: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    number = node.get("k") if count is None else int(count.item())
    found = torch.topk(value, number, node.get("axis", -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1)))
    return found.values, found.indices
