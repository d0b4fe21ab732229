"""What a module's forward is given, of any form, as named tensors and back."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from compress.errors import InputError
from compress.inputs.batch import BYTES, COUNTED, LABELS, TOKEN_WEIGHT, Batch

RESERVED = (LABELS, TOKEN_WEIGHT, COUNTED, BYTES)
"""Names in a batch that no forward is given."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a forward, `spec` and `leaves`; `names`: name → which leaf, of tensors whose first dimension is
    the sample. Other leaves, tensors among them, are given to every forward as they are."""

    spec: TreeSpec
    leaves: Sequence[Any]
    names: Mapping[str, int]

    @classmethod
    def of(cls, module: nn.Module, example: Any) -> Arguments:
        """The arguments of `module` that `example` stands for: a tensor, a tuple or list of arguments, or a mapping of
        keyword arguments. Raises InputError where no tensor is among them or the forward does not take them."""
        args, kwargs = _call(example)
        taken = _taken(module, args, kwargs)
        with_paths, spec = tree_flatten_with_path((args, kwargs))
        rows = next((leaf.shape[0] for _, leaf in with_paths if isinstance(leaf, Tensor) and leaf.dim()), None)
        if rows is None:
            raise InputError(
                f"example_inputs: no tensor with samples among them; give what {_title(module)} is called with"
            )
        names = {}
        for index, (path, leaf) in enumerate(with_paths):
            if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == rows:
                side, first, *rest = path
                name = taken[first.idx] if side.idx == 0 else str(first.key)  # pyright: ignore
                name += keystr(tuple(rest))
                names[f"input {name}" if name in RESERVED else name] = index
        return cls(spec, [leaf for _, leaf in with_paths], names)

    @property
    def example(self) -> Batch:
        """The tensors that it was made of."""
        return {name: self.leaves[index].detach() for name, index in self.names.items()}

    def fits(self, inputs: Any) -> bool:
        """Whether `inputs` have the form of the example."""
        try:
            leaves, spec = tree_flatten(_call(inputs))
        except InputError:
            return False
        return spec == self.spec and all(isinstance(leaves[index], Tensor) for index in self.names.values())

    def batch(self, inputs: Any) -> Batch:
        """The tensors of `inputs`, which `fits`. Raises InputError where others than the example's differ."""
        leaves, _ = tree_flatten(_call(inputs))
        for index, (own, other) in enumerate(zip(self.leaves, leaves, strict=True)):
            if index not in self.names.values() and not _same(own, other):
                raise InputError(
                    f"data: argument {index} of the forward is no tensor of samples, and {_short(other)} in a batch, "
                    f"{_short(own)} in example_inputs; give it the same value in both"
                )
        return {name: leaves[index].detach() for name, index in self.names.items()}

    def call(self, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with these `tensors`; floating ones as `dtype`, all on one device."""
        device = next(iter(tensors.values())).device
        leaves = [leaf.to(device) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        for name, index in self.names.items():
            leaves[index] = tensors[name]
        if dtype is not None:
            leaves = [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in leaves]
        return tree_unflatten(leaves, self.spec)


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor of what a forward returns, however it is nested."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif is_dataclass(output):
        parts = [getattr(output, field.name) for field in fields(output)]
    else:
        parts = list(output) if isinstance(output, tuple | list) else []
    return [tensor for part in parts for tensor in tensors_in(part)]


def _call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    raise InputError(
        f"example_inputs: a {type(inputs).__name__}; give a tensor, a tuple of arguments or a dict of them"
    )


def _taken(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Names of the positional arguments. Raises InputError where the forward does not take these."""
    signature = inspect.signature(module.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"example_inputs: the forward of {_title(module)} does not take them: {error}") from None
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in plain]
    return [*names, *(f"argument {i}" for i in range(len(names), len(args)))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        both = isinstance(one, Tensor) and isinstance(other, Tensor)
        return both and one.shape == other.shape and torch.equal(one.cpu(), other.cpu())
    return bool(one == other)


def _short(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]


def _title(module: nn.Module) -> str:
    return type(module).__name__
