"""Relevance rules for any model: operators are caught as its code calls them, whatever its modules are called.

LRP (Bach et al. 2015) as gradient × input; for transformers AttnLRP (Achtibat et al. 2024,
https://arxiv.org/abs/2402.05602): element-wise functions hand on all, products of two activations a half each,
normalisations count as a factor, softmax as its own first-order expansion.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from compress.relevance.functions import Kept, Rule, Scaled, Weighted

ACTIVATIONS = frozenset(
    getattr(functional, name)
    for name in ("relu", "gelu", "silu", "elu", "selu", "celu", "mish", "leaky_relu", "softplus", "hardswish", "relu6")
) | {torch.relu, Tensor.relu, torch.tanh, Tensor.tanh, torch.sigmoid, Tensor.sigmoid, torch.pow, Tensor.pow}

PRODUCTS = frozenset((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply, Tensor.multiply))
MATRIX_PRODUCTS = frozenset((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum))
FACTORS = frozenset((torch.rsqrt, Tensor.rsqrt, torch.reciprocal, Tensor.reciprocal, Tensor.__rtruediv__))
QUOTIENTS = frozenset((torch.div, Tensor.div, Tensor.__truediv__, torch.true_divide, Tensor.true_divide))
WEIGHTED = frozenset((functional.linear, functional.conv1d, functional.conv2d, functional.conv3d))


class Relevance(TorchFunctionMode):
    """While in use, what is computed with gradients hands relevance back, products with weights by the `rule`."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func in ACTIVATIONS and _flows(args[0]):
            return self._activated(func, args, kwargs)
        if func in PRODUCTS or func in MATRIX_PRODUCTS:
            flowing = [place for place, value in enumerate(args) if _flows(value)]
            if len(flowing) == 2:
                args = tuple(Scaled.apply(x, 0.5) if place in flowing else x for place, x in enumerate(args))
        elif func in FACTORS:
            return func(*args, **kwargs).detach()
        elif func in QUOTIENTS and len(args) > 1 and _flows(args[1]):
            args = (args[0], args[1].detach(), *args[2:])
        elif func is functional.layer_norm:
            return _layer_norm(*args, **kwargs)
        elif func is functional.rms_norm:
            return _rms_norm(*args, **kwargs)
        elif func is functional.scaled_dot_product_attention:
            query, key, value, *more = args
            # Half of the relevance of softmax(q·k)·v is v's, and of the other half again half each is q's and k's.
            args = (_scaled(query, 0.25), _scaled(key, 0.25), _scaled(value, 0.5), *more)
        elif func in WEIGHTED and self.rule != Rule() and _flows(args[0]):
            return self._weighted(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _activated(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
        with torch.no_grad():
            value = func(args[0].clone(), *args[1:], **kwargs)  # some work in place
        return Kept.apply(args[0], value)  # pyright: ignore[reportReturnType]

    def _weighted(
        self, func: Callable[..., Any], x: Tensor, weight: Tensor, bias: Tensor | None = None, *more: Any, **kwargs: Any
    ) -> Tensor:
        def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return func(x, weight, bias, *more, **kwargs)

        return Weighted.apply(x, weight, bias, multiply, self.rule)  # pyright: ignore[reportReturnType]


def _flows(value: Any) -> bool:
    """Whether relevance goes through it: an activation, no weight and no view of one."""
    if not isinstance(value, Tensor) or not value.requires_grad:
        return False
    return not (isinstance(value, nn.Parameter) or isinstance(value._base, nn.Parameter))


def _scaled(value: Tensor, factor: float) -> Tensor:
    return Scaled.apply(value, factor) if _flows(value) else value  # pyright: ignore[reportReturnType]


def _layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    places = tuple(range(-len(shape), 0))
    centred = x - x.mean(places, keepdim=True)
    return _affine(centred * _factor(centred, places, eps), weight, bias)


def _rms_norm(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    places = tuple(range(-len(shape), 0))
    return _affine(x * _factor(x, places, torch.finfo(x.dtype).eps if eps is None else eps), weight, None)


def _factor(x: Tensor, places: tuple[int, ...], eps: float) -> Tensor:
    with torch.no_grad():
        return (x.square().mean(places, keepdim=True) + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def by_depth(early: Rule, late: Rule, depth: float) -> Relevance:
    """A composite: one rule for the first half of the blocks, another one for the rest and what lies outside."""
    return Relevance(early if depth < 0.5 else late)


EPSILON = partial(by_depth, Rule(), Rule())
GAMMA = partial(by_depth, Rule(gamma=0.25), Rule(gamma=0.25))
POSITIVE = partial(by_depth, Rule(positive=True), Rule(positive=True))
COMPOSITE = partial(by_depth, Rule(gamma=0.25), Rule())
