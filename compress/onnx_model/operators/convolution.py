"""Convolutions, pooling and other resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.onnx_model.file import Node
from compress.onnx_model.registry import operator

CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
BACK: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAXIMUM: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def pads_of(node: Node, rank: int) -> list[int] | None:
    """Padding at the beginnings, then at the ends; None where it follows from the size of what is given."""
    automatic = node.get("auto_pad", "NOTSET")
    if automatic in ("NOTSET", ""):
        return list(node.get("pads", [0] * (2 * rank)))
    return [0] * (2 * rank) if automatic == "VALID" else None


def padded(node: Node, value: Tensor, kernel: Sequence[int], filling: float = 0.0) -> Tensor:
    """A value with the padding around it that a convolution or a pool asks for."""
    rank = len(kernel)
    pads = pads_of(node, rank)
    if pads is None:
        strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
        lacking = [
            max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
            for size, stride, width, dilation in zip(value.shape[2:], strides, kernel, dilations, strict=True)
        ]
        less, more = [x // 2 for x in lacking], [x - x // 2 for x in lacking]
        pads = [*less, *more] if node.get("auto_pad") == "SAME_UPPER" else [*more, *less]
    if not any(pads):
        return value
    flat = [size for place in reversed(range(rank)) for size in (pads[place], pads[place + rank])]
    return F.pad(value, flat, value=filling)


@operator("Conv")
def convolution(node: Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.dim() - 2
    return CONV[rank](
        padded(node, value, weight.shape[2:]),
        weight,
        bias,
        node.get("strides", [1] * rank),
        0,
        node.get("dilations", [1] * rank),
        node.get("group", 1),
    )


@operator("ConvTranspose")
def transposed(node: Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.dim() - 2
    pads = pads_of(node, rank)
    if pads is None or node.get("output_shape"):
        raise NotImplementedError("padding that follows from the size of the output")
    found = BACK[rank](
        value,
        weight,
        bias,
        node.get("strides", [1] * rank),
        0,
        node.get("output_padding", [0] * rank),
        node.get("group", 1),
        node.get("dilations", [1] * rank),
    )
    return F.pad(found, [-size for place in reversed(range(rank)) for size in (pads[place], pads[place + rank])])


@operator("MaxPool")
def max_pool(node: Node, value: Tensor) -> Tensor:
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    if len(node.outputs) > 1 and node.outputs[1]:
        raise NotImplementedError("the positions of the largest")
    return MAXIMUM[rank](
        padded(node, value, kernel, float("-inf")),
        kernel,
        node.get("strides", [1] * rank),
        0,
        node.get("dilations", [1] * rank),
        bool(node.get("ceil_mode", 0)),
    )


@operator("AveragePool")
def average_pool(node: Node, value: Tensor) -> Tensor:
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    if node.get("dilations", [1] * rank) != [1] * rank:
        raise NotImplementedError("dilations")
    strides, ceil = node.get("strides", [1] * rank), bool(node.get("ceil_mode", 0))
    pads = pads_of(node, rank)
    if pads is not None and pads[:rank] == pads[rank:]:
        return AVERAGE[rank](value, kernel, strides, pads[:rank], ceil, bool(node.get("count_include_pad", 0)))
    found = AVERAGE[rank](padded(node, value, kernel), kernel, strides, 0, ceil)
    if node.get("count_include_pad", 0):
        return found
    ones = torch.ones([1, 1, *value.shape[2:]], dtype=value.dtype, device=value.device)
    return found / AVERAGE[rank](padded(node, ones, kernel), kernel, strides, 0, ceil)


@operator("GlobalAveragePool")
def global_average(node: Node, value: Tensor) -> Tensor:
    return value.mean(list(range(2, value.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_maximum(node: Node, value: Tensor) -> Tensor:
    return value.amax(list(range(2, value.dim())), keepdim=True)


@operator("Resize", "Upsample", numbers=(1, 2, 3))
def resize(
    node: Node,
    value: Tensor,
    region: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
) -> Tensor:
    """By a whole number of times with every pixel repeated; linearly and cubically in the ways that torch knows."""
    if node.kind == "Upsample" or (node.version < 11 and scales is None):
        scales = np.array(node.get("scales")) if region is None else region
    rank = value.dim() - 2
    if sizes is not None and sizes.size:
        target = [int(size) for size in sizes]
    else:
        assert scales is not None
        target = [int(np.floor(size * float(scale))) for size, scale in zip(value.shape, scales, strict=True)]
    if node.get("axes") is not None or target[:2] != list(value.shape[:2]):
        raise NotImplementedError("other axes than those of pixels")
    mode = node.get("mode", "nearest")
    how = node.get("coordinate_transformation_mode", "half_pixel" if node.version >= 11 else "asymmetric")
    if mode == "nearest":
        whole = all(new % old == 0 for new, old in zip(target, value.shape, strict=True))
        if not whole:
            raise NotImplementedError("the nearest pixel of sizes that are no multiples")
        return F.interpolate(value, size=target[2:], mode="nearest")
    names = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}
    if (mode, rank) not in names or how not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotImplementedError(f"mode {mode} with {how}")
    return F.interpolate(value, size=target[2:], mode=names[mode, rank], align_corners=how == "align_corners")
