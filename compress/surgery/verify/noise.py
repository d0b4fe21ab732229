"""How far float32 itself is off: the same products, summed in another order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
LEFT = {aten.mm: 0, aten.bmm: 0, aten.mv: 0, aten.dot: 0, aten._grouped_mm: 0}
LEFT |= {aten.addmm: 1, aten.baddbmm: 1, aten.addmv: 1}
"""Product → which of its arguments is the left factor; the right one follows."""
ATTENTION = (
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_attention_math,
)


class Reordered(TorchDispatchMode):
    """Every product of matrices adds its terms in reverse; nothing but rounding changes, whatever the architecture.

    Attention in one operator multiplies queries by keys in reverse. Convolutions over one group take their channels
    in reverse.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*_reversed(func.overloadpacket, args), **(kwargs or {}))


def _reversed(packet: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if packet in LEFT:
        at = LEFT[packet]
        left, right = args[at], args[at + 1]
        return (*args[:at], left.flip(-1), right.flip(-1 if right.dim() == 1 else -2), *args[at + 2 :])
    if packet in ATTENTION:
        return (args[0].flip(-1), args[1].flip(-1), *args[2:])
    if packet is aten.convolution and args[-1] == 1 and not args[6]:
        return (args[0].flip(1), args[1].flip(1), *args[2:])
    return args


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference of two outputs, as a share of the largest magnitude in the second. Infinities, by which models
    mask what may not be chosen, must be the same."""
    gap = (one - other).masked_fill(one == other, 0).abs().max()
    return float(gap / other.masked_fill(other.isinf(), 0).abs().max().clamp_min(1e-12))
