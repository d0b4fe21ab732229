"""A dense model whose routers do not see some experts: what a model without them has to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.graph.families import Family, Graph
from compress.graph.layout import Axis
from compress.graph.routers import router


class _WithoutLogits(TorchFunctionMode):
    """Logits `[tokens, experts]` of the experts that are gone are −∞, so that no router chooses them."""

    def __init__(self, gone: Tensor) -> None:
        super().__init__()
        self.gone = gone

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is nn.functional.linear and result.shape[-1] == len(self.gone):
            return result.masked_fill(self.gone.to(result.device), float("-inf"))
        return result


def hide_experts(model: nn.Module, graph: Graph, family: Family, mask: np.ndarray) -> Callable[[], None]:
    """From now on the router of `family` in `model` does not choose the experts outside of `mask`.

    What comes back ends it.
    """
    module = model.get_submodule(router(graph, family).rpartition(".")[0])
    plain, gone = module.forward, torch.from_numpy(~mask)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _WithoutLogits(gone):
            return plain(*args, **kwargs)

    module.forward = forward

    def end() -> None:
        module.forward = plain

    return end


def hidden(graph: Graph, name: str, kept: Mapping[str, np.ndarray], tensor: Tensor) -> Tensor:
    """A router's vector (a bias that steers the choice) with −∞ for the experts that are gone; all else as it is."""
    layout = graph.layouts[name]
    if len(layout) == 1 and isinstance(layout[0], Axis) and layout[0].family in kept:
        family = graph.families[layout[0].family]
        if family.kind == "experts":
            return tensor.masked_fill(torch.from_numpy(~kept[family.name]).to(tensor.device), float("-inf"))
    return tensor
