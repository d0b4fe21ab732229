"""Nodes with weights as the modules that torch has for them, so that what looks for a Linear finds one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.onnx_model.file import Node
from compress.onnx_model.operators.convolution import padded, pads_of


class Unfilled:
    """A module whose weights are given: it does not think of any, which on the meta device loads half of torch."""

    def reset_parameters(self) -> None:
        """Nothing."""
        return None


def _unfilled(kind: type[nn.Module]) -> Any:
    return type(kind.__name__, (Unfilled, kind), {"__module__": __name__})


CONVOLUTIONS = {
    "Conv": {1: _unfilled(nn.Conv1d), 2: _unfilled(nn.Conv2d), 3: _unfilled(nn.Conv3d)},
    "ConvTranspose": {
        1: _unfilled(nn.ConvTranspose1d),
        2: _unfilled(nn.ConvTranspose2d),
        3: _unfilled(nn.ConvTranspose3d),
    },
}
Embedding, LayerNorm = _unfilled(nn.Embedding), _unfilled(nn.LayerNorm)


@dataclass(frozen=True)
class Weight:
    """A stored array as a node reads it: `name` in the file, its shape, and whether a Transpose turned it."""

    name: str
    shape: tuple[int, ...]
    turned: bool = False


class Weights(Protocol):
    """What a layer may ask for while it is made."""

    def weight(self, value: str) -> Weight | None:
        """The stored array behind a value, through Cast, Identity and the Transpose of a matrix; None without one."""
        ...

    def bias_after(self, node: Node, width: int) -> tuple[Node, str] | None:
        """The Add that is all that reads the node's output, and the stored vector `[width]` that it adds."""
        ...

    def tensor(self, name: str) -> nn.Parameter:
        """A stored array as a parameter; the same object whenever it is asked for."""
        ...


@dataclass(frozen=True)
class Layer:
    """`module` does what `node` does, and what `absorbed` does after it. `stored`: its attribute → name of the array.

    `run(module, value)` gives the output for what the operand at `given` is.
    """

    module: nn.Module
    stored: dict[str, str]
    run: Callable[[nn.Module, Tensor], Tensor] = nn.Module.__call__
    given: int = 0
    absorbed: Node | None = None


Make = Callable[[Node, Weights], Layer | None]
LAYERS: dict[str, Make] = {}


def layer(*kinds: str) -> Callable[[Make], Make]:
    """Register what makes a layer of such a node, or None where its weights are not all stored."""

    def register(make: Make) -> Make:
        LAYERS.update(dict.fromkeys(kinds, make))
        return make

    return register


class Linear(nn.Linear):
    """Weight `[out, in]`, computed in the type of what it is given."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight = weight
        self.register_parameter("bias", bias)

    def forward(self, input: Tensor) -> Tensor:
        """`[…, in]` → `[…, out]`."""
        return F.linear(input, self.weight.to(input.dtype), None if self.bias is None else self.bias.to(input.dtype))


@cache
def _turned_linear() -> Any:
    from transformers.pytorch_utils import Conv1D

    class TurnedLinear(Conv1D):
        """Weight `[in, out]`, computed in the type of what it is given."""

        def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
            nn.Module.__init__(self)
            self.nx, self.nf = weight.shape
            self.weight = weight
            self.register_parameter("bias", bias)

        def forward(self, input: Tensor) -> Tensor:
            """`[…, in]` → `[…, out]`."""
            found = torch.matmul(input, self.weight.to(input.dtype))
            return found if self.bias is None else found + self.bias.to(input.dtype)

    return TurnedLinear


class Normalised(Unfilled, nn.BatchNorm2d):
    """Batch normalisation over any number of positions."""

    def _check_input_dim(self, input: Tensor) -> None:
        return None


def projection(weights: Weights, weight: Weight, bias: str | None) -> tuple[nn.Module, dict[str, str]]:
    """A product with a stored matrix: `[in, out]`, or `[out, in]` where it is turned."""
    cls: Any = Linear if weight.turned else _turned_linear()
    module = cls(weights.tensor(weight.name), None if bias is None else weights.tensor(bias))
    return module, {"weight": weight.name, **({} if bias is None else {"bias": bias})}


@layer("MatMul")
def matmul(node: Node, weights: Weights) -> Layer | None:
    """A value by a stored matrix, with the bias that an Add brings."""
    weight = weights.weight(node.operand(1))
    if weight is None or len(weight.shape) != 2 or weights.weight(node.operand(0)) is not None:
        return None
    after = weights.bias_after(node, weight.shape[0 if weight.turned else 1])
    module, stored = projection(weights, weight, None if after is None else after[1])
    return Layer(module, stored, absorbed=None if after is None else after[0])


@layer("Gemm")
def gemm(node: Node, weights: Weights) -> Layer | None:
    """A stored matrix and vector, neither scaled."""
    weight = weights.weight(node.operand(1))
    if weight is None or len(weight.shape) != 2 or weights.weight(node.operand(0)) is not None:
        return None
    if node.get("transA", 0) or node.get("alpha", 1.0) != 1 or node.get("beta", 1.0) != 1:
        return None
    weight = Weight(weight.name, weight.shape, weight.turned != bool(node.get("transB", 0)))
    bias = weights.weight(node.operand(2)) if node.operand(2) else None
    width = weight.shape[0 if weight.turned else 1]
    if node.operand(2) and (bias is None or bias.shape != (width,)):
        return None
    module, stored = projection(weights, weight, None if bias is None else bias.name)
    return Layer(module, stored)


@layer("Conv", "ConvTranspose")
def convolution(node: Node, weights: Weights) -> Layer | None:
    """A stored kernel, of one to three dimensions; where padding differs between the sides, it is put on before."""
    weight = weights.weight(node.operand(1))
    bias = weights.weight(node.operand(2)) if node.operand(2) else None
    kind: Any = None if weight is None else CONVOLUTIONS[node.kind].get(len(weight.shape) - 2)
    if weight is None or kind is None or (node.operand(2) and bias is None):
        return None
    kernel, groups, back = weight.shape[2:], node.get("group", 1), node.kind == "ConvTranspose"
    stride, dilation = node.get("strides", [1] * len(kernel)), node.get("dilations", [1] * len(kernel))
    pads = pads_of(node, len(kernel))
    even = pads is not None and pads[: len(kernel)] == pads[len(kernel) :]
    more: dict[str, Any] = {}
    if back:
        if not even or node.get("output_shape"):
            return None
        more["output_padding"] = node.get("output_padding", [0] * len(kernel))
    outer = (weight.shape[0], weight.shape[1] * groups)
    given, made = outer if back else outer[::-1]
    module = kind(
        given,
        made,
        kernel,
        stride=stride,
        padding=pads[: len(kernel)] if pads is not None and even else 0,
        dilation=dilation,
        groups=groups,
        bias=bias is not None,
        device="meta",
        **more,
    )
    stored = put(module, weights, {"weight": weight.name, **({} if bias is None else {"bias": bias.name})})
    if even:
        return Layer(module, stored)
    return Layer(module, stored, lambda own, value: own(padded(node, value, kernel)))


@layer("BatchNormalization")
def batch_norm(node: Node, weights: Weights) -> Layer | None:
    """Gain, bias, mean and variance, all stored."""
    found = [weights.weight(node.operand(place)) for place in range(1, 5)]
    if None in found or node.get("training_mode", 0) or not node.get("spatial", 1):
        return None
    names = [each.name for each in found if each is not None]
    module = Normalised(found[0].shape[0], eps=node.get("epsilon", 1e-5), device="meta")  # pyright: ignore[reportOptionalMemberAccess]
    module.num_batches_tracked = None
    module.eval()
    return Layer(module, put(module, weights, dict(zip(_NORM, names, strict=True))))


_NORM = ("weight", "bias", "running_mean", "running_var")


@layer("LayerNormalization")
def layer_norm(node: Node, weights: Weights) -> Layer | None:
    """Gain and bias over the last dimensions."""
    gain, bias = weights.weight(node.operand(1)), weights.weight(node.operand(2)) if node.operand(2) else None
    if gain is None or (node.operand(2) and bias is None) or (node.get("axis", -1) not in (-1, -len(gain.shape))):
        return None
    module = LayerNorm(gain.shape, eps=node.get("epsilon", 1e-5), bias=bias is not None, device="meta")
    return Layer(module, put(module, weights, {"weight": gain.name, **({} if bias is None else {"bias": bias.name})}))


@layer("Gather")
def embedding(node: Node, weights: Weights) -> Layer | None:
    """Rows of a stored matrix."""
    table = weights.weight(node.operand(0))
    if table is None or len(table.shape) != 2 or table.turned or node.get("axis", 0) != 0:
        return None
    module = Embedding(*table.shape, device="meta")
    return Layer(module, put(module, weights, {"weight": table.name}), given=1)


def put(module: nn.Module, weights: Weights, stored: dict[str, str]) -> dict[str, str]:
    """Give a module the arrays as its own; returns which."""
    for attribute, name in stored.items():
        tensor = weights.tensor(name)
        if attribute in module._buffers:
            module._buffers[attribute] = tensor.detach()
        else:
            setattr(module, attribute, tensor)
    return stored


def scopes(node: Node, stored: Iterable[str]) -> list[str]:
    """Names, as a module's, that a layer may go by, the best first: those of its arrays, of its node's scope."""
    found = [name.rpartition(".")[0] for name in stored if name.rpartition(".")[2] in ("weight", "bias")]
    if "/" in node.name:
        found.append(".".join(node.name.strip("/").split("/")[:-1]))
    return [*(name for name in found if name), *stored]
