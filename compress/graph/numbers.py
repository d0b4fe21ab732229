"""Whole numbers that modules keep as tensors: the stride and padding of a convolution, which python asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def set_numbers(model: nn.Module) -> None:
    """Make real, as transformers' own initialisation computes them, the whole numbers among the buffers of a model on
    meta that no checkpoint stores. One that the model's code leaves as it is stays on meta."""
    initialise: Any = getattr(model, "_init_weights", None)
    if initialise is None:
        return
    for module in model.modules():
        buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        made = {name: own for name, own in buffers.items() if own is not None and _is_number(own)}
        for name, own in made.items():
            module._buffers[name] = torch.full((), torch.iinfo(own.dtype).min, dtype=own.dtype)
        if made:
            initialise(module)
        for name, own in made.items():
            if (found := module._buffers[name]) is None or int(found) == torch.iinfo(own.dtype).min:
                module._buffers[name] = own


def _is_number(buffer: Tensor) -> bool:
    whole = buffer.is_meta and not buffer.dim() and buffer.dtype is not torch.bool
    return whole and not buffer.is_floating_point() and not buffer.is_complex()
