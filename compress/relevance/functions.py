"""Operations whose way back hands on relevance ÷ activation instead of a gradient; forward they are themselves.

Relevance is activation × gradient throughout ("gradient × input"), so a rule is a factor on a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

SMALL = 1e-9
"""What keeps a quotient finite where its divisor is zero."""

Multiply = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A product of inputs with a weight, and a bias: a linear map or a convolution."""


class Rule(NamedTuple):
    """How a product with weights hands relevance back.

    In proportion to x·w where `gamma` is 0 (ε-rule, ε → 0), with contributions of the result's own sign counting 1 +
    `gamma` times (γ-rule), or with positive contributions alone (`positive`, z⁺).
    """

    gamma: float = 0.0
    positive: bool = False


class Kept(Function):
    """An element-wise function hands on all relevance it gets: gradient · f(x) / x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(divided(value, x))
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (ratio,) = ctx.saved_tensors
        return gradients[0] * ratio, None


class Scaled(Function):
    """A factor on the gradient alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * ctx.factor, None


class Weighted(Function):
    """A product with weights by a `Rule` that is not plain: the relevance of its result goes by changed weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, multiply: Multiply, rule: Rule) -> Tensor:
        ctx.multiply, ctx.rule = multiply, rule
        result = multiply(x, weight, bias)
        ctx.save_for_backward(x, weight, bias, result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, bias, result = ctx.saved_tensors
        relevance = gradients[0] * result
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            parts = _contributions(ctx.multiply, ctx.rule, x, weight.detach(), None if bias is None else bias.detach())
            shares = [torch.where(where(result), divided(relevance, part), 0.0) for part, where in parts]
            (handed,) = torch.autograd.grad([part for part, _ in parts], x, shares)
        return handed, None, None, None, None


def divided(one: Tensor, by: Tensor) -> Tensor:
    """A quotient that is finite."""
    return one / torch.where(by.abs() < SMALL, torch.where(by < 0, -SMALL, SMALL), by)


def _contributions(
    multiply: Multiply, rule: Rule, x: Tensor, weight: Tensor, bias: Tensor | None
) -> list[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """What relevance is shared out by, and for which results: positive and negative ones differ."""
    plus, minus = x.clamp(min=0), x.clamp(max=0)

    def of(sign: int) -> Tensor:
        """Contributions with those of one sign, where x and w have it both or neither, counting more or alone."""
        same, other = _signed(weight, sign), _signed(weight, -sign)
        own = None if bias is None else _signed(bias, sign)
        if rule.positive:
            return multiply(plus, same, own) + multiply(minus, other, None)
        raised = None if bias is None or own is None else bias + rule.gamma * own
        return multiply(plus, weight + rule.gamma * same, raised) + multiply(minus, weight + rule.gamma * other, None)

    if rule.positive:
        return [(of(1), lambda result: torch.ones_like(result, dtype=torch.bool))]
    return [(of(1), lambda result: result > 0), (of(-1), lambda result: result < 0)]


def _signed(values: Tensor, sign: int) -> Tensor:
    return values.clamp(min=0) if sign > 0 else values.clamp(max=0)
