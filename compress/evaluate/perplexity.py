"""Perplexity of a language model: causal, encoder-decoder, or masked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import InputError

IGNORED = -100


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

    A causal model predicts each token from those before it, so the first of a sequence and padding do not count. An
    encoder-decoder predicts `labels`, or `decoder_input_ids` where there are none. A masked language model predicts
    the `labels` that are not -100. The loss is taken in float32, one sequence at a time, so that the logits
    `[batch, length, vocab]` are never copied whole. Raises InputError when the model gives no logits over tokens, or
    there is nothing to predict.
    """
    loss, tokens, length = 0.0, 0, 0
    for batch in batches:
        given = {name: value.to(_device(model)) for name, value in batch.items()}
        labels = given.pop("labels", None)
        logits = getattr(model(**given, **_no_cache(model)), "logits", None)
        targets, ahead = _targets(model, given, labels)
        if logits is None or targets is None or logits.shape[:-1] != targets.shape:
            raise InputError(
                f"{type(model).__name__} predicts no tokens here, so it has no perplexity; compare embeddings instead"
            )
        length = max(length, targets.shape[1])
        for row, target in zip(logits[:, : targets.shape[1] - ahead], targets[:, ahead:], strict=True):
            counted = target != IGNORED
            loss += functional.cross_entropy(row[counted].float(), target[counted], reduction="sum").item()
            tokens += int(counted.sum())
    if not tokens:
        raise InputError("no token to predict: the sequences must have at least two tokens")
    return Perplexity(math.exp(min(loss / tokens, 700.0)), length, tokens)


def _targets(model: nn.Module, given: Mapping[str, Tensor], labels: Tensor | None) -> tuple[Tensor | None, int]:
    """What is predicted, IGNORED where nothing is, and how many positions ahead of its prediction it stands."""
    decoder = "decoder_input_ids" in given
    causal = not decoder and (not hasattr(model, "can_generate") or model.can_generate())  # pyright: ignore[reportCallIssue]
    if not causal and labels is not None:
        return labels, 0
    if not causal and not decoder:
        return None, 0
    ids = given["decoder_input_ids" if decoder else "input_ids"]
    mask = given.get("decoder_attention_mask" if decoder else "attention_mask")
    if mask is None:
        return ids, 1
    seen = mask.bool()
    before = functional.pad(seen[:, :-1], (1, 0), value=True)  # what follows padding on the left is not predicted
    return ids.masked_fill(~(seen & before), IGNORED), 1


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _no_cache(model: nn.Module) -> dict[str, bool]:
    """Models with a key/value cache would fill it for nothing."""
    return {"use_cache": False} if getattr(getattr(model, "config", None), "use_cache", None) else {}
