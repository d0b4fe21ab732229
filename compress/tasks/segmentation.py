"""Models that say to which class each pixel belongs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from compress.errors import ModelError
from compress.inputs.batch import LABELS, Batch
from compress.metrics.agreement import ClassAgreement
from compress.registry import tasks
from compress.tasks.distance import kl_divergence
from compress.tasks.kind import Task

NOTHING = -100
"""A label that does not count."""


@tasks.add("segmentation")
class Segmentation(Task):
    """A class for each place, out of logits `[batch, classes, height, width]`; labels are int64 `[batch, height,
    width]`, of any size, negative where they do not count."""

    name, hub_task = "segmentation", "image-segmentation"

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that are called so."""
        return type(model).__name__.endswith("ForSemanticSegmentation")

    def result(self, output: Any) -> Tensor:
        """The logits, `[batch, height, width, classes]`."""
        return self._maps(output).movedim(1, -1)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean cross-entropy of the labels, the logits being interpolated to their size as the stock models do."""
        if LABELS not in batch:
            raise ModelError(
                "the model gives classes of pixels, and the data does not say the right ones, so no loss is defined; "
                "choose a criterion without gradients"
            )
        logits = self._maps(output)
        labels = batch[LABELS].to(logits.device)
        wide = functional.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
        return functional.cross_entropy(wide, labels.masked_fill(labels < 0, NOTHING), ignore_index=NOTHING)

    def metric(self, batch: Batch) -> ClassAgreement:
        """The share of pixels with the right class where there are labels, and with the dense model's."""
        size = batch[LABELS].shape[-2:] if LABELS in batch else None

        def logits(output: Any) -> Tensor:
            maps = self._maps(output)
            return maps if size is None else functional.interpolate(maps.float(), size, mode="bilinear")

        return ClassAgreement(logits, labelled=size is not None, name="pixel_accuracy", title="Pixel accuracy")

    def distance(self, one: Any, other: Any) -> Tensor:
        """KL divergence of `other` from `one`, in nats, `[batch, height, width]`."""
        return kl_divergence(self.result(one), self.result(other))

    def _maps(self, output: Any) -> Tensor:
        logits = getattr(output, "logits", None)
        if logits is None or logits.dim() != 4:
            raise ModelError(f"a {type(output).__name__} has no logits per pixel")
        return logits
