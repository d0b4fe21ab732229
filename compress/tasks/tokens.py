"""What all tasks have in common whose models give logits for tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import InputError, ModelError
from compress.inputs.batch import TOKEN_WEIGHT, Batch
from compress.metrics.perplexity import IGNORED, TokenLoss
from compress.tasks.distance import kl_divergence
from compress.tasks.kind import Task

IDS, MASK = "input_ids", "attention_mask"
DECODER_IDS, DECODER_MASK = "decoder_input_ids", "decoder_attention_mask"


SMALLEST = torch.finfo(torch.float32).tiny
"""What a sum of weights is taken to be where none counts."""


class Tokens(Task):
    """Logits `[batch, length, vocabulary]`. The loss is the mean cross-entropy of the tokens that are to be predicted,
    the quality their perplexity, the distance the KL divergence of every position."""

    hub_task = "text-generation"

    @abstractmethod
    def targets(self, batch: Batch) -> tuple[Tensor, int]:
        """What is predicted, `[batch, length]`, IGNORED where nothing is, and how many positions ahead of its
        prediction it stands. Raises InputError where the batch does not say it."""

    def result(self, output: Any) -> Tensor:
        """The logits."""
        logits = getattr(output, "logits", None)
        if logits is None or logits.dim() != 3:
            raise ModelError(
                f"a {type(output).__name__} has no logits per token, so no loss is defined for it; "
                "choose a criterion without gradients"
            )
        return logits

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean cross-entropy over all predicted tokens of the batch, each with its weight where tokens have one."""
        logits, targets = self.predicted(self.result(output), batch)
        logits, targets = logits.flatten(0, 1).float(), targets.flatten()
        if (weight := batch.get(TOKEN_WEIGHT)) is None:
            return functional.cross_entropy(logits, targets, ignore_index=IGNORED)
        each = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
        counted = weight[:, self.targets(batch)[1] :].flatten().float() * (targets != IGNORED)
        return (each * counted).sum() / counted.sum().clamp_min(SMALLEST)

    def answer(self, output: Any, batch: Batch) -> Tensor:
        """The logits of the tokens that are to be predicted."""
        logits, targets = self.predicted(self.result(output), batch)
        counted = targets != IGNORED
        right = logits.gather(-1, targets.masked_fill(~counted, 0)[..., None]).squeeze(-1)
        return (right * counted).sum()

    def metric(self, batch: Batch) -> TokenLoss:
        """Perplexity."""
        return TokenLoss(self.predicted, lambda batch: self.targets(batch)[0].shape[1])

    def distance(self, one: Any, other: Any) -> Tensor:
        """KL divergence of `other` from `one`, in nats, `[batch, length]`."""
        return kl_divergence(self.result(one), self.result(other))

    def predicted(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logits `[batch, predicted, vocabulary]` and the tokens `[batch, predicted]` that belong to them."""
        targets, ahead = self.targets(batch)
        if logits.shape[:-1] != targets.shape:
            raise InputError(
                f"logits of shape {list(logits.shape)} for tokens of shape {list(targets.shape)}: the model predicts "
                "no tokens here, so it has no perplexity; compare embeddings instead"
            )
        return logits[:, : targets.shape[1] - ahead], targets[:, ahead:].to(logits.device)


def following(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The tokens `[batch, length]`, IGNORED where they are padding or follow padding on the left, which is predicted by
    nothing."""
    if mask is None:
        return tokens
    seen = mask.bool()
    before = functional.pad(seen[:, :-1], (1, 0), value=True)
    return tokens.masked_fill(~(seen & before), IGNORED)


def generates(model: Any) -> bool:
    """Whether the model writes tokens one after the other."""
    able = getattr(model, "can_generate", None)
    return bool(able is not None and able()) or any(word in type(model).__name__ for word in ("CausalLM", "LMHead"))


def hears(model: Any) -> bool:
    """Whether the model reads sound."""
    return getattr(model, "main_input_name", None) in ("input_features", "input_values")
