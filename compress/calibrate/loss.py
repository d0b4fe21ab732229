"""The loss whose gradients are taken, one number per batch: the mean over its samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import ModelError


def loss_of(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """Loss of a model's output for `batch`, `[]`.

    Causal models: mean cross-entropy of the next token. Encoder-decoders: of `labels` `[batch, length]`. Masked
    language models, whose batches have labels with -100 where nothing is masked: of the masked tokens. Bare encoders
    have no labels: 1 − cos between the mean embeddings of a text's two halves, which a good encoder puts close to each
    other. Raises ModelError for outputs with neither logits per token nor hidden states.
    """
    logits = getattr(output, "logits", None)
    ids, labels = batch["input_ids"], batch.get("labels")
    if logits is not None and logits.dim() == 3:
        if labels is None:
            logits, labels = logits[:, :-1], ids[:, 1:]
        elif "decoder_input_ids" not in batch and torch.equal(labels, ids):
            logits, labels = logits[:, :-1], labels[:, 1:]
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None or hidden.dim() != 3:
        raise ModelError(
            "the model gives neither logits per token nor hidden states, so no loss is defined for it; "
            "choose a criterion without gradients"
        )
    half = hidden.shape[1] // 2
    first, second = hidden[:, :half].float().mean(1), hidden[:, half:].float().mean(1)
    return 1 - torch.cosine_similarity(first, second, dim=-1).mean()
