"""Models that say what is where in an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import InputError, ModelError
from compress.inputs.ask import takes
from compress.inputs.batch import LABELS, Batch
from compress.metrics.boxes import DetectionAgreement
from compress.registry import tasks
from compress.tasks.distance import kl_divergence
from compress.tasks.kind import Task


@tasks.add("detection")
class Detection(Task):
    """Logits `[batch, queries, classes]` and boxes `[batch, queries, 4]`: centre, width, height as shares of the image.

    Where there is one class more than the model has labels, the last is `nothing` and one class excludes another (DETR,
    YOLOS); else each class has a probability of its own (Deformable DETR and those after it, OWL-ViT).
    """

    name, hub_task = "detection", "object-detection"

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that are called so, or are made from one that is (a modeling file calls it after its auto class), and
        are told boxes or asked for things by name: some only mark where text is."""
        told = takes(model, LABELS) or takes(model, "input_ids")
        return told and any(cls.__name__.endswith("ForObjectDetection") for cls in type(model).__mro__)

    def result(self, output: Any) -> Tensor:
        """The logits."""
        return self._both(output)[0]

    def compared(self, output: Any) -> Tensor:
        """Logits and boxes, side by side."""
        return torch.cat(self._both(output), -1)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Raises ModelError: data says no boxes yet."""
        raise ModelError(
            "the model finds boxes, and the data does not say the right ones, so no loss is defined; "
            "choose a criterion without gradients"
        )

    def metric(self, batch: Batch) -> DetectionAgreement:
        """How many of the dense model's surest detections are found again."""
        return DetectionAgreement(self._found)

    def distance(self, one: Any, other: Any) -> Tensor:
        """KL divergence of the classes, in nats, plus the boxes' absolute differences, `[batch, queries]`."""
        (p, places), (q, others) = self._both(one), self._both(other)
        apart = (places.float() - others.float()).abs().sum(-1)
        if self._exclusive(p):
            return kl_divergence(p, q) + apart
        pairs = (torch.stack([x, torch.zeros_like(x)], -1) for x in (p, q))  # sigmoid(x) = softmax([x, 0])
        return kl_divergence(*pairs).sum(-1) + apart

    def _found(self, output: Any) -> tuple[Tensor, Tensor]:
        """Probabilities of classes and boxes, for the metric."""
        try:
            logits, boxes = self._both(output)
        except ModelError as error:
            raise InputError(str(error)) from None
        return (functional.softmax(logits, -1)[..., :-1] if self._exclusive(logits) else logits.sigmoid()), boxes

    def _exclusive(self, logits: Tensor) -> bool:
        return logits.shape[-1] - 1 == getattr(self.config, "num_labels", None)

    def _both(self, output: Any) -> tuple[Tensor, Tensor]:
        logits, boxes = getattr(output, "logits", None), getattr(output, "pred_boxes", None)
        if logits is None or boxes is None:
            raise ModelError(f"a {type(output).__name__} has no logits and boxes of queries")
        return logits, boxes
