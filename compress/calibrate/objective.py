"""What a way back through a model starts from, and by which rules it goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compress.inputs.batch import Batch
from compress.tasks.kind import Task


def _loss(task: Task, output: Any, batch: Batch) -> Tensor:
    return task.loss(output, batch)


def _plainly(depth: float) -> AbstractContextManager[Any]:
    return nullcontext()


@dataclass(frozen=True)
class Objective:
    """`start(task, output, batch)` is a number `[]`, and what is differentiated; blocks and what lies between them run
    in `inside(depth)`, a context, with a block's place among all as 0 to 1, 1 outside of blocks."""

    start: Callable[[Task, Any, Batch], Tensor] = _loss
    inside: Callable[[float], AbstractContextManager[Any]] = _plainly


LOSS = Objective()
