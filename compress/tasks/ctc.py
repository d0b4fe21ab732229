"""Models that write what is said, a token or none at each step of the sound (CTC, Graves et al. 2006)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import ModelError
from compress.inputs.batch import LABELS, Batch
from compress.metrics.kind import Metric
from compress.metrics.similarity import EmbeddingSimilarity
from compress.metrics.word_errors import ErrorRate
from compress.registry import tasks
from compress.tasks.distance import kl_divergence
from compress.tasks.kind import Task
from compress.tasks.spelling import spelling


@tasks.add("ctc")
class Ctc(Task):
    """Logits `[batch, steps, vocabulary]`, of which one token is the blank; labels int64 `[batch, length]`, negative
    where a row has no more."""

    name, hub_task = "ctc", "automatic-speech-recognition"

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that are called so."""
        return "CTC" in type(model).__name__

    def result(self, output: Any) -> Tensor:
        """The logits."""
        logits = getattr(output, "logits", None)
        if logits is None or logits.dim() != 3:
            raise ModelError(f"a {type(output).__name__} has no logits per step of the sound")
        return logits

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean over samples of −log p(labels), over how many labels there are; none for a sample that is too short."""
        if LABELS not in batch:
            raise ModelError(
                "the model writes what is said, and the data does not say it, so no loss is defined; "
                "take recordings with text, or a criterion without gradients"
            )
        logits = self.result(output)
        labels = batch[LABELS].to(logits.device)
        steps = torch.full((len(logits),), logits.shape[1])
        each = functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            labels.clamp(min=0),
            steps,
            counts := (labels >= 0).sum(1),
            blank=self._blank,
            reduction="none",
            zero_infinity=True,
        )
        return (each / counts.clamp(min=1)).mean()

    def metric(self, batch: Batch) -> Metric[Any]:
        """Word error rate of the likeliest token at each step; where nothing tells what is said, how like the dense
        model's embeddings are."""
        if LABELS not in batch:
            return EmbeddingSimilarity()
        noun, spell = spelling(self.config)

        def read(output: Any, batch: Batch) -> list[tuple[list[Any], list[Any]]]:
            best = self.result(output).argmax(-1).tolist()
            return [
                (spell(said), spell(self._merged(row))) for said, row in zip(batch[LABELS].tolist(), best, strict=True)
            ]

        return ErrorRate(noun, read)

    def distance(self, one: Any, other: Any) -> Tensor:
        """KL divergence of `other` from `one`, in nats, `[batch, steps]`."""
        return kl_divergence(self.result(one), self.result(other))

    @property
    def _blank(self) -> int:
        return getattr(self.config, "pad_token_id", None) or 0

    def _merged(self, row: list[int]) -> list[int]:
        """Repeated tokens once, without blanks."""
        return [token for i, token in enumerate(row) if token != self._blank and (i == 0 or row[i - 1] != token)]
