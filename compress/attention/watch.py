"""Watching a model's attention while it runs as it does: no other implementation is put in its place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from threading import RLock
from typing import Any

from torch import Tensor, nn

from compress.attention.call import Attention

Tell = Callable[[nn.Module, Attention], None]
"""`(the module that attends, what it did)`; called after each attention of the model."""


def watch(model: nn.Module, tell: Tell) -> Callable[[], None]:
    """Tell of every attention of `model` from now on; returns what ends it.

    transformers' modules look their attention function up at every call (`AttentionInterface.get_interface`), whether
    it is eager, sdpa or another: the look-up gives the same function, which tells of its call afterwards. What a model
    computes is thus bit for bit what it computes unwatched. Modules that attend without the interface are not seen.
    """
    watched = _Watched({id(module) for module in model.modules()}, tell, model)
    with _lock:
        if not _watches:
            _wrap_lookups()
        _watches.append(watched)

    def undo() -> None:
        with _lock:
            _watches.remove(watched)
            if not _watches:
                _unwrap_lookups()

    return undo


class _Watched:
    """A model under watch; it is held, so that no other module gets one of its ids."""

    def __init__(self, modules: set[int], tell: Tell, model: nn.Module) -> None:
        self.modules, self.tell, self.model = modules, tell, model


_watches: list[_Watched] = []
_lock = RLock()


def _wrap_lookups() -> None:
    from transformers.modeling_utils import AttentionInterface

    lookup = AttentionInterface.get_interface

    @functools.wraps(lookup)
    def found(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        return _telling(lookup(self, attn_implementation, default))

    AttentionInterface.get_interface = found


def _unwrap_lookups() -> None:
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.get_interface = AttentionInterface.get_interface.__wrapped__  # pyright: ignore


def _telling(attend: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(attend)
    def told(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
    ) -> Any:
        output = attend(module, query, key, value, attention_mask, **options)
        for watched in list(_watches):
            if id(module) in watched.modules:
                weights = output[1] if isinstance(output, tuple) else None
                watched.tell(module, Attention.made(module, query, key, value, attention_mask, weights, **options))
        return output

    return told
