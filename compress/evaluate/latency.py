"""Wall-clock time of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from compress.inputs.batch import Batch, given, rows
from compress.inputs.kind import Inputs
from compress.tasks.asked import asked

FIRST = {"use_cache": True, "logits_to_keep": 1}
"""What a forward is asked for when a model is about to write."""


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward over `batch` × `length` of what `noun` calls them: the median and the fastest of `repeats`
    runs."""

    seconds: float
    fastest: float
    batch: int
    length: int
    repeats: int
    threads: int
    noun: str = "tokens"

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.1f} ms ({self.batch} × {self.length} {self.noun}, {self.threads} threads)"

    @classmethod
    def of(cls, times: Sequence[float], inputs: Inputs, batch: Batch, threads: int | None = None) -> Latency:
        """From the seconds of each run over `batch`."""
        threads = torch.get_num_threads() if threads is None else threads
        shape = rows(batch), inputs.length(batch)
        return cls(statistics.median(times), min(times), *shape, len(times), threads, inputs.noun)


def forward(model: nn.Module, batch: Batch, *, writing: bool = False) -> Callable[[], float]:
    """What runs `model(**batch)` once, without labels, and returns its seconds.

    A model that is `writing` fills its cache and gives the last position's logits alone: the time to its first token.
    On an accelerator each run ends with a synchronisation.
    """
    device = next(model.parameters()).device
    moved, run = (
        {name: value.to(device) for name, value in given(batch).items()},
        asked(model, FIRST if writing else {}),
    )

    @torch.inference_mode()
    def once() -> float:
        start = time.perf_counter()
        run(**moved)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start

    return once


def latency(model: nn.Module, inputs: Inputs, batch: Batch, *, repeats: int = 9, warm_up: int = 2) -> Latency:
    """Median time of `model(**batch)` after `warm_up` runs that do not count.

    The median is what one forward costs on a machine that does other things too. Times of two models compare only
    where both were taken in turns (`compress.evaluate.turns`).
    """
    run = forward(model, batch)
    times = [run() for _ in range(warm_up + repeats)][warm_up:]
    return Latency.of(times, inputs, batch)
