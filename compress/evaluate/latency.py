"""Wall-clock time of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward over `batch` × `length` tokens: the median and the fastest of `repeats` runs."""

    seconds: float
    fastest: float
    batch: int
    length: int
    repeats: int
    threads: int

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.1f} ms ({self.batch} × {self.length} tokens, {self.threads} threads)"

    @classmethod
    def of(cls, times: Sequence[float], shape: Sequence[int], threads: int | None = None) -> Latency:
        """From the seconds of each run over `shape`, (batch, length)."""
        threads = torch.get_num_threads() if threads is None else threads
        return cls(statistics.median(times), min(times), shape[0], shape[1], len(times), threads)


def forward(model: nn.Module, batch: Mapping[str, Tensor]) -> Callable[[], float]:
    """What runs `model(**batch)` once, `input_ids` `[batch, length]`, and returns its seconds.

    On an accelerator each run ends with a synchronisation.
    """
    device = next(model.parameters()).device
    given = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    if getattr(getattr(model, "config", None), "use_cache", None):
        given["use_cache"] = False  # pyright: ignore[reportArgumentType]

    @torch.inference_mode()
    def once() -> float:
        start = time.perf_counter()
        model(**given)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start

    return once


def latency(model: nn.Module, batch: Mapping[str, Tensor], *, repeats: int = 9, warm_up: int = 2) -> Latency:
    """Median time of `model(**batch)`, `input_ids` `[batch, length]`, after `warm_up` runs that do not count.

    The median is what one forward costs on a machine that does other things too. Times of two models compare only
    where both were taken in turns (`compress.evaluate.turns`).
    """
    run = forward(model, batch)
    times = [run() for _ in range(warm_up + repeats)][warm_up:]
    return Latency.of(times, batch["input_ids"].shape)
