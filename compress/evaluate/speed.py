"""How fast a model reads a prompt, writes after it, and works through many."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.evaluate.budget import Budget
from compress.evaluate.change import Change, time_change
from compress.evaluate.latency import Latency, forward
from compress.evaluate.turns import WARM_UP, in_turns

WRITTEN, ROWS, REPEATS, LEAST = 32, 8, 9, 3


@dataclass(frozen=True)
class Speed:
    """`prefill`: one prompt. `decode`: tokens a second written after it, greedily with the key/value cache; None for
    models that write nothing. `throughput`: tokens a second of forwards over `rows` prompts at once."""

    prefill: Latency
    decode: float | None
    throughput: float
    rows: int


class Timed:
    """`model` on `prompt`, int64 `[1, length]`; `written` tokens are decoded, `rows` copies read at once."""

    def __init__(self, model: nn.Module, prompt: Tensor, written: int = WRITTEN, rows: int = ROWS) -> None:
        one, many = {"input_ids": prompt}, {"input_ids": prompt.expand(rows, -1).contiguous()}
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            one["decoder_input_ids"], many["decoder_input_ids"] = one["input_ids"], many["input_ids"]
        self.prefill, self.throughput = forward(model, one), forward(model, many)
        self.writes = _writes(model)
        self._model, self._prompt, self._written, self._rows = model, prompt, written, rows

    @torch.inference_mode()
    def decode(self) -> float:
        """Seconds of a forward of a single token after the prompt, greedily; the mean of `written`."""
        model, device = self._model, next(self._model.parameters()).device
        output = model(input_ids=self._prompt.to(device), use_cache=True)
        cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        for _ in range(self._written):
            output = model(input_ids=token, past_key_values=cache, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return (time.perf_counter() - start) / self._written

    def speed(self, prefills: list[float], decodes: list[float] | None, together: list[float]) -> Speed:
        """From the seconds of every run."""
        decoded = 1 / statistics.median(decodes) if decodes else None
        tokens = self._rows * self._prompt.shape[1]
        prefill = Latency.of(prefills, self._prompt.shape)
        return Speed(prefill, decoded, tokens / statistics.median(together), self._rows)


def speed(model: nn.Module, prompt: Tensor, *, written: int = WRITTEN, rows: int = ROWS) -> Speed:
    """Time one model alone; see `Timed`."""
    timed = Timed(model, prompt, written, rows)
    prefills = [timed.prefill() for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    together = [timed.throughput() for _ in range(1 + LEAST)][1:]
    return timed.speed(prefills, [timed.decode() for _ in range(LEAST)] if timed.writes else None, together)


def speeds(one: nn.Module, other: nn.Module, prompt: Tensor) -> tuple[Speed, Speed, dict[str, Change]]:
    """Both models in turns; the changes are those of the time of `prefill`, `decode` and `throughput`."""
    both = (Timed(one, prompt), Timed(other, prompt))
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


def _writes(model: nn.Module) -> bool:
    encoder_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return not encoder_decoder and hasattr(model, "can_generate") and model.can_generate()  # pyright: ignore
