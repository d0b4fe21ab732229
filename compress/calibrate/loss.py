"""The loss whose gradients are taken, one number per batch: the mean over its samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import ModelError
from compress.inputs.batch import TOKEN_WEIGHT


def loss_of(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """Loss of a model's output for `batch`, `[]`.

    Causal models: mean cross-entropy of the next token. Encoder-decoders: of `labels` `[batch, length]`. Masked
    language models, whose batches have labels with -100 where nothing is masked: of the masked tokens. Bare encoders
    have no labels: 1 − cos between the mean embeddings of a text's two halves, which a good encoder puts close to each
    other. With a `token_weight` `[batch, length]` a token counts as much as that says, where it is to be predicted or
    in the mean of its half. Raises ModelError for outputs with neither logits per token nor hidden states.
    """
    logits = getattr(output, "logits", None)
    ids, labels, weight = batch["input_ids"], batch.get("labels"), batch.get(TOKEN_WEIGHT)
    if logits is not None and logits.dim() == 3:
        if labels is None or ("decoder_input_ids" not in batch and torch.equal(labels, ids)):
            logits, labels, weight = logits[:, :-1], ids[:, 1:], None if weight is None else weight[:, 1:]
        return _cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), weight)
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None or hidden.dim() != 3:
        raise ModelError(
            "the model gives neither logits per token nor hidden states, so no loss is defined for it; "
            "choose a criterion without gradients"
        )
    half = hidden.shape[1] // 2
    first, second = (
        _mean(hidden[:, part].float(), None if weight is None else weight[:, part])
        for part in (slice(half), slice(half, None))
    )
    return 1 - torch.cosine_similarity(first, second, dim=-1).mean()


def _cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over the labels `[tokens]` that are none of -100, each with its weight; logits `[tokens, vocabulary]`."""
    if weight is None:
        return functional.cross_entropy(logits, labels, ignore_index=-100)
    each = functional.cross_entropy(logits, labels, ignore_index=-100, reduction="none")
    counted = weight.flatten() * (labels != -100)
    return (each * counted).sum() / counted.sum().clamp_min(torch.finfo(torch.float32).tiny)


def _mean(hidden: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over tokens of `[batch, tokens, hidden]`, each with its weight `[batch, tokens]`."""
    if weight is None:
        return hidden.mean(1)
    total = weight.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return (hidden * weight[..., None]).sum(1) / total
