"""What operators make on the meta device, remembered by what they are given.

torch's rules for shapes are Python for the most part and take far longer than the call itself, while the blocks of a
model, and the experiments on its configuration, ask for the same ones over and over.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

MOST = 1 << 14
"""Calls that are remembered; then all are forgotten."""

ON_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_remembered: dict[Hashable, Any] = {}


class _OfItsOwn(Exception):
    """Something whose outcome does not follow from shape, strides and dtype alone."""


def outcome(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `func(*args, **kwargs)` gives: on the meta device, of equal arguments, fresh tensors like those of before.

    Whatever else an operator gives, takes or changes, it is called for. Raises what it raises.
    """
    if not _makes_only(func):
        return func(*args, **kwargs)
    try:
        key = func, _told(args), _told(tuple(kwargs.items()))
        found = _remembered.get(key)
    except (_OfItsOwn, TypeError):  # TypeError: no such thing is hashable
        return func(*args, **kwargs)
    if found is not None:
        return _fresh(found)
    result = func(*args, **kwargs)
    try:
        if len(_remembered) >= MOST:
            _remembered.clear()
        _remembered[key] = _kept(result)
    except _OfItsOwn:
        pass
    return result


@cache
def _makes_only(func: Any) -> bool:
    """Whether an operator of torch's own reads and writes nothing but what it says, and gives no view."""
    schema = func._schema
    shares = any(each.alias_info is not None for each in (*schema.arguments, *schema.returns))
    return func.namespace == "aten" and not shares and ON_VALUES.isdisjoint(func.tags)


def _plain(tensor: Tensor) -> bool:
    own = type(tensor) in (Tensor, nn.Parameter)
    return own and tensor.is_meta and tensor.layout is torch.strided and not tensor.is_complex()


def _told(value: Any) -> Hashable:
    """An argument as a key: 1, 1.0 and True are three."""
    if isinstance(value, Tensor):
        if not _plain(value):
            raise _OfItsOwn
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_told, value))
    return type(value), value


def _kept(result: Any) -> Any:
    """A result without its tensors; None among several stays."""
    if isinstance(result, Tensor):
        if not _plain(result):
            raise _OfItsOwn
        return result.shape, result.stride(), result.dtype
    if type(result) in (list, tuple):
        return type(result), [None if each is None else _kept(each) for each in result]
    raise _OfItsOwn


def _fresh(kept: Any) -> Any:
    if len(kept) == 3:
        shape, strides, dtype = kept
        return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    kind, several = kept
    return kind(None if each is None else _fresh(each) for each in several)
