"""One attention as it ran: its rows (where a query looks) and columns (how much a key is looked at)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError

SCORES = 1 << 24
"""Attention weights held at a time while columns are added up."""

NOT_COMPUTED = ("softcap", "s_aux", "cache")
"""What an implementation other than eager may be told that the weights computed here would have to know."""


@dataclass(frozen=True, eq=False)
class Attention:
    """What one module's attention was given.

    `query` `[batch, heads, queries, size]`, `key` and `value` `[batch, key heads, keys, size]`, `mask` True or about
    zero where a query may look, `[batch, 1 or heads, queries, keys]`; `causal` stands for a mask that is not given:
    query i sees the first i + 1 keys. `bias` is added to the scores, `weights` `[batch, heads, queries, keys]` are
    there where the implementation gives them (eager does), else they are computed from the others when they are read.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    mask: Tensor | None
    causal: bool
    bias: Tensor | None
    weights: Tensor | None

    @classmethod
    def made(
        cls,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        weights: Tensor | None,
        *,
        scaling: float | None = None,
        is_causal: bool | None = None,
        position_bias: Tensor | None = None,
        **more: Any,
    ) -> Attention:
        """From what transformers gives an attention function, whose second result is `weights`.

        Raises ModelError where the implementation gives no weights and is told what is not computed here.
        """
        if weights is None:
            told = [name for name in NOT_COMPUTED if more.get(name) is not None]
            if told or not (mask is None or (isinstance(mask, Tensor) and mask.dim() == 4)):
                what = told[0] if told else "a mask that is not [batch, heads, queries, keys]"
                raise ModelError(
                    f"{type(module).__name__}: its attention has {what} and gives no weights, so they cannot be read; "
                    "load the model with attn_implementation='eager'"
                )
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        causal = bool(causal) and weights is None and mask is None and query.shape[2] > 1
        factor: float = query.shape[-1] ** -0.5 if scaling is None else scaling
        return cls(query.detach(), key.detach(), value.detach(), factor, mask, causal, position_bias, weights)

    @property
    def keys(self) -> int:
        """How many keys there are: those of earlier calls that a cache holds come first."""
        return self.key.shape[2]

    @cached_property
    def seen(self) -> Tensor:
        """Which keys a query may look at, bool `[batch or 1, queries, keys]`."""
        queries = self.query.shape[2]
        if self.mask is None:
            every = torch.ones(1, queries, self.keys, dtype=torch.bool, device=self.query.device)
            return every.tril() if self.causal else every
        mask = self.mask[:, 0, :, : self.keys]
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2

    def of(self, row: int, queries: Tensor) -> Attention:
        """The attention of some `queries` (long `[some]`) of one row of the batch: a batch of one."""
        one = slice(row, row + 1)
        mask, bias = self.mask, self.bias
        if mask is None and self.causal:
            mask = self.seen[:, None]
        return replace(
            self,
            query=self.query[one][:, :, queries],
            key=self.key[one],
            value=self.value[one],
            mask=None if mask is None else _of(mask, row, queries),
            causal=False,
            bias=None if bias is None else _of(bias, row, queries),
            weights=None if self.weights is None else self.weights[one][:, :, queries],
        )

    @torch.no_grad()
    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The weights of the queries from `start` to `stop`, float32 `[batch, heads, queries, keys]`."""
        if self.weights is not None:
            return self.weights[:, :, start:stop].detach().float()
        return self.logits(start, stop).softmax(-1)

    @torch.no_grad()
    def logits(self, start: int = 0, stop: int | None = None) -> Tensor:
        """What `rows` is the softmax of; the lowest number where a query may not look."""
        with torch.autocast(self.query.device.type, enabled=False):
            return self._logits(slice(start, stop))

    def _logits(self, some: slice) -> Tensor:
        query = self.query[:, :, some].float()
        key = self.key.float().repeat_interleave(query.shape[1] // self.key.shape[1], dim=1)
        scores = query @ key.transpose(2, 3) * self.scaling
        for added in (self.bias, self.mask):
            if added is not None and added.dtype != torch.bool:
                scores = scores + (added if added.shape[2] == 1 else added[:, :, some])[..., : self.keys].float()
        if self.mask is None and not self.causal:
            return scores
        lowest = torch.finfo(torch.float32).min
        return scores.masked_fill(~self.seen[:, None, some], lowest)

    def received(self) -> Tensor:
        """Mean weight that each key gets, over heads and over the queries that may see it, float32 `[batch, keys]`."""
        batch, heads, queries, _ = self.query.shape
        step = max(1, SCORES // (batch * heads * self.keys))
        total = torch.zeros(batch, self.keys, device=self.query.device)
        for start in range(0, queries, step):
            total += (self.rows(start, start + step).mean(1) * self.seen[:, start : start + step]).sum(1)
        return total / self.seen.sum(1).clamp_min(1)


def _of(tensor: Tensor, row: int, queries: Tensor) -> Tensor:
    """Of `[batch or 1, heads or 1, queries or 1, keys]`."""
    own = tensor[min(row, len(tensor) - 1)][None]
    return own if own.shape[2] == 1 else own[:, :, queries]
