"""Perplexity of a causal or encoder-decoder language model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import InputError


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean loss over `tokens` predicted tokens, in sequences of `length`.

    The length belongs to the number: the same model on the same text has more than twice the perplexity at 128 tokens
    that it has at 2048, so two perplexities compare only at equal length.
    """

    value: float
    length: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.value:.2f} (sequences of {self.length} tokens)"


@torch.no_grad()
def perplexity(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Perplexity:
    """Perplexity of `model` over `batches` of `input_ids` `[batch, length]` and whatever else its forward takes.

    Each sequence stands alone, its first token is not predicted and padding does not count. With `decoder_input_ids`
    those are what is predicted. The loss is taken in float32, one sequence at a time, so that the logits
    `[batch, length, vocab]` are never copied whole. Raises InputError when the model gives no logits over tokens or
    when there is nothing to predict.
    """
    loss, tokens, length = 0.0, 0, 0
    for batch in batches:
        given = {name: value.to(_device(model)) for name, value in batch.items() if name != "labels"}
        logits = getattr(model(**given, **_no_cache(model)), "logits", None)
        decoder = "decoder_input_ids" in given
        ids = given["decoder_input_ids" if decoder else "input_ids"]
        mask = given.get("decoder_attention_mask" if decoder else "attention_mask", torch.ones_like(ids))
        if logits is None or logits.shape[:-1] != ids.shape:
            raise InputError(
                f"{type(model).__name__} predicts no tokens, so it has no perplexity; compare embeddings instead"
            )
        length = max(length, ids.shape[1])
        for row, target, valid in zip(logits, ids, mask.bool(), strict=True):
            kept = valid[1:] & valid[:-1]
            loss += functional.cross_entropy(row[:-1][kept].float(), target[1:][kept], reduction="sum").item()
            tokens += int(kept.sum())
    if not tokens:
        raise InputError("no token to predict: the sequences must have at least two tokens")
    return Perplexity(math.exp(min(loss / tokens, 700.0)), length, tokens)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _no_cache(model: nn.Module) -> dict[str, bool]:
    """Models with a key/value cache would fill it for nothing."""
    return {"use_cache": False} if getattr(getattr(model, "config", None), "use_cache", None) else {}
