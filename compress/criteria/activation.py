"""Activation norm: how strongly a group fires, whatever its consumer does with it."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("activation", scope=Scope.INPUTS, on="in", needs=("input_norm",))
def activation(input_norm: Tensor) -> Tensor:
    """‖x‖₂ of what the group hands to its consumer.

    `input_norm` `[in]` → score per input channel `[in]`; a head's score is the mean of its channels'.
    """
    return input_norm
