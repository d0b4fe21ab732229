"""Models that say to which class a sample belongs."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from compress.errors import ModelError
from compress.inputs.batch import LABELS, Batch
from compress.metrics.agreement import ClassAgreement
from compress.registry import tasks
from compress.tasks.distance import kl_divergence
from compress.tasks.kind import Task

_CALLED = re.compile("For(Sequence|Image|Audio|Video)Classification")


@tasks.add("classes")
class Classes(Task):
    """A class for each sample, out of logits `[batch, classes]`; labels are int64 `[batch]`."""

    name = "classes"
    labelled = True

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that are called so."""
        return _CALLED.search(type(model).__name__) is not None

    @property
    def hub_task(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`text-classification`, `image-classification` …"""
        called = _CALLED.search(type(self.model).__name__)
        kind = called[1].lower() if called is not None else "text"
        return f"{'text' if kind == 'sequence' else kind}-classification"

    def result(self, output: Any) -> Tensor:
        """The logits."""
        logits = getattr(output, "logits", None)
        if logits is None or logits.dim() != 2:
            raise ModelError(f"a {type(output).__name__} has no logits per class")
        return logits

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean cross-entropy of the labels."""
        if LABELS not in batch:
            raise ModelError(
                "the model gives classes, and the data does not say the right ones, so no loss is defined; "
                "choose a criterion without gradients"
            )
        logits = self.result(output)
        return functional.cross_entropy(logits.float(), batch[LABELS].to(logits.device))

    def answer(self, output: Any, batch: Batch) -> Tensor:
        """The logits of the labels, or else of the class that the model says."""
        logits = self.result(output)
        right = batch[LABELS].to(logits.device) if LABELS in batch else logits.argmax(-1)
        return logits.gather(1, right[:, None]).sum()

    def metric(self, batch: Batch) -> ClassAgreement:
        """Top-1 accuracy where there are labels, and how often the class is the dense model's."""
        return ClassAgreement(self.result, labelled=LABELS in batch, name="accuracy", title="Top-1 accuracy")

    def distance(self, one: Any, other: Any) -> Tensor:
        """KL divergence of `other` from `one`, in nats, `[batch]`."""
        return kl_divergence(self.result(one), self.result(other))
