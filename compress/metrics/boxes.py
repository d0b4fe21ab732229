"""Whether a detector finds what the dense model finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.inputs.batch import Batch
from compress.metrics.change import similarity_change
from compress.metrics.kind import Figure, Metric, Quality, Scale
from compress.metrics.mean import sampled_mean

MOST = 10
"""Detections of a sample that are compared: the surest ones. No threshold of certainty suits every detector."""

OVERLAP = 0.5
"""Intersection over union from which on two boxes are the same, as in PASCAL VOC."""


@dataclass(frozen=True)
class Detections:
    """Of samples, the surest first: classes int64 `[samples, detections]` and boxes (left, top, right, bottom)
    `[samples, detections, 4]`."""

    classes: Tensor
    boxes: Tensor


Find = Callable[[Any], tuple[Tensor, Tensor]]
"""An output → scores `[batch, queries, classes]` and boxes (centre, width and height) `[batch, queries, 4]`."""


class DetectionAgreement(Metric[Detections]):
    """The share of the dense model's ten surest detections that are among the model's: same class, boxes that overlap
    by half. Each of the model's counts once."""

    name = "detection_agreement"
    relative = True

    def __init__(self, find: Find) -> None:
        self._find = find

    def read(self, output: Any, batch: Batch) -> Detections:
        """The surest detections of each sample; a query may be several of them, one for each class."""
        scores, boxes = self._find(output)
        surest = scores.float().flatten(1).topk(min(MOST, scores[0].numel()), 1).indices
        query, classes = surest // scores.shape[2], surest % scores.shape[2]
        found = boxes.float().gather(1, query[..., None].expand(-1, -1, 4))
        middle, half = found[..., :2], found[..., 2:] / 2
        return Detections(classes.cpu(), torch.cat([middle - half, middle + half], -1).cpu())

    def merged(self, readings: Sequence[Detections]) -> Detections:
        """The detections of all samples."""
        return Detections(torch.cat([one.classes for one in readings]), torch.cat([one.boxes for one in readings]))

    def quality(self, model: Detections, dense: Detections | None = None) -> Quality:
        """How many of the dense model's are found again; nothing without those."""
        if dense is None:
            return Quality()
        shares = torch.tensor(
            [_found(*pair) for pair in zip(model.classes, model.boxes, dense.classes, dense.boxes, strict=True)]
        ).double()
        found, over = sampled_mean(shares), f"{len(shares)} samples"
        figure = Figure(
            self.name, "Detections of the dense model found", over, found.value, 1.0, True, Scale.SIMILARITY
        )
        changes = {self.name: similarity_change(found, len(shares))} if len(shares) > 1 else {}
        record = {self.name: {"value": found.value, "samples": len(shares), "detections": model.classes.shape[1]}}
        return Quality((figure,), record, {}, changes, found)


def _found(classes: Tensor, boxes: Tensor, wanted: Tensor, places: Tensor) -> float:
    """Of the detections `wanted` at `places`, the share that is among `classes` at `boxes`, each taken once."""
    same = (overlap(places, boxes) >= OVERLAP) & (wanted[:, None] == classes)
    free, count = torch.ones(len(classes), dtype=torch.bool), 0
    for row in same:
        if (left := (row & free).nonzero()).numel():
            free[left[0]] = False
            count += 1
    return count / len(wanted)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes (left, top, right, bottom) `[n, 4]` and `[m, 4]`: `[n, m]`."""
    low = torch.maximum(one[:, None, :2], other[:, :2])
    high = torch.minimum(one[:, None, 2:], other[:, 2:])
    common = (high - low).clamp_min(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, other)]
    return common / (areas[0][:, None] + areas[1] - common).clamp_min(1e-12)
