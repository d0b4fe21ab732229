"""How many groups grouped convolutions have once some are gone: what they are given says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


@contextmanager
def following(model: nn.Module) -> Iterator[dict[str, int]]:
    """While `model` runs, its grouped convolutions take as many groups as their inputs and kernels leave them.

    Gives the convolutions, by name, whose number is another one than they had, as they run.
    """
    changed: dict[str, int] = {}
    handles = [
        module.register_forward_pre_hook(_counting(name, changed))
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd) and module.groups > 1
    ]
    try:
        yield changed
    finally:
        for handle in handles:
            handle.remove()


def _counting(name: str, changed: dict[str, int]) -> Any:
    def count(module: _ConvNd, args: tuple[Tensor, ...]) -> None:
        # The inputs of a transposed one may be any number of groups; its biases say how many outputs there are.
        wide = args[0].shape[1] if not module.transposed else None if module.bias is None else len(module.bias)
        if wide is not None and (groups := wide // module.weight.shape[1]) != module.groups:
            module.groups = changed[name] = groups

    return count
