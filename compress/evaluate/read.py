"""What a model in memory makes of samples, as a metric reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from compress.console import track
from compress.errors import InputError
from compress.inputs.batch import Batch, given
from compress.metrics.kind import Metric, Quality
from compress.tasks.asked import asked
from compress.tasks.choose import task_of
from compress.tasks.kind import Task


@torch.no_grad()
def read(model: nn.Module, metric: Metric[Any], batch: Batch) -> Any:
    """The reading of one batch, whose labels the model is not given."""
    device = next(model.parameters()).device
    moved = {name: value.to(device) for name, value in batch.items()}
    return metric.read(metric.run(asked(model, metric.asks), given(moved)), moved)


def read_all(model: nn.Module, metric: Metric[Any], batches: Iterable[Batch]) -> Any:
    """The reading of all batches, with progress. Raises InputError when there is none."""
    found = [read(model, metric, batch) for batch in track(batches, "measuring quality")]
    if not found:
        raise InputError("no sample to measure quality on")
    return metric.merged(found)


def quality_of(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    dense: nn.Module | None = None,
    task: Task | None = None,
) -> Quality:
    """What `model` is worth on `batches` by the metric of its task, beside `dense` where that is given.

    `task` is the model's own where none is named. Raises InputError for batches that the metric cannot use.
    """
    rows = list(batches)
    metric = (task or task_of(model)).metric(rows[0] if rows else {})
    beside = read_all(dense, metric, rows) if dense is not None else None
    return metric.quality(read_all(model, metric, rows), beside)
