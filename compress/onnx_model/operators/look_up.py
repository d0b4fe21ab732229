"""Entries picked by number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.onnx_model.arrays import to_tensor
from compress.onnx_model.file import Node
from compress.onnx_model.registry import operator


@operator("Gather", numbers=())
def gather(node: Node, value: Tensor, places: Tensor) -> Tensor:
    """Places are counted from the end where they are negative, which numbers that the graph computes are not."""
    axis = node.get("axis", 0) % value.dim()
    if value.dim() == 2 and axis == 0 and not places.is_floating_point():
        return F.embedding(places.long(), value)
    flat = torch.index_select(value, axis, places.reshape(-1).long())
    return flat.reshape(*value.shape[:axis], *places.shape, *value.shape[axis + 1 :])


def gather_known(node: Node, value: Tensor, places: np.ndarray) -> Tensor:
    """The same with places that are known: one of them, or a run, is a part of the tensor."""
    axis = node.get("axis", 0) % value.dim()
    size = value.shape[axis]
    places = np.where(places < 0, places + size, places)
    if places.ndim == 0:
        return value.select(axis, int(places))
    if places.ndim == 1 and len(places) and (np.diff(places) == 1).all():
        return value.narrow(axis, int(places[0]), len(places))
    return gather(node, value, to_tensor(places).to(value.device))


@operator("GatherElements")
def gather_elements(node: Node, value: Tensor, places: Tensor) -> Tensor:
    return torch.gather(value, node.get("axis", 0), places.long())


@operator("GatherND")
def gather_nd(node: Node, value: Tensor, places: Tensor) -> Tensor:
    if node.get("batch_dims", 0):
        raise NotImplementedError("batch_dims")
    return value[tuple(places.long().unbind(-1))]


@operator("ScatterND")
def scatter_nd(node: Node, value: Tensor, places: Tensor, written: Tensor) -> Tensor:
    if node.get("reduction", "none") != "none":
        raise NotImplementedError(f"reduction {node.get('reduction')}")
    return value.index_put(tuple(places.long().unbind(-1)), written)


@operator("OneHot", numbers=(1, 2))
def one_hot(node: Node, places: Tensor, depth: np.ndarray, values: np.ndarray) -> Tensor:
    off, on = (x.item() for x in values)
    found = F.one_hot(places.long(), int(depth.item()))
    found = torch.where(found == 1, on, off).to(to_tensor(values).dtype)
    return found.movedim(-1, node.get("axis", -1))
