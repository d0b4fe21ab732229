"""Distances between two results of a model, position by position."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import ModelError

PART = 1 << 22
"""Logits that are compared at a time."""


def kl_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Σ p·(log p − log q) over the classes, in nats, for logits `[…, classes]` of p (`one`) and q (`other`): `[…]`.

    In float32, some positions at a time: the logits of a large vocabulary are not held a second time. Raises ModelError
    for logits over other classes.
    """
    _check(one, other)
    positions = max(PART // one.shape[-1], 1)
    pairs = zip(*(logits.flatten(0, -2).split(positions) for logits in (one, other)), strict=True)
    return torch.cat([_kl(p, q) for p, q in pairs]).view(one.shape[:-1])


def cosine_distance(one: Tensor, other: Tensor) -> Tensor:
    """1 − cos of two hidden states `[…, hidden]`: `[…]`, in float32. Raises ModelError for unequal widths."""
    _check(one, other)
    return (1 - torch.cosine_similarity(one.float(), other.float(), dim=-1)).clamp(min=0)


def _kl(one: Tensor, other: Tensor) -> Tensor:
    log_p, log_q = one.float().log_softmax(-1), other.float().log_softmax(-1)
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1).clamp(min=0)


def _check(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ModelError(
            f"outputs {list(one.shape)} and {list(other.shape)} have no distance; give both models the same samples, "
            "and compare such as have the same width"
        )
