"""How fast a model's graph is in ONNX Runtime."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compress.evaluate.budget import Budget
from compress.evaluate.change import Change, time_change
from compress.evaluate.latency import Latency
from compress.evaluate.turns import in_turns
from compress.onnx import Session

WRITTEN, REPEATS, WARM_UP = 32, 9, 2


@dataclass(frozen=True)
class OrtSpeed:
    """`prefill`: one forward of the prompt. `decode`: tokens a second after it; None without a cache."""

    prefill: Latency
    decode: float | None


@dataclass(frozen=True)
class Speeds:
    """Of the dense and of the pruned model, in turns; `changes`: `onnx_prefill` and `onnx_decode` (time of a token)."""

    before: OrtSpeed
    after: OrtSpeed
    changes: dict[str, Change]


class Timed:
    """The graph at `path` on `prompt`, int64 `[1, length]`, with as many threads as torch has.

    A graph of a fixed shape is timed at that shape. Raises InputError when ONNX Runtime cannot open `path`.
    """

    def __init__(self, path: Path, prompt: np.ndarray, written: int = WRITTEN) -> None:
        self.threads, self._written = torch.get_num_threads(), written
        self._session = Session(path, self.threads)
        batch, length = (
            own if isinstance(own, int) else size
            for own, size in zip(self._session.shapes["input_ids"], prompt.shape, strict=True)
        )
        self.shape, self._prompt = (batch, length), np.resize(prompt, (batch, length))
        self._mask, self._cache = np.ones_like(self._prompt), self._session.empty(batch)
        self._whole = {
            "input_ids": self._prompt,
            "attention_mask": self._mask,
            "token_type_ids": np.zeros_like(self._prompt),
            "position_ids": np.broadcast_to(np.arange(length), self._prompt.shape).astype(np.int64),
            "decoder_input_ids": self._prompt,
            **self._cache,
        }

    @property
    def writes(self) -> bool:
        """Whether the graph has a cache to decode with."""
        return self._session.cached

    def prefill(self) -> float:
        """Seconds of one forward of the prompt."""
        start = time.perf_counter()
        self._session(self._whole)
        return time.perf_counter() - start

    def decode(self) -> float:
        """Seconds of a step that writes one token to each sequence after the prompt; the mean of `written`."""
        (batch, length), session = self.shape, self._session
        logits, grown = session.step(self._prompt, self._mask, self._cache)
        start = time.perf_counter()
        for step in range(1, self._written + 1):
            token = logits[:, -1:].argmax(-1).astype(np.int64)
            logits, grown = session.step(token, np.ones((batch, length + step), np.int64), grown)
        return (time.perf_counter() - start) / self._written

    def speed(self, prefills: list[float], decodes: list[float] | None) -> OrtSpeed:
        """From the seconds that each run of `prefill` and `decode` took."""
        decode = self.shape[0] / statistics.median(decodes) if decodes else None
        return OrtSpeed(Latency.of(prefills, self.shape, self.threads), decode)


def ort_speed(path: Path, prompt: np.ndarray, *, written: int = WRITTEN) -> OrtSpeed:
    """Time one graph alone; see `Timed`."""
    graph = Timed(path, prompt, written)
    times = [graph.prefill() for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    return graph.speed(times, [graph.decode() for _ in range(3)] if graph.writes else None)


def ort_speeds(dense: Path, pruned: Path, prompt: np.ndarray, budget: Budget) -> Speeds | None:
    """Time two graphs in turns on one prompt; None where the budget does not hold enough rounds."""
    one, other = Timed(dense, prompt), Timed(pruned, prompt)
    read = in_turns(one.prefill, other.prefill, budget, label="measuring latency in ONNX Runtime")
    if read is None:
        return None
    changes = {"onnx_prefill": time_change(*read)}
    wrote = None
    if one.writes and other.writes:
        wrote = in_turns(one.decode, other.decode, budget, label="measuring decoding in ONNX Runtime")
    if wrote is not None:
        changes["onnx_decode"] = time_change(*wrote)
    before, after = (graph.speed(read[i], wrote[i] if wrote else None) for i, graph in enumerate((one, other)))
    return Speeds(before, after, changes)
