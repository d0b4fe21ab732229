"""nn.MultiheadAttention whose heads are together narrower than its inputs, which the stock class cannot be."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class NarrowAttention(nn.MultiheadAttention):
    """`num_heads` heads of `head_dim` channels each, whatever `embed_dim` is; else the stock class in all it does.

    A module becomes one by `narrow`. The stock class takes `embed_dim` for the width of all heads together. `scale` of
    queries stays what it was. Nothing of it runs in the fused kernels that torch has for stock layers, which take the
    same for granted.
    """

    scale: float

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As the stock class: `[batch, length, embed]`, without `batch_first` `[length, batch, embed]`, both also
        without the batch; masks as there."""
        alone, first = query.dim() == 2, self.batch_first
        given = [x[None] if alone else x if first else x.transpose(0, 1) for x in (query, key, value)]
        weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, w, b).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for x, w, b in zip(given, weights, biases, strict=True)
        )
        mask = self._mask(attn_mask, key_padding_mask, q, alone)
        dropout = self.dropout if self.training else 0.0
        attention: Tensor | None = None
        if need_weights:
            scores = (q * self.scale) @ k.transpose(-2, -1)
            attention = functional.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            states = attention @ v
        else:
            states = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        out = self.out_proj(states.transpose(1, 2).flatten(2))
        if attention is not None and average_attn_weights:
            attention = attention.mean(1)
        if alone:
            return out[0], None if attention is None else attention[0]
        return (out if first else out.transpose(0, 1)), attention

    def _mask(self, attn: Tensor | None, padding: Tensor | None, q: Tensor, alone: bool) -> Tensor | None:
        """Both masks as one that is added to the scores, `[batch or 1, heads or 1, length, length]`."""
        mask = None
        if attn is not None:
            mask = _added(attn, q)
            mask = mask.unflatten(0, (-1, self.num_heads)) if mask.dim() == 3 else mask[None, None]
        if padding is not None:
            other = _added(padding[None] if alone else padding, q)[:, None, None]
            mask = other if mask is None else mask + other
        return mask


def narrow(module: nn.MultiheadAttention) -> None:
    """Make a stock module one that may be narrowed; it goes on computing the same."""
    module.__class__ = NarrowAttention
    module._qkv_same_embed_dim = False  # what keeps the fused kernels of layers around it away
    module.scale = module.head_dim**-0.5  # pyright: ignore[reportAttributeAccessIssue]


def can_narrow(module: nn.Module) -> bool:
    """Whether it is a stock attention, its query, key and value of one width and nothing added to keys."""
    return (
        type(module) is nn.MultiheadAttention
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )


def _added(mask: Tensor, q: Tensor) -> Tensor:
    """A mask as numbers to add; one of true and false is true where nothing may be looked at."""
    if mask.dtype != torch.bool:
        return mask.to(q.dtype)
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf"))
