"""A module of the user's without its weights: what it is traced, run, cut and made again from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from compress.checkpoint.held import HeldCheckpoint, hold
from compress.errors import InputError, ModelError
from compress.graph.example import Example
from compress.graph.families import Graph
from compress.graph.trace import trace
from compress.inputs.given import Given, declare
from compress.model.changes import Changes
from compress.model.narrow import can_narrow, narrow


@dataclass(frozen=True)
class Skeleton:
    """`module`: a copy whose parameters and stored buffers are on the meta device, all else of it as it was. `given`:
    what its forward is called with."""

    module: nn.Module
    given: Given

    @property
    def cls(self) -> type[nn.Module]:
        """The class of the user's module."""
        return type(self.module)

    def copy(self) -> nn.Module:
        """One more such copy, to be changed."""
        return copy.deepcopy(self.module)

    def changed(self, changes: Changes) -> Skeleton:
        """That of the module with these changes."""
        module = self.copy()
        changes.apply(module)
        return replace(self, module=module)

    def empty(self) -> nn.Module:
        """A copy to be traced: all on the meta device, called by the names of `given`'s tensors."""
        memo: dict[int, Any] = {
            id(tensor): torch.empty_like(tensor, device="meta")
            for tensor in loose_tensors(self.module)
            if not tensor.is_meta
        }
        return self._called(copy.deepcopy(self.module, memo), None)

    def graph(self, module: nn.Module, example: Example, left: Mapping[str, Tensor] | None = None) -> Graph:
        """By tracing it, a copy or this module with changes; `left` as in `trace`."""
        return trace(module, example, left, self.uniform())

    def uniform(self) -> dict[str, tuple[int, ...]]:
        """Buffers that are not stored, with the dimensions along which all their entries are equal."""
        stored = {id(tensor) for tensor in self.module.state_dict(keep_vars=True).values()}
        found = {
            name: tuple(dim for dim in range(buffer.dim()) if bool((buffer == buffer.narrow(dim, 0, 1)).all()))
            for name, buffer in self.module.named_buffers()
            if id(buffer) not in stored and not buffer.is_meta and buffer.numel()
        }
        return {name: dims for name, dims in found.items() if dims}

    def runnable(self, dtype: torch.dtype) -> nn.Module:
        """A copy to be given weights as `dtype` and run, called by the names of `given`'s tensors."""
        own = main_dtype(self.module)
        memo: dict[int, Any] = {
            id(x): x if x.is_meta else x.detach().to("cpu", dtype if x.dtype == own else x.dtype, copy=True)
            for x in loose_tensors(self.module)
        }
        return self._called(copy.deepcopy(self.module, memo), dtype)

    def _called(self, module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
        for part in module.modules():
            if can_narrow(part):
                narrow(part)  # pyright: ignore[reportArgumentType]  # its projections are then modules that run
        arguments, cls = self.given.arguments, type(module)
        own = vars(module).pop("forward", None)

        @wraps(cls.forward)
        def forward(self: Any, **tensors: Tensor) -> Any:
            args, kwargs = arguments.call(tensors, dtype)
            return cls.forward(self, *args, **kwargs) if own is None else own(*args, **kwargs)

        module.__class__ = type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})
        declare(module, self.given)
        return module.eval().requires_grad_(False)


def held_module(module: nn.Module, given: Given) -> HeldCheckpoint:
    """The checkpoint of a module in memory, which goes on being the user's: it is neither changed nor copied, but read.

    Raises InputError where it cannot be copied without its weights, ModelError where what it stores are no parameters
    and buffers.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(f"{type(module).__name__}: a ScriptModule has no forward in Python; give the module itself")
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise InputError(f"{type(module).__name__}: wraps a module; give that, its `.module`")
    if hasattr(module, "_orig_mod"):
        raise InputError(f"{type(module).__name__}: was compiled; give the module itself, its `._orig_mod`")
    stored: dict[int, str] = {}
    held: dict[str, Tensor] = {}
    known = {id(x) for x in (*module.parameters(), *module.buffers())}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor) or id(tensor) not in known:
            raise ModelError(f"{type(module).__name__}: {name} of its state dict is no parameter or buffer of a module")
        if is_lazy(tensor):
            raise InputError(f"{type(module).__name__}: {name} has no shape yet; call the module once first")
        if tensor.is_meta:
            raise InputError(f"{type(module).__name__}: {name} is on the meta device; load its weights first")
        if id(tensor) not in stored:
            stored[id(tensor)] = name
            held[name] = tensor
    return hold(held, Skeleton(_without_weights(module, set(stored)), given))


def main_dtype(module: nn.Module) -> torch.dtype | None:
    """The floating dtype of most of its parameters, None where it has none."""
    sizes: dict[torch.dtype, int] = {}
    for parameter in module.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] = sizes.get(parameter.dtype, 0) + parameter.numel()
    return max(sizes, key=lambda dtype: sizes[dtype], default=None)


def _without_weights(module: nn.Module, stored: set[int]) -> nn.Module:
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        if id(buffer) in stored:
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    for tensor in loose_tensors(module):
        memo.setdefault(id(tensor), tensor.detach().clone())
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # whatever the user's attributes raise
        raise InputError(f"{type(module).__name__}: cannot be copied without its weights: {error}") from error


def loose_tensors(module: nn.Module, *, stored: bool = True) -> Iterator[Tensor]:
    """Buffers, and tensors that are attributes of modules, or lie in lists and the like there; all of it, or what is
    not `stored` in a state dict."""
    known = set() if stored else {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    for part in module.modules():
        yield from (buffer for buffer in part._buffers.values() if buffer is not None and id(buffer) not in known)
        own: Mapping[str, Any] = vars(part)
        values = [value for name, value in own.items() if name not in ("_parameters", "_buffers", "_modules")]
        yield from (
            leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter)
        )
