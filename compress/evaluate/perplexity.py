"""Perplexity of a language model: causal, encoder-decoder, or masked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.console import track
from compress.errors import InputError
from compress.evaluate.change import Sampled

IGNORED = -100


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean loss over `tokens` predicted tokens, in `samples` sequences of `length`.

    The length belongs to the number: the same model on the same text has more than twice the perplexity at 128 tokens
    that it has at 2048, so two perplexities compare only at equal length.
    """

    value: float
    length: int
    tokens: int
    samples: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.samples} sequences of {self.length} tokens)"


@dataclass(frozen=True)
class Losses:
    """Of every sequence, in order: the loss summed over its predicted tokens, in nats, and how many these are."""

    sums: list[float]
    tokens: list[int]
    length: int

    def __add__(self, other: Losses) -> Losses:
        return Losses(self.sums + other.sums, self.tokens + other.tokens, max(self.length, other.length))

    @property
    def mean(self) -> Sampled:
        """The mean loss of a token, and the same without each of the sequences."""
        sums, tokens = np.array(self.sums), np.array(self.tokens)
        if not tokens.sum():
            raise InputError("no token to predict: the sequences must have at least two tokens")
        rest = np.maximum(tokens.sum() - tokens, 1)
        return Sampled(float(sums.sum() / tokens.sum()), (sums.sum() - sums) / rest)

    @property
    def perplexity(self) -> Perplexity:
        """Raises InputError when there is no token to predict."""
        value = math.exp(min(self.mean.value, 700.0))
        return Perplexity(value, self.length, sum(self.tokens), len(self.sums))


@torch.no_grad()
def losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Losses:
    """Losses of one batch of `input_ids` `[batch, length]` and whatever else the model's forward takes."""
    given = {name: value.to(_device(model)) for name, value in batch.items()}
    inputs = {name: value for name, value in given.items() if name != "labels"}
    return output_losses(model, given, model(**inputs, **_no_cache(model)))


@torch.no_grad()
def output_losses(model: nn.Module, batch: Mapping[str, Tensor], output: Any) -> Losses:
    """Losses of the `output` that the model gave for `batch`.

    A causal model predicts each token from those before it, so the first of a sequence and padding do not count. An
    encoder-decoder predicts `labels`, or `decoder_input_ids` where there are none. A masked language model predicts
    the `labels` that are not -100. The loss is taken in float32, one sequence at a time, so that the logits
    `[batch, length, vocab]` are never copied whole. Raises InputError when the model gives no logits over tokens.
    """
    logits = getattr(output, "logits", None)
    targets, ahead = _targets(model, batch, batch.get("labels"))
    if logits is None or targets is None or logits.shape[:-1] != targets.shape:
        raise InputError(
            f"{type(model).__name__} predicts no tokens here, so it has no perplexity; compare embeddings instead"
        )
    found = Losses([], [], targets.shape[1])
    for row, target in zip(logits[:, : targets.shape[1] - ahead], targets[:, ahead:], strict=True):
        counted = target != IGNORED
        found.sums.append(functional.cross_entropy(row[counted].float(), target[counted], reduction="sum").item())
        found.tokens.append(int(counted.sum()))
    return found


def all_losses(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Losses:
    """Losses of all batches, with progress."""
    found = Losses([], [], 0)
    for batch in track(batches, "measuring perplexity"):
        found += losses(model, batch)
    return found


def perplexity(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Perplexity:
    """Perplexity of `model` over `batches`; see `output_losses`. Raises InputError when there is nothing to predict."""
    return all_losses(model, batches).perplexity


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
