"""Element by element: arithmetic, comparisons, activations."""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.onnx_model.arrays import DTYPES
from compress.onnx_model.file import Node
from compress.onnx_model.registry import operator

ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Identity": lambda value: value,
    "IsInf": torch.isinf,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}

TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


@operator(*ONE)
def one(node: Node, value: Tensor) -> Tensor:
    return ONE[node.kind](value)


@operator(*TWO)
def two(node: Node, left: Tensor, right: Tensor) -> Tensor:
    return TWO[node.kind](left, right)


@operator("Div")
def divide(node: Node, left: Tensor, right: Tensor) -> Tensor:
    """Integers are cut towards zero."""
    return torch.div(left, right, rounding_mode=None if left.is_floating_point() else "trunc")


@operator("Mod")
def modulo(node: Node, left: Tensor, right: Tensor) -> Tensor:
    return torch.fmod(left, right) if node.get("fmod", 0) else torch.remainder(left, right)


@operator("Pow")
def power(node: Node, base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent.to(base.dtype)).to(base.dtype)


@operator("Sum")
def add_up(node: Node, *values: Tensor) -> Tensor:
    return reduce(python.add, values)


@operator("Mean")
def average(node: Node, *values: Tensor) -> Tensor:
    return reduce(python.add, values) / len(values)


@operator("Max", "Min")
def extreme(node: Node, *values: Tensor) -> Tensor:
    return reduce(torch.maximum if node.kind == "Max" else torch.minimum, values)


@operator("Where")
def where(node: Node, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition, yes, no)


@operator("Cast")
def cast(node: Node, value: Tensor) -> Tensor:
    return value.to(DTYPES[node.get("to")])


@operator("CastLike")
def cast_like(node: Node, value: Tensor, other: Tensor) -> Tensor:
    return value.to(other.dtype)


@operator("Clip", numbers=(1, 2))
def clip(node: Node, value: Tensor, low=None, high=None) -> Tensor:
    """Up to opset 10 the bounds are attributes."""
    bounds = [node.get("min") if low is None else low.item(), node.get("max") if high is None else high.item()]
    return value if bounds == [None, None] else torch.clamp(value, *bounds)


@operator("LeakyRelu")
def leaky_relu(node: Node, value: Tensor) -> Tensor:
    return F.leaky_relu(value, node.get("alpha", 0.01))


@operator("PRelu")
def prelu(node: Node, value: Tensor, slope: Tensor) -> Tensor:
    return torch.where(value < 0, value * slope, value)


@operator("Elu", "Celu")
def elu(node: Node, value: Tensor) -> Tensor:
    return (F.elu if node.kind == "Elu" else F.celu)(value, node.get("alpha", 1.0))


@operator("Selu")
def selu(node: Node, value: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(value > 0, value, alpha * (torch.exp(value) - 1))


@operator("HardSigmoid")
def hard_sigmoid(node: Node, value: Tensor) -> Tensor:
    return torch.clamp(value * node.get("alpha", 0.2) + node.get("beta", 0.5), 0, 1)


@operator("Swish")
def swish(node: Node, value: Tensor) -> Tensor:
    return value * torch.sigmoid(value * node.get("alpha", 1.0))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, value: Tensor) -> Tensor:
    return torch.where(value > node.get("alpha", 1.0), value, torch.zeros_like(value))


@operator("Gelu")
def gelu(node: Node, value: Tensor) -> Tensor:
    return F.gelu(value, approximate=node.get("approximate", "none"))


@operator("Gelu", "QuickGelu", "FastGelu", "BiasGelu", domain="com.microsoft")
def gelus(node: Node, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """ONNX Runtime's own, some with a bias."""
    value = value if bias is None else value + bias
    if node.kind == "QuickGelu":
        return value * torch.sigmoid(value * node.get("alpha", 1.702))
    return F.gelu(value, approximate="tanh" if node.kind == "FastGelu" else "none")


@operator("Dropout")
def dropout(node: Node, value: Tensor, *rest: Tensor | None) -> Tensor:
    """Nothing is dropped outside of training."""
    return value


@operator("Trilu", numbers=(1,))
def triangle(node: Node, value: Tensor, diagonal=None) -> Tensor:
    return (torch.triu if node.get("upper", 1) else torch.tril)(value, 0 if diagonal is None else int(diagonal))
