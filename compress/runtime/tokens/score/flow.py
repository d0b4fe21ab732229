"""Information flow (FlowCut, Tong et al. 2025, https://arxiv.org/abs/2505.19536)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import token_scores

Decay = Annotated[float, Field(ge=0, lt=1)]


@token_scores.add("flow", needs=("attention", "value", "cls_value", "previous"), paper="2505.19536")
def flow(
    attention: Tensor,
    value: Tensor,
    cls_value: Tensor,
    previous: Tensor | None,
    *,
    queries: Literal["cls"] = "cls",
    layers: tuple[int] = (-1,),
    decay: Decay = 0.5,
) -> Tensor:
    """What flows to the class token: (attention + similarity of values) · ‖v‖₁, gathered over layers.

    Both terms are shares of the group's; the similarity is softmax(v_cls · vᵢ) over the class token and the group in
    each head, and v in the norm is the mean over heads. What earlier layers gave counts by `decay`.

    `attention` `[1, heads, 1, n]`, `value` `[n, heads, size]`, `cls_value` `[heads, size]`, `previous` `[n]` → `[n]`.
    """
    value, cls = value.float(), cls_value.float()
    given = attention.float().mean((0, 1, 2))
    alike = torch.einsum("hs,nhs->hn", cls, value)
    own = cls.square().sum(-1, keepdim=True)
    alike = torch.cat((own, alike), 1).softmax(1)[:, 1:].mean(0)
    return _gathered((_share(given) + _share(alike)) * value.mean(1).abs().sum(1), previous, decay)


@token_scores.add("received_flow", needs=("attention", "value", "previous"), paper="2505.19536")
def received_flow(
    attention: Tensor,
    value: Tensor,
    previous: Tensor | None,
    *,
    queries: Literal["all"] = "all",
    layers: tuple[int] = (-1,),
    decay: Decay = 0.5,
) -> Tensor:
    """FlowCut's score in a tower without a class token: attention from all tokens · ‖v‖₁, gathered over layers.

    `attention` `[1, heads, queries, n]`, `value` `[n, heads, size]`, `previous` `[n]` → `[n]`.
    """
    given = attention.float().mean((0, 1, 2))
    return _gathered(given * value.float().mean(1).abs().sum(1), previous, decay)


def _share(scores: Tensor) -> Tensor:
    return scores / scores.sum().clamp(min=torch.finfo(scores.dtype).tiny)


def _gathered(scores: Tensor, previous: Tensor | None, decay: float) -> Tensor:
    return scores if previous is None else decay * previous.float() + (1 - decay) * scores
