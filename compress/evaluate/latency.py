"""Wall-clock time of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
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


@torch.inference_mode()
def latency(model: nn.Module, batch: Mapping[str, Tensor], *, repeats: int = 9, warm_up: int = 2) -> Latency:
    """Median time of `model(**batch)`, `input_ids` `[batch, length]`, after `warm_up` runs that do not count.

    The median is what one forward costs on a machine that does other things too; on an accelerator each run ends with
    a synchronisation.
    """
    device = next(model.parameters()).device
    given = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    if getattr(getattr(model, "config", None), "use_cache", None):
        given["use_cache"] = False  # pyright: ignore[reportArgumentType]
    times = []
    for run in range(warm_up + repeats):
        start = time.perf_counter()
        model(**given)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        if run >= warm_up:
            times.append(time.perf_counter() - start)
    size, length = batch["input_ids"].shape
    return Latency(statistics.median(times), min(times), size, length, repeats, torch.get_num_threads())
