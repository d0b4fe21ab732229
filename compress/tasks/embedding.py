"""Models without a head: what they say is their hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError, ModelError
from compress.inputs.batch import TOKEN_WEIGHT, Batch
from compress.metrics.similarity import EmbeddingSimilarity, hidden_states
from compress.registry import tasks
from compress.tasks.distance import cosine_distance
from compress.tasks.kind import Task


@tasks.add("embedding")
class Embedding(Task):
    """Hidden states `[batch, positions, hidden]`, whose mean is what search and clustering use.

    It takes every model that no other task fits, heads of other kinds among them.
    """

    name, hub_task = "embedding", "feature-extraction"
    general, logits, asks = True, False, EmbeddingSimilarity.asks

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Every model."""
        return True

    def result(self, output: Any) -> Tensor:
        """The last hidden states."""
        try:
            return hidden_states(output)
        except InputError as error:
            raise ModelError(str(error)) from None

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """1 − cos between the mean embeddings of a sample's two halves, which a good encoder puts close to each other.

        Each token counts as much as its weight says, where tokens have one.
        Of an encoder-decoder those of the decoder, through which gradients reach all of it.
        """
        states = getattr(output, "last_hidden_state", None)
        if states is None or states.dim() != 3:
            raise ModelError(
                f"a {type(output).__name__} has neither logits nor hidden states per position, so no loss is defined "
                "for it; choose a criterion without gradients"
            )
        half = states.shape[1] // 2
        weight = batch.get(TOKEN_WEIGHT)
        first, second = (
            _mean(states[:, part].float(), None if weight is None else weight[:, part])
            for part in (slice(half), slice(half, None))
        )
        return 1 - torch.cosine_similarity(first, second, dim=-1).mean()

    def metric(self, batch: Batch) -> EmbeddingSimilarity:
        """How like the dense model's embeddings are."""
        return EmbeddingSimilarity()

    def distance(self, one: Any, other: Any) -> Tensor:
        """1 − cos of every position's hidden states, `[batch, positions]`."""
        return cosine_distance(self.result(one), self.result(other))


def _mean(states: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over tokens of `[batch, tokens, width]`, each with its weight `[batch, tokens]`."""
    if weight is None:
        return states.mean(1)
    total = weight.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return (states * weight[..., None]).sum(1) / total
