"""How much tokens matter to a layer: what attention they get, times how large they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.attention.call import Attention
from compress.attention.watch import watch
from compress.errors import ModelError


class Importance:
    """Watches a model's attention: that of the layer that ran last says which tokens its experts should not skip.

    A token's importance is ‖t‖₁ · the mean attention it gets, over heads and over the queries that may see it (MC-MoE,
    arXiv 2410.06270, §3.3; its code adds up over keys instead, which is one for every token). The share `protect` of
    each text's tokens that is most important is protected. The model's attention runs as it is set.
    """

    def __init__(self, model: nn.Module, protect: float) -> None:
        self._model, self._protect = type(model).__name__, protect
        self._last: Attention | None = None
        self._end = watch(model, self._told)

    def undo(self) -> None:
        """The model is watched no longer."""
        self._end()
        self._last = None

    def protected(self, states: Tensor) -> Tensor:
        """Which of the tokens `[tokens, hidden]` given to a layer's experts are protected, bool `[tokens]`.

        Raises ModelError where no attention that can be watched ran before.
        """
        if self._last is None:
            raise ModelError(f"{self._model} has no attention that tells which tokens matter; `protect: 0`")
        rows, _, length, _ = self._last.query.shape
        received = self._last.received()[:, -length:]
        size = states.abs().float().sum(-1).view(rows, length)
        found = torch.zeros(rows, length, dtype=torch.bool, device=states.device)
        best = (size * received).topk(int(self._protect * length), dim=1).indices
        return found.scatter_(1, best, True).view(-1)

    def _told(self, module: nn.Module, attention: Attention) -> None:
        self._last = attention
