"""Normalisations that are one node."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.onnx_model.file import Node
from compress.onnx_model.registry import operator


@operator("BatchNormalization")
def batch_norm(node: Node, value: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.get("training_mode", 0):
        raise NotImplementedError("training_mode")
    return F.batch_norm(value, mean, variance, gain, bias, False, eps=node.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(node: Node, value: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = value.shape[node.get("axis", -1) % value.dim() :]
    if gain.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(value, shape, gain, bias, node.get("epsilon", 1e-5))
    found = F.layer_norm(value, shape, eps=node.get("epsilon", 1e-5)) * gain
    return found if bias is None else found + bias


@operator("InstanceNormalization")
def instance_norm(node: Node, value: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(value, weight=gain, bias=bias, eps=node.get("epsilon", 1e-5))


@operator("GroupNormalization")
def group_norm(node: Node, value: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Up to opset 20 there is one gain for each group."""
    groups, epsilon = node.get("num_groups"), node.get("epsilon", 1e-5)
    if node.version >= 21:
        return F.group_norm(value, groups, gain, bias, epsilon)
    times = value.shape[1] // groups
    return F.group_norm(value, groups, gain.repeat_interleave(times), bias.repeat_interleave(times), epsilon)


def rms_norm(value: Tensor, gain: Tensor, epsilon: float, dims: int = 1) -> Tensor:
    """x / √(mean x² + ε) times the gain, over the last dimensions."""
    mean = value.float().square().mean(list(range(-dims, 0)), keepdim=True)
    return (value * torch.rsqrt(mean + epsilon)).to(value.dtype) * gain


@operator("RMSNormalization")
def rms(node: Node, value: Tensor, gain: Tensor) -> Tensor:
    return rms_norm(value, gain, node.get("epsilon", 1e-5), value.dim() - node.get("axis", -1) % value.dim())


@operator("SimplifiedLayerNormalization")
def simplified(node: Node, value: Tensor, gain: Tensor) -> Tensor:
    """What ONNX Runtime calls it, in ONNX's own domain."""
    return rms_norm(value, gain, node.get("epsilon", 1e-5))


@operator("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def after_sum(node: Node, value: Tensor, skip: Tensor, gain: Tensor, *rest: Tensor | None) -> tuple[Tensor | None, ...]:
    """ONNX Runtime's residual sum and the normalisation behind it: (result, none, none, sum)."""
    simple = node.kind.startswith("SkipSimplified")
    beta, bias = (None, *rest, None)[:2] if simple else (*rest, None, None)[:2]
    total = value + skip if bias is None else value + skip + bias
    epsilon = node.get("epsilon", 1e-5)
    found = rms_norm(total, gain, epsilon) if simple else F.layer_norm(total, gain.shape, gain, beta, epsilon)
    return found, None, None, total


@operator("LpNormalization")
def lp_norm(node: Node, value: Tensor) -> Tensor:
    return F.normalize(value, node.get("p", 2), node.get("axis", -1))
