"""Attention from the words that speak of the picture (SparseVLM, Zhang et al. 2024)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compress.registry import token_scores
from compress.runtime.tokens.rows import Layers, received


@token_scores.add("rated_attention", needs=("attention", "hidden", "text"), paper="2410.04417")
def rated_attention(
    attention: Tensor,
    hidden: Tensor,
    text: Tensor,
    *,
    queries: Literal["text"] = "text",
    layers: Layers = (-1,),
) -> Tensor:
    """Attention that a token receives from raters: text tokens that match the picture better than the mean text token.

    The match is softmax(h · t) over the text, averaged over the picture; where none does, all are raters. The
    released code chooses raters once, from the embeddings; here they are those of the layer where the rule acts.

    `attention` `[layers, heads, m, n]`, `hidden` `[n, dim]`, `text` `[m, dim]` → `[n]`.
    """
    match = (hidden.float() @ text.float().T).softmax(1).mean(0)
    raters = match > match.mean()
    rows = attention[:, :, raters] if raters.any() else attention
    return received(rows, "mean", None, "uniform", 1.0).mean(0)
