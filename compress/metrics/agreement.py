"""How often a model says what is right, and what the dense model says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.errors import InputError
from compress.inputs.batch import LABELS, Batch
from compress.metrics.change import Change, ratio_change, similarity_change
from compress.metrics.kind import Figure, Metric, Quality, Scale
from compress.metrics.mean import sampled_mean

AGREEMENT = "agreement"


@dataclass(frozen=True)
class Answers:
    """Of samples, in order: the classes that a model says and the right ones, int64 `[samples, places]`.

    `right` is None where it is not known, and negative at places that do not count.
    """

    said: Tensor
    right: Tensor | None


class ClassAgreement(Metric[Answers]):
    """The share of places where a model says the right class (its `name`), and where it says the dense model's.

    Models are ranked by the first where the samples have labels. `logits(output)`: `[batch, classes, …]`. `title`: of
    the share that is right, in words.
    """

    def __init__(self, logits: Callable[[Any], Tensor], *, labelled: bool, name: str, title: str) -> None:
        self._logits, self._title, self.relative = logits, title, not labelled
        self.name = name if labelled else AGREEMENT

    def read(self, output: Any, batch: Batch) -> Answers:
        """The class of the largest logit at each place. Raises InputError for labels of other places."""
        said = self._logits(output).argmax(1)
        right = batch.get(LABELS)
        if right is not None and right.shape != said.shape:
            raise InputError(f"labels of shape {list(right.shape)}; the model gives classes {list(said.shape)}")
        right = None if right is None else right.flatten(1) if right.dim() > 1 else right[:, None]
        return Answers(said.reshape(len(said), -1).cpu(), None if right is None else right.cpu())

    def merged(self, readings: Sequence[Answers]) -> Answers:
        """The answers of all samples."""
        right = [one.right for one in readings if one.right is not None]
        said = torch.cat([one.said for one in readings])
        return Answers(said, torch.cat(right) if len(right) == len(readings) else None)

    def quality(self, model: Answers, dense: Answers | None = None) -> Quality:
        """Shares, and how sure their changes are."""
        figures: list[Figure] = []
        changes: dict[str, Change | None] = {}
        over, record, dense_record, ranked = f"{len(model.said)} samples", {}, {}, None
        if model.right is not None:
            own, other = _share(model, model.right), None if dense is None else _share(dense, model.right)
            record, ranked = {self.name: _record(own)}, sampled_mean(own)
            value = None
            if other is not None:
                value, dense_record = float(other.mean()), {self.name: _record(other)}
                changes[self.name] = ratio_change(sampled_mean(other), ranked)
            figures.append(Figure(self.name, self._title, over, ranked.value, value, True, Scale.SHARE))
        if dense is not None:
            alike = _share(model, dense.said)
            found = sampled_mean(alike)
            title = "Agreement with the dense model"
            figures.append(
                Figure(AGREEMENT, title, over, found.value, 1.0, True, Scale.SIMILARITY, ranks=ranked is None)
            )
            changes[AGREEMENT] = similarity_change(found, len(alike)) if len(alike) > 1 else None
            record, ranked = {**record, AGREEMENT: _record(alike)}, ranked or found
        sure = {name: change for name, change in changes.items() if change is not None}
        return Quality(figures, record, dense_record, sure, ranked)


def _share(answers: Answers, wanted: Tensor) -> Tensor:
    """Of each sample's places that count, those with the class `wanted`, float64 `[samples]`."""
    counts = wanted >= 0
    return ((answers.said == wanted) & counts).sum(1).double() / counts.sum(1).clamp_min(1)


def _record(shares: Tensor) -> dict[str, Any]:
    return {"value": float(shares.mean()), "samples": len(shares)}
