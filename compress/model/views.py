"""Views whose code has a width from elsewhere, as `y.reshape(rows, length, channels)`, made to follow their inputs, and
splits, as `y.split((hidden, hidden - some, some))`, that are given other sizes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

VIEWS = (Tensor.view, Tensor.reshape, torch.reshape)
SPLITS = (Tensor.split, torch.split, Tensor.split_with_sizes, torch.split_with_sizes, Tensor.chunk, torch.chunk)


class Following(TorchFunctionMode):
    """While a module's forward runs: of its n-th view the size in the place `places[n]` is what its input leaves, and
    its n-th split makes parts of the sizes `splits[n]`."""

    def __init__(self, places: Mapping[int, int], splits: Mapping[int, Sequence[int]]) -> None:
        super().__init__()
        self.places, self.count = places, 0
        self.splits, self.parted = splits, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SPLITS:
            number, self.parted = self.parted, self.parted + 1
            if number in self.splits:
                x = args[0] if args else kwargs["tensor"]
                return torch.split(x, list(self.splits[number]), split_dim(args, kwargs or {}))
            return func(*args, **(kwargs or {}))
        sizes = sizes_of(func, args, kwargs or {})
        if sizes is None:
            return func(*args, **(kwargs or {}))
        number, self.count = self.count, self.count + 1
        if number in self.places:
            sizes = [-1 if place == self.places[number] else size for place, size in enumerate(sizes)]
        return func(args[0], sizes)


def sizes_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[int] | None:
    """The sizes that a view is asked for; None of what is none, or takes them by name."""
    if func not in VIEWS or kwargs or len(args) < 2:
        return None
    sizes = args[1] if isinstance(args[1], tuple | list) else args[1:]
    return list(sizes) if all(isinstance(size, int | torch.SymInt) for size in sizes) else None


def split_dim(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """The dimension along which one of `SPLITS` parts its tensor."""
    return args[2] if len(args) > 2 else kwargs.get("dim", 0)


def follow(module: nn.Module, places: Mapping[int, int], splits: Mapping[int, Sequence[int]]) -> None:
    """Have these views of `module`'s forward follow their inputs, and these splits have such parts, from now on, too;
    its class stays."""
    cls, plain = type(module), inspect.signature(module.forward)
    own = vars(module).get("forward")
    before = own.args[2:] if isinstance(own, partial) and own.func is _forward else ({}, {})
    forward = partial(_forward, module, cls, {**before[0], **places}, {**before[1], **splits})
    named = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in plain.parameters.values()]
    forward.__signature__ = inspect.Signature(named)  # pyright: ignore[reportAttributeAccessIssue]
    module.forward = forward


def _forward(
    module: nn.Module,
    cls: type[nn.Module],
    places: Mapping[int, int],
    splits: Mapping[int, Sequence[int]],
    *args: Any,
    **kwargs: Any,
) -> Any:
    with Following(places, splits):
        return cls.forward(module, *args, **kwargs)
