"""Views: reorder, merge, cut, join and repeat dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.onnx_model.file import Node
from compress.onnx_model.registry import operator


def axes_of(node: Node, given: np.ndarray | None) -> list[int] | None:
    """Axes are an operand or, in older files, an attribute; None where they are left out."""
    found = node.get("axes") if given is None else given.reshape(-1).tolist()
    return None if found is None else [int(axis) for axis in found]


@operator("Transpose")
def transpose(node: Node, value: Tensor) -> Tensor:
    return value.permute(node.get("perm", list(range(value.dim()))[::-1]))


@operator("Reshape", numbers=(1,))
def reshape(node: Node, value: Tensor, target: np.ndarray) -> Tensor:
    return value.reshape(reshaped(node, value.shape, target))


def reshaped(node: Node, shape: Sequence[int], target: np.ndarray) -> list[int]:
    """The target where a zero stands for the size that is there; it may hold a −1."""
    zeros = bool(node.get("allowzero", 0))
    return [shape[i] if size == 0 and not zeros else int(size) for i, size in enumerate(target)]


@operator("Flatten")
def flatten(node: Node, value: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + value.dim() if axis < 0 else axis
    rows = int(np.prod(value.shape[:axis], dtype=np.int64))
    return value.reshape(rows, -1)


@operator("Squeeze", numbers=(1,))
def squeeze(node: Node, value: Tensor, axes: np.ndarray | None = None) -> Tensor:
    found = axes_of(node, axes)
    return value.squeeze() if found is None else value.squeeze(tuple(found))


@operator("Unsqueeze", numbers=(1,))
def unsqueeze(node: Node, value: Tensor, axes: np.ndarray | None = None) -> Tensor:
    found = axes_of(node, axes) or []
    for axis in sorted(axis % (value.dim() + len(found)) for axis in found):
        value = value.unsqueeze(axis)
    return value


@operator("Expand", numbers=(1,))
def expand(node: Node, value: Tensor, target: np.ndarray) -> Tensor:
    """Either may have the ones."""
    return value.expand(expanded(value.shape, target))


def expanded(shape: Sequence[int], target: np.ndarray) -> list[int]:
    """Sizes of what is broadcast to the target."""
    return list(np.broadcast_shapes(tuple(shape), tuple(int(size) for size in target)))


@operator("Tile", numbers=(1,))
def tile(node: Node, value: Tensor, times: np.ndarray) -> Tensor:
    return value.repeat(times.tolist())


@operator("Concat")
def concat(node: Node, *values: Tensor) -> Tensor:
    return torch.cat(list(values), node.get("axis", 0))


@operator("Split", numbers=(1,))
def split(node: Node, value: Tensor, sizes: np.ndarray | None = None) -> tuple[Tensor, ...]:
    return value.split(split_sizes(node, value.shape, sizes), node.get("axis", 0))


def split_sizes(node: Node, shape: Sequence[int], sizes: np.ndarray | None) -> list[int]:
    """Sizes of the parts; without any they are equal, and the last one may be smaller."""
    given = node.get("split") if sizes is None else sizes.tolist()
    if given is not None:
        return [int(size) for size in given]
    size, count = shape[node.get("axis", 0)], len(node.outputs)
    each = -(-size // count)
    return [each] * (count - 1) + [size - each * (count - 1)]


@operator("Slice", numbers=(1, 2, 3, 4))
def slice_(
    node: Node,
    value: Tensor,
    starts: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> Tensor:
    for axis, start, end, step in slices(node, value.dim(), starts, ends, axes, steps):
        first, last, _ = slice(start, end, step).indices(value.shape[axis])
        if step > 0:
            value = value[(slice(None),) * axis + (slice(first, max(first, last), step),)]
        else:
            places = torch.arange(first, last, step, device=value.device)
            whole = len(places) == value.shape[axis]
            value = value.flip(axis) if whole else value.index_select(axis, places)
    return value


def slices(
    node: Node,
    rank: int,
    starts: np.ndarray | None,
    ends: np.ndarray | None,
    axes: np.ndarray | None,
    steps: np.ndarray | None,
) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) of a Slice whose operands, up to opset 9, are attributes."""
    first = node.get("starts") if starts is None else starts.tolist()
    last = node.get("ends") if ends is None else ends.tolist()
    along = node.get("axes", list(range(len(first)))) if axes is None else axes.tolist()
    by = [1] * len(first) if steps is None else steps.tolist()
    return [(int(a) % rank, int(s), int(e), int(b)) for a, s, e, b in zip(along, first, last, by, strict=True)]


@operator("Pad", numbers=(1, 2, 3))
def pad(
    node: Node,
    value: Tensor,
    pads: np.ndarray | None = None,
    filling: np.ndarray | None = None,
    axes: np.ndarray | None = None,
) -> Tensor:
    given = [int(x) for x in (node.get("pads") if pads is None else pads)]
    along = range(value.dim()) if axes is None else [int(axis) % value.dim() for axis in axes]
    around = [(0, 0)] * value.dim()
    for place, axis in enumerate(along):
        around[axis] = given[place], given[place + len(given) // 2]
    flat = [size for pair in reversed(around) for size in pair]
    mode = node.get("mode", "constant")
    if mode == "constant":
        return F.pad(value, flat, value=node.get("value", 0.0) if filling is None else filling.item())
    while flat[-2:] == [0, 0] and len(flat) > 2:
        flat = flat[:-2]
    return F.pad(value, flat, mode={"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[mode])


@operator("DepthToSpace", "SpaceToDepth")
def blocks(node: Node, value: Tensor) -> Tensor:
    """Channels that are pixels, and the other way round."""
    size = node.get("blocksize")
    rows, channels, height, width = value.shape
    if node.kind == "SpaceToDepth":
        cut = value.reshape(rows, channels, height // size, size, width // size, size)
        return cut.permute(0, 3, 5, 1, 2, 4).reshape(rows, channels * size * size, height // size, width // size)
    each = channels // (size * size)
    if node.get("mode", "DCR") == "DCR":
        cut = value.reshape(rows, size, size, each, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        cut = value.reshape(rows, each, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    return cut.reshape(rows, each, height * size, width * size)
