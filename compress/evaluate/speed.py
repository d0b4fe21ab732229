"""How fast a model reads a prompt, writes after it, and works through many."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compress.evaluate.budget import Budget
from compress.evaluate.latency import Latency, forward
from compress.evaluate.turns import WARM_UP, in_turns
from compress.inputs.batch import Batch, given
from compress.inputs.kind import Inputs
from compress.metrics.change import Change, time_change

WRITTEN, ROWS, REPEATS, LEAST = 32, 8, 9, 3


@dataclass(frozen=True)
class Speed:
    """`prefill`: one sample. `decode`: tokens a second written after it, greedily with the key/value cache; None for
    models that write nothing. `throughput`: tokens (or what else a sample has) a second of forwards over `rows` samples
    at once."""

    prefill: Latency
    decode: float | None
    throughput: float
    rows: int


class Timed:
    """`model` on `sample`, a batch of one; `written` tokens are decoded, `rows` copies read at once."""

    def __init__(
        self, model: nn.Module, inputs: Inputs, sample: Batch, written: int = WRITTEN, rows: int = ROWS
    ) -> None:
        many = {name: value.expand(rows, *value.shape[1:]).contiguous() for name, value in sample.items()}
        self.prefill, self.throughput = forward(model, sample), forward(model, many)
        behind = inputs.written(sample)
        self.writes = behind is not None and behind.start is None  # a decoder with an encoder is not timed
        self._model, self._inputs, self._sample, self._written, self._rows = model, inputs, sample, written, rows

    @torch.inference_mode()
    def decode(self) -> float:
        """Seconds of a forward of a single token after the sample, greedily; the mean of `written`."""
        model: Any = self._model
        device = next(model.parameters()).device
        output = model(**{name: value.to(device) for name, value in given(self._sample).items()}, use_cache=True)
        cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        for _ in range(self._written):
            output = model(**{model.main_input_name: token}, past_key_values=cache, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return (time.perf_counter() - start) / self._written

    def speed(self, prefills: list[float], decodes: list[float] | None, together: list[float]) -> Speed:
        """From the seconds of every run."""
        decoded = 1 / statistics.median(decodes) if decodes else None
        prefill = Latency.of(prefills, self._inputs, self._sample)
        return Speed(prefill, decoded, self._rows * prefill.length / statistics.median(together), self._rows)


def speed(model: nn.Module, inputs: Inputs, sample: Batch, *, written: int = WRITTEN, rows: int = ROWS) -> Speed:
    """Time one model alone; see `Timed`."""
    timed = Timed(model, inputs, sample, written, rows)
    prefills = [timed.prefill() for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    together = [timed.throughput() for _ in range(1 + LEAST)][1:]
    return timed.speed(prefills, [timed.decode() for _ in range(LEAST)] if timed.writes else None, together)


def speeds(
    one: nn.Module, other: nn.Module, inputs: Inputs, samples: tuple[Batch, Batch]
) -> tuple[Speed, Speed, dict[str, Change]]:
    """Both models in turns, on one sample as each reads it; the changes are those of the time of `prefill`, `decode`
    and `throughput`."""
    both = (Timed(one, inputs, samples[0]), Timed(other, inputs, samples[1]))
    kinds = ["prefill", *(["decode"] if both[0].writes and both[1].writes else []), "throughput"]
    times: dict[str, tuple[list[float], list[float]]] = {}
    for kind in kinds:
        one_time, other_time = (getattr(timed, kind) for timed in both)
        found = in_turns(one_time, other_time, Budget(), label=f"measuring {kind}")
        assert found is not None  # a budget without end holds them
        times[kind] = found
    first, second = (
        timed.speed(times["prefill"][i], times["decode"][i] if "decode" in times else None, times["throughput"][i])
        for i, timed in enumerate(both)
    )
    return first, second, {kind: time_change(*some) for kind, some in times.items()}
