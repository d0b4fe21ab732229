"""How much tokens matter to a layer: what attention they get, times how large they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAME = "compress_importance"


class Importance:
    """Watches a model's attention: that of the layer that ran last says which tokens its experts should not skip.

    A token's importance is ‖t‖₁ · the mean attention it gets, over heads and over the queries that may see it (MC-MoE,
    arXiv 2410.06270, §3.3; its code adds up over keys instead, which is one for every token). The share `protect` of
    each text's tokens that is most important is protected.
    """

    def __init__(self, model: nn.Module, protect: float) -> None:
        from transformers import AttentionInterface
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.masking_utils import AttentionMaskInterface, eager_mask

        self._protect = protect
        self._received = torch.zeros(0, 0)
        self._model, self._before = model, model.config._attn_implementation  # pyright: ignore

        def attend(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
        ) -> Any:
            self._received = received(query, key, mask, kwargs.get("scaling") or query.shape[-1] ** -0.5)
            return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, eager_mask)
        model.set_attn_implementation(NAME)  # pyright: ignore

    def undo(self) -> None:
        """The model's attention as it was."""
        self._model.set_attn_implementation(self._before)  # pyright: ignore

    def protected(self, states: Tensor) -> Tensor:
        """Which of the tokens `[tokens, hidden]` given to a layer's experts are protected, bool `[tokens]`."""
        rows, length = self._received.shape
        size = states.abs().float().sum(-1).view(rows, length)
        found = torch.zeros(rows, length, dtype=torch.bool, device=states.device)
        best = (size * self._received).topk(int(self._protect * length), dim=1).indices
        return found.scatter_(1, best, True).view(-1)


def received(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Mean attention that each of the new tokens gets from the queries that may see it, `[batch, new]`.

    `query` `[batch, heads, new, width]`, `key` `[batch, groups, all, width]`, `mask` `[batch, 1, new, all]`, zero where
    a query may look and very negative elsewhere. One text at a time, as the products are as large as those of eager
    attention.
    """
    new, every = query.shape[2], key.shape[2]
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    causal = torch.ones(new, every, dtype=torch.bool, device=query.device).tril(every - new)
    found = []
    for row in range(len(query)):
        seen = causal if mask is None else mask[row % len(mask), 0, :, :every] > torch.finfo(mask.dtype).min / 2
        scores = (query[row].float() @ key[row].float().transpose(1, 2)) * scaling
        shares = scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0).mean(0)
        found.append((shares.sum(0) / seen.sum(0).clamp_min(1))[every - new :])
    return torch.stack(found)
