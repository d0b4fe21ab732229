"""How much tokens matter to a layer: what attention they get, times how large they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError


class Importance:
    """Watches a model's attention: that of the layer that ran last says which tokens its experts should not skip.

    A token's importance is ‖t‖₁ · the mean attention it gets, over heads and over the queries that may see it (MC-MoE,
    arXiv 2410.06270, §3.3; its code adds up over keys instead, which is one for every token). The share `protect` of
    each text's tokens that is most important is protected. The model runs its own eager attention meanwhile, which is
    the one that gives its weights. Raises ModelError where no module gives any.
    """

    def __init__(self, model: nn.Module, protect: float) -> None:
        self._protect = protect
        self._received = torch.zeros(0, 0)
        self._model, self._before = model, model.config._attn_implementation  # pyright: ignore
        places = [m for m in model.modules() if hasattr(m, "layer_idx") and type(m).__name__.endswith("Attention")]
        if not places:
            raise ModelError(f"{type(model).__name__} has no attention that tells which tokens matter; `protect: 0`")
        model.set_attn_implementation("eager")  # pyright: ignore
        self._hooks = [place.register_forward_hook(self._watch, with_kwargs=True) for place in places]

    def undo(self) -> None:
        """The model's attention as it was."""
        for hook in self._hooks:
            hook.remove()
        self._model.set_attn_implementation(self._before)  # pyright: ignore

    def protected(self, states: Tensor) -> Tensor:
        """Which of the tokens `[tokens, hidden]` given to a layer's experts are protected, bool `[tokens]`."""
        rows, length = self._received.shape
        size = states.abs().float().sum(-1).view(rows, length)
        found = torch.zeros(rows, length, dtype=torch.bool, device=states.device)
        best = (size * self._received).topk(int(self._protect * length), dim=1).indices
        return found.scatter_(1, best, True).view(-1)

    def _watch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._received = received(output[1], kwargs.get("attention_mask"))


def received(weights: Tensor, mask: Tensor | None) -> Tensor:
    """Mean attention that each of the new tokens gets from the queries that may see it, `[batch, new]`.

    `weights` `[batch, heads, new, all]`, `mask` `[batch, 1, new, all]`, zero where a query may look and very negative
    elsewhere; without one, queries look at what is not behind them.
    """
    new, every = weights.shape[-2:]
    if mask is None:
        seen = torch.ones(1, new, every, dtype=torch.bool, device=weights.device).tril(every - new)
    else:
        seen = mask[:, 0, :, :every] > torch.finfo(mask.dtype).min / 2
    shares = (weights.float().mean(1) * seen).sum(1) / seen.sum(1).clamp_min(1)
    return shares[:, every - new :]
